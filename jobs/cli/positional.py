"""Words of a command line that stand for flags: `show RUN` is `show --run RUN`."""

from collections.abc import Sequence


def name_first_words(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Returns a command line with the first words behind the flags that they are values of.

    Args:
        arguments: words of the command line.
        flags: of the first words, in order. A word that begins with `-` ends them.
    """
    words: list[str] = []
    for position, word in enumerate(arguments):
        if position >= len(flags) or word.startswith("-"):
            return [*words, *arguments[position:]]
        words += [flags[position], word]
    return words
