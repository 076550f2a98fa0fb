"""A Jinja template and the columns of a seed row → a prompt, or the reason why there is none.

It knows no files and no models.

The template is its user's and trusted; the data is not. Text of a row is never read as a template;
attributes and methods that reach beyond values are closed by Jinja's sandbox, values cannot be
changed, and what data could blow up (`*`, `**`, `range`, the length of the prompt) is bounded.
Nothing in a template is random: the same row gives the same prompt.

    {{ column }}          a column of the row; one that is null here, or missing in a nested value, rejects the row
    row["my column"]      the same for any name
    shots                 the row's worked examples: {% for shot in shots %}{{ shot.question }} {{ shot.answer }}{% endfor %}
"""

import difflib
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.rejections import Rejection, shortened

ROW, SHOTS = "row", "shots"
# far beyond any context; an expression that repeats a row's text must not fill the memory
MAX_PROMPT_CHARS = 4_000_000
MAX_REPEATED = 1_000_000  # characters or items that `*` may make
MAX_EXPONENT = 64
RANDOM_FILTERS, RANDOM_GLOBALS = ("random",), ("lipsum",)
ROW_ERRORS = (  # what an expression over values of the wrong kind may raise
    jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError,
)  # fmt: skip
Row = Mapping[str, object]


class _NullValueError(jinja2.TemplateRuntimeError):
    """An expression whose value would be printed is null."""


def _printed(value: object) -> object:
    if value is None:
        raise _NullValueError(
            "the value of an expression is null; give it one with {{ column or '…' }}, or leave the row out"
        )
    return value


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and abs(right) > MAX_EXPONENT:
            raise jinja2.TemplateRuntimeError(
                f"** takes exponents up to {MAX_EXPONENT}, got {right}"
            )
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if (
                    isinstance(value, str | bytes | list | tuple)
                    and isinstance(times, int)
                    and len(value) * times > MAX_REPEATED
                ):
                    raise jinja2.TemplateRuntimeError(
                        f"* makes at most {MAX_REPEATED:,} characters or items"
                    )
        return super().call_binop(context, operator, left, right)


def _environment() -> _Sandbox:
    # Lines that hold nothing but a {% block %} leave no trace, as in chat templates.
    made = _Sandbox(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        finalize=_printed,
    )
    for name in RANDOM_FILTERS:
        del made.filters[name]
    for name in RANDOM_GLOBALS:
        del made.globals[name]
    return made


_ENVIRONMENT = _environment()


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """A template as its user gave it."""

    name: str
    text: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(
                f"--templates: {self.name}: weight: expected a number above 0, got {self.weight!r}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class PromptTemplate:
    """A template, ready to render."""

    def __init__(self, spec: TemplateSpec) -> None:
        """Compiles the template.

        Raises:
            ConfigError: it has a syntax error, or asks for other files; with the line.
        """
        self.spec = spec
        try:
            parsed = _ENVIRONMENT.parse(spec.text)
            self._template = _ENVIRONMENT.from_string(spec.text)
        except (jinja2.TemplateError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            where = f"line {line}" if line else "it"
            shown = (
                spec.text.splitlines()[line - 1].strip()
                if line and line <= len(spec.text.splitlines())
                else ""
            )
            raise ConfigError(
                f"--templates: {spec.name}: {where}: {str(error) or 'nested too deeply'}; in "
                f"{shown!r}"
            ) from error
        self.names = frozenset(meta.find_undeclared_variables(parsed))
        if list(meta.find_referenced_templates(parsed)):
            raise ConfigError(
                f"--templates: {spec.name}: include, import and extends are not available; write "
                "the text itself"
            )

    def check(self, columns: Collection[str], *, shots: bool) -> None:
        """Checks that everything the template looks up is there.

        Raises:
            ConfigError: it names an unknown column, or `shots` where no --shots are given.
        """
        if SHOTS in self.names and not shots and SHOTS not in columns:
            raise ConfigError(
                f"--templates: {self.spec.name}: it uses 'shots', but --shots is not given"
            )
        for name in sorted(self.names - {ROW, SHOTS} - set(columns)):
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(
                f"--templates: {self.spec.name}: the seeds have no column {name!r}{hint}; they "
                f"have {', '.join(sorted(columns))}"
            )

    def render(self, row: Row, shots: Sequence[Row]) -> str | Rejection:
        """Returns the prompt, or why there is none. The same arguments give the same."""
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate({**row, ROW: row, SHOTS: shots}):
                parts.append(part)
                length += len(part)
                if length > MAX_PROMPT_CHARS:
                    return Rejection(
                        "template", "prompt_too_long", f"more than {MAX_PROMPT_CHARS:,} characters"
                    )
            prompt = "".join(parts)
            prompt.encode()
        except UnicodeEncodeError as error:
            return Rejection(
                "template", "invalid_text", f"a lone surrogate at character {error.start}"
            )
        except _NullValueError as error:
            nulls = sorted(name for name in self.names if name in row and row[name] is None)
            return Rejection(
                "template",
                "null_value",
                f"null, of the columns that it uses: {', '.join(nulls)}" if nulls else str(error),
            )
        except jinja2.UndefinedError as error:
            return Rejection("template", "undefined_value", shortened(error))
        except ROW_ERRORS as error:
            return Rejection(
                "template", "template_error", shortened(f"{type(error).__name__}: {error}")
            )
        return (
            prompt
            if prompt.strip()
            else Rejection("template", "empty_prompt", "the template gave nothing but white space")
        )
