"""Flags and keys that are given twice or that do not exist: what was probably meant."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import yaml

from actors.protocol.parameter_names import similar_name
from actors.protocol.plain_text import quoted
from jobs.cli.flag_checks import flag_name
from pipeline.errors import ConfigError

_UNKNOWN = re.compile(r"unrecognized arguments: --([\w-]+)|Option '([\w-]+)' is not accepted")


def repeated_flags(
    arguments: Sequence[str], short_names: Mapping[str, str], single: Collection[str]
) -> dict[str, list[str]]:
    """Returns the values of flags that the command line gives several different values.

    Args:
        arguments: words of the command line.
        short_names: field by flag of one letter: {"-i": "input"}.
        single: fields whose flag takes one value.
    """
    values: dict[str, list[str]] = defaultdict(list)
    for position, word in enumerate(arguments):
        name, separator, value = word.partition("=")
        field = short_names.get(name)
        if field is None and name.startswith("--"):
            field = name.removeprefix("--").replace("-", "_")
        if field is None or field not in single:
            continue
        if not separator:
            value = next(iter(arguments[position + 1 :]), "")
        values[field].append(value)

    return {field: several for field, several in values.items() if len(set(several)) > 1}


def check_repeated_locations(repeated: Mapping[str, Sequence[str]]) -> None:
    """Checks that a run has one input and one output.

    Of other flags the last value counts, as wrappers of commands expect.

    Raises:
        ConfigError: one of them has several values.
    """
    for field in ("input", "output"):
        values = [value for value in repeated.get(field, ()) if value]
        if len(values) > 1:
            listed = " and ".join(quoted(value) for value in values)
            raise ConfigError(
                f"{flag_name(field)}: expected one file, folder or glob, got {listed}; put the "
                "files into one folder or name them by one glob, or start a run for each"
            )


def job_files(arguments: Sequence[str]) -> Iterator[str]:
    """Yields the files of -C and --config."""
    for position, word in enumerate(arguments):
        name, separator, value = word.partition("=")
        if name not in ("-C", "--config"):
            continue
        if separator:
            yield value
        else:
            yield from arguments[position + 1 : position + 2]


def check_repeated_keys(file: str) -> None:
    """Checks that no key of a job file stands twice; `max-tokens` is `max_tokens`.

    A file that cannot be read or parsed is left to the parser, which reports it.

    Raises:
        ConfigError: a key stands twice.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            root = yaml.compose(stream, yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    if root is not None:
        _check_node(root, file, is_root=True)


def _check_node(node: yaml.Node, file: str, *, is_root: bool = False) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_node(item, file)
    if not isinstance(node, yaml.MappingNode):
        return

    lines: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value)
        if is_root:
            name = name.replace("-", "_")
        line = key.start_mark.line + 1
        if name in lines:
            raise ConfigError(
                f"{file}: key {quoted(name)} is set twice, in lines {lines[name]} and {line}; "
                "remove one"
            )
        lines[name] = line
        _check_node(value, file)


def name_hint(message: str, names: Collection[str]) -> str:
    """Returns "; did you mean …?" for the parser's message about an unknown flag or key."""
    unknown = _UNKNOWN.search(message)
    if unknown is None:
        return ""
    flag, key = unknown.groups()
    similar = similar_name(flag or key, names)
    if similar is None:
        return ""
    if flag:
        similar = flag_name(similar)
    return f"; did you mean {similar}?"
