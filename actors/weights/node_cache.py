"""Finds the copy of weights on this node's own disk, and checks that it is current.

The node's set-up fills a folder and names it in GROK_BATCH_WEIGHTS_CACHE: s3://bucket/grok-1 lies
there as bucket/grok-1, and bucket/grok-1.complete, written last, holds the URL. The driver does not
read the copy: it names the URL and its digest. A copy of other weights, made before they were
replaced, is therefore not used.
"""

import logging
import os
from pathlib import Path

from actors.protocol.plain_text import bare
from actors.weights.digest import digest

VARIABLE = "GROK_BATCH_WEIGHTS_CACHE"
_LOG = logging.getLogger(__name__)


def node_copy(url: str) -> str:
    """Returns the folder of this node that holds a complete copy of the weights, or `url` itself.

    Raises:
        ModelError: `url` or the copy cannot be read.
    """
    cache = os.environ.get(VARIABLE)
    scheme, _, path = url.rstrip("/").partition("://")
    if not cache or not path or scheme == "file" or ".." in path.split("/"):
        return url
    copy = Path(cache, path)
    marker = Path(cache, f"{path}.complete")
    if not marker.exists() or marker.read_text().strip() != f"{scheme}://{path}":
        return url
    if digest(copy) != digest(url):
        _LOG.warning("%s differs from %s; reading the latter: fill the copy again", copy, bare(url))
        return url
    return str(copy)
