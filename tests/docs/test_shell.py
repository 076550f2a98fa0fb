"""shell.py: the commands of a shell block."""

import pytest

from tests.docs.shell import commands


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("make test   # what CI runs\n", [("make", "test")]),
        ("a \\\n    -b c\n", [("a", "-b", "c")]),
        ("cd x && A=1 b > file\n", [("cd", "x"), ("b",)]),
        (
            'a "$(b "$(c d)" | e)"\n',
            [("c", "d"), ("b", "SUBSTITUTED"), ("e",), ("a", "SUBSTITUTED")],
        ),
        ("a 'b # c; d' | e &\n", [("a", "b # c; d"), ("e",)]),
        ("# nothing\n", []),
    ],
)
def test_block_is_split_into_commands(text: str, words: list[tuple[str, ...]]) -> None:
    assert [command.words for command in commands(text)] == words
