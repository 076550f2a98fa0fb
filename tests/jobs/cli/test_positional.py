"""positional.py: first words become values of flags, up to the first flag."""

import pytest

from jobs.cli.positional import name_first_words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["run"], ["--a", "run"]),
        (["one", "two", "three"], ["--a", "one", "--b", "two", "three"]),
        (["one", "--json", "two"], ["--a", "one", "--json", "two"]),
        (["--b", "two"], ["--b", "two"]),
    ],
)
def test_first_words_are_values_of_the_flags(words: list[str], expected: list[str]) -> None:
    assert name_first_words(words, ["--a", "--b"]) == expected
