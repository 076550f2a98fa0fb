"""The fenced blocks and the commands in the text of the documentation's pages."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# languages of blocks, with how tests/docs/test_blocks.py checks them
LANGUAGES = {
    "bash": "run or parsed",
    "inline": "run or parsed",
    "hcl": "its command is parsed",
    "jinja": "parsed",
    "json": "parsed",
    "promql": "names of its metrics",
    "python": "run",
    "sql": "run",
    "text": "output, layout or a drawing: nothing to run",
    "yaml": "parsed by the parser of its command",
}
FENCE = re.compile(r"^ *```(.*)$")
# in backticks: a whole command of ours, which a reader may copy
INLINE_COMMAND = re.compile(
    r"`((?:\.venv/bin/)?(?:grok-batch [a-z]|python jobs/)[^`]*|duckdb -c [^`]*)`"
)


@dataclass(frozen=True)
class Block:
    """A fenced block, or a command within a sentence."""

    page: str  # path from the root of the repository
    line: int  # of the page
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Returns the pages of the documentation."""
    tops = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "infra" / "README.md"]
    return [*tops, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> list[Block]:
    """Returns the fenced blocks and the commands within sentences, in the order of the pages."""
    found: list[Block] = []
    for path in pages():
        page = str(path.relative_to(ROOT))
        text = path.read_text()
        of_page = [*_fenced_blocks(page, text), *_inline_commands(page, text)]
        found += sorted(of_page, key=lambda block: block.line)
    return found


def _fenced_blocks(page: str, text: str) -> Iterator[Block]:
    start: tuple[int, str] | None = None
    content: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence is None:
            content.append(line)
        elif start is None:
            start = (number, fence[1])
            content = []
        else:
            yield Block(page, start[0], start[1], textwrap.dedent("\n".join(content)) + "\n")
            start = None
    assert start is None, f"{page}: a block is not closed"


def _inline_commands(page: str, text: str) -> Iterator[Block]:
    for match in INLINE_COMMAND.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, "inline", " ".join(match[1].split()) + "\n")
