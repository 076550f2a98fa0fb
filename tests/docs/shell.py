"""Splits the shell blocks of the documentation into their commands."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

PLACEHOLDER = "…"  # stands for words that the reader fills in
OPERATORS = frozenset({"|", "||", "&", "&&", ";"})
REDIRECTIONS = frozenset({">", ">>", "<", "2>"})


@dataclass(frozen=True)
class Command:
    """One command: its words, without assignments before it and redirections after it."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


def commands(text: str) -> Iterator[Command]:
    """Yields the commands of a block, those in `$(…)` first."""
    for line in text.replace("\\\n", " ").splitlines():
        yield from _line_commands(line)


def _line_commands(line: str) -> Iterator[Command]:
    outer, inner = _take_substitutions(line)
    for text in inner:
        yield from _line_commands(text)

    lexer = shlex.shlex(outer, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if token not in OPERATORS:
            words.append(token)
            continue
        if words:
            yield _command(words)
        words = []


def _command(words: list[str]) -> Command:
    kept: list[str] = []
    remaining = iter(words)
    for word in remaining:
        name, separator, _ = word.partition("=")
        if word in REDIRECTIONS:
            next(remaining)
            continue
        is_assignment = not kept and separator and name.isidentifier()
        if not is_assignment:
            kept.append(word)
    return Command(tuple(kept))


def _take_substitutions(line: str) -> tuple[str, list[str]]:
    """Returns a line with `SUBSTITUTED` in place of each `$(…)`, and the texts of these."""
    inner: list[str] = []
    while "$(" in line:
        start = line.index("$(")
        depth = 0
        end = start + 1
        for end in range(start + 1, len(line)):
            depth += {"(": 1, ")": -1}.get(line[end], 0)
            if depth == 0:
                break
        inner.append(line[start + 2 : end])
        line = f"{line[:start]}SUBSTITUTED{line[end + 1 :]}"
    return line, inner
