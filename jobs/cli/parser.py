"""Parses a command line and a YAML file with the same keys into a frozen dataclass.

Each field made by `flag` is one flag: `max_tokens` is `--max-tokens` on the command line and
`max_tokens` in the file of `-C/--config`. Flags override the file; unknown flags and keys are
errors. The dataclass checks its values in `__post_init__`.
"""

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeVar, get_type_hints

import yaml
from jsonargparse import ArgumentParser, set_loader

from actors.protocol.parameters import ParameterKind, Texts
from actors.protocol.plain_text import bare, quoted
from jobs.cli.flag_checks import flag_name
from jobs.cli.help_topics import topics_of
from jobs.cli.repeated_flags import (
    check_repeated_keys,
    check_repeated_locations,
    job_files,
    name_hint,
    repeated_flags,
)
from pipeline.errors import ConfigError

Config = TypeVar("Config")

REPLACED_TAGS = (
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:timestamp",
)


def flag(default: Any, text: str, *, short: str | None = None, choices: Sequence[str] = ()) -> Any:
    """Returns a dataclass field that is also a flag.

    Args:
        default: its value if it is not set.
        text: its help, to which the default is added.
        short: a second name of one letter, e.g. `-i`.
        choices: the valid strings, for --help; the dataclass checks the value.
    """
    metadata = flag_metadata(text, short=short, choices=choices)
    return dataclasses.field(default=default, metadata=metadata)


def flag_metadata(
    text: str, *, short: str | None = None, choices: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the metadata that makes a dataclass field a flag.

    A field of type `dict[str, Any]` is a map in the file, and `--field.NAME VALUE` per name.
    """
    return {"help": text, "short": short, "choices": choices}


def parse(
    config_class: type[Config], arguments: Sequence[str], *, program: str, description: str
) -> Config:
    """Returns the configuration that `arguments` (without the program's name) describe.

    Raises:
        ConfigError: unknown flag or key, wrong type, unreadable file, or a rejected value.
        SystemExit: with code 0, after --help or --print-config.
    """
    _check_text(arguments)
    names = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    check_repeated_locations(_repeated_flags(config_class, arguments))
    for file in job_files(arguments):
        check_repeated_keys(file)

    parser = build_parser(config_class, program, description)
    try:
        values = parser.parse_args(list(arguments)).as_dict()
    except argparse.ArgumentError as error:
        message = _one_line(str(error))
        raise ConfigError(f"{message}{name_hint(message, names)}; see --help") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"--config: the file is not UTF-8 text (byte {error.object[error.start]:#04x} at "
            f"position {error.start}); convert it, e.g. with iconv -t UTF-8"
        ) from error

    return _build(config_class, values)


def read_values(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """Returns the configuration of values by field name, checked like those of a job file.

    Raises:
        ConfigError: unknown name, wrong type, or a rejected value.
    """
    names = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    plain_values = {name: _to_plain(value) for name, value in values.items()}
    parser = build_parser(config_class, "", "")
    try:
        parsed = parser.parse_object(plain_values).as_dict()
    except argparse.ArgumentError as error:
        message = _one_line(str(error))
        raise ConfigError(f"{message}{name_hint(message, names)}") from error
    return _build(config_class, parsed)


def _build(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """Returns the configuration of parsed values."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]  # a dataclass
        if field.name not in values:
            continue
        value = values[field.name]
        if isinstance(value, list):
            value = tuple(value)
        fields[field.name] = value
    return config_class(**fields)


def _to_plain(value: Any) -> Any:
    """Returns a value of Python as YAML would have it."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return value


def _repeated_flags(config_class: type[Any], arguments: Sequence[str]) -> dict[str, list[str]]:
    """Returns the values of flags that take one value and are given several different ones."""
    short_names: dict[str, str] = {}
    single: list[str] = []
    hints = get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if field.metadata.get("short"):
            short_names[field.metadata["short"]] = field.name
        if "action" not in _options(field, hints[field.name]):
            single.append(field.name)
    return repeated_flags(arguments, short_names, single)


def _check_text(arguments: Sequence[str]) -> None:
    """Raises ConfigError for bytes that are not UTF-8: Ray records the command line as text."""
    for word in arguments:
        if not word.isascii() and any("\udc80" <= character <= "\udcff" for character in word):
            raise ConfigError(
                f"the command line has bytes that are not UTF-8: {bare(word)}; rename "
                "the file or folder"
            )


def _resolvers_without_numbers() -> dict[str, list[Any]]:
    """Returns PyYAML's rules for plain words, by first character, without numbers and dates."""
    resolvers: dict[str, list[Any]] = {}
    for first_character, rules in yaml.SafeLoader.yaml_implicit_resolvers.items():
        resolvers[first_character] = [
            (tag, pattern) for tag, pattern in rules if tag not in REPLACED_TAGS
        ]
    return resolvers


class _PlainNumbers(yaml.SafeLoader):
    """YAML with decimal numbers only.

    YAML 1.1 reads `2:8` as 128, in base 60, `2026-01-01` as a date, and `1e-3` as text.
    """

    yaml_implicit_resolvers = _resolvers_without_numbers()


_PlainNumbers.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?\d+\Z"), list("-+0123456789")
)
_PlainNumbers.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?\Z|[-+]?\.inf\Z|\.nan\Z"),
    list("-+.0123456789"),
)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_PlainNumbers)


set_loader("plain_yaml", _load, exceptions=(yaml.YAMLError,))


class _Repeated(argparse.Action):
    """`--stop a --stop b` gives both; the first on the command line replaces the file's value."""

    seen = False

    def __call__(
        self, _parser: Any, namespace: Any, values: Any, _option: str | None = None
    ) -> None:
        previous: list[Any] = []
        if self.seen:
            previous = getattr(namespace, self.dest)
        self.seen = True
        setattr(namespace, self.dest, [*previous, *values])


class _Strings:
    """A string of the command line, or a string or list of the file."""

    def __call__(self, value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return list(value)
        raise ValueError(f"expected a string or a list of strings, got {quoted(value)}")

    def __repr__(self) -> str:  # what --help shows as the type
        return "str"


class _Items:
    """Items of a sampling parameter, as the command line or the file writes them."""

    def __init__(self, parameter_kind: ParameterKind) -> None:
        self._kind = parameter_kind

    def __call__(self, value: object) -> list[Any]:
        if value == []:
            return []  # the default
        try:
            items = self._kind.read(value)
        except ValueError as error:
            message = f"expected {self._kind.expected}, got {quoted(value)}"
            raise argparse.ArgumentTypeError(message) from error
        return [_to_list(item) for item in items]

    def __repr__(self) -> str:  # what --help shows as the type
        return self._kind.column


def _to_list(item: object) -> object:
    """Returns a tuple as a list, any other value unchanged."""
    if isinstance(item, tuple):
        return list(item)
    return item


class _Text:
    """A string, as it was typed.

    The parser's own `str` passes `--replicas 2:8` through YAML first. In a file, `replicas: 2` is
    valid too.
    """

    def __call__(self, value: object) -> str:
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        raise ValueError(f"expected a text, got {quoted(value)}")

    def __repr__(self) -> str:  # what --help shows as the type
        return "str"


def build_parser(config_class: type[Any], program: str, description: str) -> ArgumentParser:
    """Returns the parser of a configuration class: one flag per field, grouped by topic."""
    parser = ArgumentParser(
        prog=program,
        # The generated usage names every flag and fills a page.
        usage=f"{program} [-C FILE] [--flag VALUE …]",
        description=description,
        exit_on_error=False,
        print_config="--print-config",
        allow_abbrev=False,
        parser_mode="plain_yaml",
    )
    parser.add_argument(
        "-C",
        "--config",
        action="config",
        help="YAML file with these flags as keys, _ for -; flags override it",
    )
    hints = get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    topics = getattr(config_class, "HELP_TOPICS", {})
    for title, names in topics_of(topics, tuple(fields)).items():
        group = parser.add_argument_group(title)
        for name in names:
            field = fields[name]
            flags = [flag_name(name)]
            if field.metadata.get("short"):
                flags.insert(0, field.metadata["short"])
            options = _options(field, hints[name])
            group.add_argument(*flags, help=field.metadata["help"], **options)
    return parser


def _options(field: "dataclasses.Field[Any]", hint: Any) -> dict[str, Any]:
    """Returns the options of the parser's argument for a field."""
    value_kind = field.metadata.get("kind")
    if isinstance(value_kind, Texts) or hint == tuple[str, ...]:
        return {"action": _Repeated, "type": _Strings(), "default": []}
    if isinstance(value_kind, ParameterKind) and value_kind.has_items:
        return {"action": _Repeated, "type": _Items(value_kind), "default": []}

    has_default = field.default is not dataclasses.MISSING
    default: Any = {}  # of a map
    if has_default:
        default = field.default
    if hint is bool:  # --dry-run is --dry-run true
        return {"type": bool, "default": default, "nargs": "?", "const": True}
    if hint is str:
        options = {"type": _Text(), "default": default}
        if field.metadata.get("choices"):
            options["metavar"] = "{" + ",".join(field.metadata["choices"]) + "}"
        return options
    return {"type": hint, "default": default}


def _one_line(message: str) -> str:
    """Shortens the parser's report to: the flag, what was expected, and the value."""
    line = " ".join(message.split())
    # argparse puts all names of the flag first: "argument -i/--input: …"
    line = re.sub(r"^argument (?:-\w/)?(--[\w-]+): ", r"\1: ", line)
    match = re.match(r'Parser key "(\w+)": (.*)', line)
    if not match:
        return bare(line)

    name = flag_name(match[1])
    reason = match[2]
    union = re.search(r"Subtypes: \[(.*?)\] Errors: .*Given value: (.*)", reason)
    if union:
        types = [name for name in re.findall(r"'(\w+)'", union[1]) if name != "NoneType"]
        return f"{name}: expected {' or '.join(types)}, got {bare(union[2])}"
    reason = re.sub(r"<class '(\w+)'>", r"\1", reason).replace("typing.Literal", "one of ")
    return f"{name}: {bare(reason)}"
