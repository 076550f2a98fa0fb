"""URL of weights -> the checked copy on this node's own disk, where it has one, else the same URL.

Who sets up a node fills a folder and names it in GROK_BATCH_WEIGHTS_CACHE: s3://bucket/grok-1 lies
there as bucket/grok-1, and bucket/grok-1.complete, written last, holds the URL. The driver never
sees the copy: it names the URL and takes the digest of what is there. A copy of other weights, made
before they were replaced, is therefore not used. Imports no JAX.
"""

import logging
import os
from pathlib import Path

from actors.weights.digest import digest

VARIABLE = "GROK_BATCH_WEIGHTS_CACHE"
_LOG = logging.getLogger(__name__)


def node_copy(url: str) -> str:
    """Returns the folder of this node that holds a whole copy of the weights at `url`.

    `url` itself where there is none.

    Raises:
        ModelError: `url` or the copy cannot be read.
    """
    cache, (scheme, _, path) = os.environ.get(VARIABLE), url.rstrip("/").partition("://")
    if not cache or not path or scheme == "file" or ".." in path.split("/"):
        return url
    copy, mark = Path(cache, path), Path(cache, f"{path}.complete")
    if not mark.exists() or mark.read_text().strip() != f"{scheme}://{path}":
        return url
    if digest(copy) != digest(url):
        _LOG.warning("%s is not what %s is now; reading the latter: fill the copy again", copy, url)
        return url
    return str(copy)
