"""Values from outside → Markdown that shows them and nothing else: no heading, link, image or HTML of theirs takes effect."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from pipeline.storage.redaction import redact_credentials

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$@])")
_LINKED = re.compile(r"(?i)(?<=/)(?=/)|(?<=www)(?=\.)")  # where a bare address would become a link
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
BAR_CHARS = 24


def inline(value: object) -> str:
    """Returns a value as text within a line or a cell of a table."""
    shown = _visible(redact_credentials(str(value)), keep="")
    return _LINKED.sub(r"\\", _SPECIAL.sub(r"\\\1", shown))


def code(value: object) -> str:
    """Returns a value as code within a line or a cell of a table."""
    shown = _visible(redact_credentials(str(value)), keep="")
    if not shown:
        return "(empty)"
    # it would end a cell, and a backslash before it is not always one that escapes
    if "|" in shown:
        return f"<code>{_PUNCTUATION.sub(lambda each: f'&#{ord(each[0])};', shown)}</code>"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    room = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{room}{shown}{room}{fence}"


def block(text: str, language: str = "") -> str:
    """Returns a text as a block of code, whatever it holds."""
    shown = _visible(text, keep="\n\t")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence}{language}\n{shown}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bar(share: float) -> str:
    """Returns a bar as long as a share of one."""
    eighths = round(8 * BAR_CHARS * share)
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")


def _visible(text: str, *, keep: str) -> str:
    """Returns the text with control characters, and those that reorder what is shown, spelled out."""
    return "".join(
        each
        if each in keep or unicodedata.category(each) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else f"\\u{ord(each):04x}"
        for each in text
    )
