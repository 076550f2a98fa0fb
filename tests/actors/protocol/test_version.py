"""version.py: the version has the form that packages, tags and images share."""

import re

from actors.protocol.version import VERSION


def test_version_has_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
