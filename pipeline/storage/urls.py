"""Parts of URLs: the scheme, and the path that names a file."""

import re

LOCAL_SCHEMES = ("file", "local")
S3_SCHEMES = ("s3", "s3a")
HTTP_SCHEMES = ("http", "https")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# fsspec's chains, such as `zip://*.csv::s3://bucket/a.zip` and `simplecache::s3://bucket/a`
_CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://.*)?::[A-Za-z][A-Za-z0-9+.-]*(://|::)")


def is_chain(url: str) -> bool:
    """Whether `url` names one file system inside another.

    `::` alone is part of a name, as in `s3://bucket/qa::train.parquet`.
    """
    return _CHAIN.match(url) is not None


def scheme_of(url: str) -> str:
    """Returns the scheme of a URL in lower case: "file" for a plain path, "" for a chain."""
    if is_chain(url):
        return ""
    match = _SCHEME.match(url)
    if match is None:
        return "file"
    return match[1].lower()


def with_lower_scheme(url: str) -> str:
    """Returns `url` with its scheme in lower case: `S3://bucket/key` is `s3://bucket/key`."""
    match = _SCHEME.match(url)
    if match is None or is_chain(url):
        return url
    return match[0].lower() + url[match.end() :]


def path_of(url: str) -> str:
    """Returns `url` without the query and the fragment that an HTTP URL may have.

    On disks and object stores, `?` and `#` are part of a name.
    """
    if scheme_of(url) in HTTP_SCHEMES:
        return re.split("[?#]", url, maxsplit=1)[0]
    return url
