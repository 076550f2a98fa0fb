"""Markdown that shows outside values literally: no markup or HTML in them takes effect."""

import re
import unicodedata

from pipeline.storage.redaction import redact_credentials

BAR_CHARS = 24
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$@])")
_BARE_LINK = re.compile(r"(?i)(?<=/)(?=/)|(?<=www)(?=\.)")  # where an address would become a link
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_BACKTICKS = re.compile("`+")
# control characters, and those that reorder or hide text
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def inline(value: object) -> str:
    """Returns a value as text within a line or a cell of a table."""
    text = _visible(redact_credentials(str(value)))
    return _BARE_LINK.sub(r"\\", _SPECIAL.sub(r"\\\1", text))


def code(value: object) -> str:
    """Returns a value as code within a line or a cell of a table."""
    text = _visible(redact_credentials(str(value)))
    if not text:
        return "(empty)"
    # it would end a cell, and a backslash before it does not always escape it
    if "|" in text:
        return f"<code>{_PUNCTUATION.sub(_entity, text)}</code>"
    fence = "`" * (1 + _longest_run(text))
    padding = ""
    if text.startswith("`") or text.endswith("`") or not text.strip():
        padding = " "
    return f"{fence}{padding}{text}{padding}{fence}"


def block(text: str, language: str = "") -> str:
    """Returns any text as a block of code."""
    visible = _visible(text, keep="\n\t")
    fence = "`" * max(3, 1 + _longest_run(visible))
    return f"{fence}{language}\n{visible}\n{fence}"


def bar(share: float) -> str:
    """Returns a bar as long as a share of one."""
    eighths = round(8 * BAR_CHARS * share)
    full, part = divmod(eighths, 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[part].strip()


def _longest_run(text: str) -> int:
    """Returns the length of the longest run of backticks."""
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"


def _visible(text: str, keep: str = "") -> str:
    """Returns the text with invisible characters as escapes, but for those in `keep`."""
    characters = []
    for character in text:
        if character not in keep and unicodedata.category(character) in _INVISIBLE:
            characters.append(f"\\u{ord(character):04x}")
        else:
            characters.append(character)
    return "".join(characters)
