"""The value of --template: a text with escapes, or a file that is taken as it is."""

import re

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.templates.row_template import RowTemplate

FLAG = "--template"
FILE_MARK = "@"
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}
_ESCAPE = re.compile(r"\\([nt\\])")
_SINGLE_BRACES = re.compile(r"(?<![{%#])\{\s*(\w+)\s*\}(?!\})")


def read_template(value: str) -> RowTemplate:
    r"""Returns the template that the flag gives.

    Args:
        value: of the flag: a template, in which `\n`, `\t` and `\\` are escapes, because shells
            pass them as typed; or `@` and the path or URL of a file without escapes.

    Raises:
        ConfigError: the template has a syntax error, uses no column, or its file is not UTF-8.
        DatasetError: the file cannot be read.
    """
    if value.startswith(FILE_MARK):
        text = _read_text(value.removeprefix(FILE_MARK))
    else:
        text = _ESCAPE.sub(lambda escape: _ESCAPES[escape[1]], value)
    template = RowTemplate(text, FLAG)
    if not template.names:
        raise ConfigError(
            f"{FLAG}: it uses no column, so that all prompts are equal; {_hint(text)}"
        )
    return template


def _hint(text: str) -> str:
    braces = _SINGLE_BRACES.search(text)
    if braces is not None:
        return f"single braces are text: write {{{{ {braces[1]} }}}}"
    return "write {{ column }} for the value of a column"


def _read_text(url: str) -> str:
    data, _version = storage.read(url)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{FLAG}: {url} is not UTF-8 ({error.reason} at byte {error.start})"
        ) from error
