"""A frozen dataclass → a command line and a YAML file with the same keys → an instance of it.

Each field made by `flag` is one flag: `max_tokens` is `--max-tokens` on the command line and
`max_tokens` in the file of `-C/--config`. Flags override the file; unknown flags and keys are
errors. Knows nothing of what the values mean: the dataclass checks them itself in `__post_init__`.
"""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import Any, TypeVar, get_type_hints

import yaml
from jsonargparse import ArgumentParser, set_loader

from pipeline.errors import ConfigError

Config = TypeVar("Config")


def flag(default: Any, text: str, *, short: str | None = None) -> Any:
    """Returns a dataclass field that is also a flag.

    `text` is its help, to which the default is added.
    """
    return dataclasses.field(default=default, metadata=flag_metadata(text, short=short))


def flag_metadata(text: str, *, short: str | None = None) -> dict[str, str | None]:
    """Returns what makes a field a flag, for `dict[str, Any]`: a map in the file, and one flag per name, `--field.NAME VALUE`."""
    return {"help": text, "short": short}


def parse(
    kind: type[Config], arguments: Sequence[str], *, program: str, description: str
) -> Config:
    """Returns the configuration that `arguments` (without the program's name) describe.

    Raises:
        ConfigError: unknown flag or key, wrong type, unreadable file, or values that `kind` refuses.
        SystemExit: with code 0, after --help or --print-config.
    """
    parser = _parser(kind, program, description)
    try:
        values = parser.parse_args(list(arguments)).as_dict()
    except argparse.ArgumentError as error:
        raise ConfigError(f"{_one_line(str(error))}; see --help") from error
    # Config is a dataclass
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in names
        }
    )


class _PlainNumbers(yaml.SafeLoader):
    """YAML with decimal numbers only: YAML 1.1 reads `2:8` as 128, in base 60, dates as dates, and `1e-3` as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's way to configure a loader
        first: [
            (tag, form)
            for tag, form in known
            if tag.rsplit(":", 1)[-1] not in ("int", "float", "timestamp")
        ]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


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
    """`--stop a --stop b` gives both; the first on the command line replaces what the file says."""

    given = False

    def __call__(
        self, _parser: Any, namespace: Any, values: Any, _option: str | None = None
    ) -> None:
        before = getattr(namespace, self.dest) if self.given else []
        self.given = True
        setattr(namespace, self.dest, [*before, *values])


class _Strings:
    """A string of the command line, or a string or list of the file."""

    def __call__(self, value: object) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
            return list(value)
        raise ValueError(f"expected a string or a list of strings, got {value!r}")

    def __repr__(self) -> str:  # what --help shows as the type
        return "str"


class _Text:
    """Text as it was typed: the parser's own `str` would hand `--replicas 2:8` to YAML first.

    A file may say `replicas: 2`.
    """

    def __call__(self, value: object) -> str:
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        raise ValueError(f"expected a text, got {value!r}")

    def __repr__(self) -> str:  # what --help shows as the type
        return "str"


def _parser(kind: type[Any], program: str, description: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=program,
        # all of them by name would take a page before the first help
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
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        names = [f"--{field.name.replace('_', '-')}"]
        if field.metadata.get("short"):
            names.insert(0, field.metadata["short"])
        text = field.metadata["help"]
        if hints[field.name] == tuple[str, ...]:
            parser.add_argument(*names, action=_Repeated, type=_Strings(), default=[], help=text)
        else:
            hint = hints[field.name]
            # --dry-run is --dry-run true
            bare: dict[str, Any] = {"nargs": "?", "const": True} if hint is bool else {}
            default = {} if field.default is dataclasses.MISSING else field.default  # of a map
            parser.add_argument(
                *names, type=_Text() if hint is str else hint, default=default, help=text, **bare
            )
    return parser


def _one_line(message: str) -> str:
    """Shortens the parser's report: what flag, what was expected, what was given."""
    flat = " ".join(message.split())
    found = re.match(r'Parser key "(\w+)": (.*)', flat)
    if not found:
        return flat
    name, rest = f"--{found[1].replace('_', '-')}", found[2]
    union = re.search(r"Subtypes: \[(.*?)\] Errors: .*Given value: (.*)", rest)
    if union:
        kinds = [each for each in re.findall(r"'(\w+)'", union[1]) if each != "NoneType"]
        return f"{name}: expected {' or '.join(kinds)}, got {union[2]}"
    rest = re.sub(r"<class '(\w+)'>", r"\1", rest).replace("typing.Literal", "one of ")
    return f"{name}: {rest}"
