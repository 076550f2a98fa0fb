"""Jinja templates over the columns of a seed row, rendered into prompts.

The template is trusted, the row is not: text of a row is never read as a template, and the sandbox
bounds what it can do. The same row gives the same prompt.

    {{ column }}          a column of the row; a null or undefined value rejects the row
    row["my column"]      the same for any name
    shots                 the row's worked examples: {% for shot in shots %}…{% endfor %}
"""

import difflib
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import jinja2
from jinja2 import meta

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError
from pipeline.synthesis.rejections import Rejection, shortened
from pipeline.synthesis.sandbox import ROW_ERRORS, Sandbox
from pipeline.synthesis.work_limits import MAX_CHARS, check_size, nested_size

ROW = "row"
SHOTS = "shots"
# far beyond any context; a template that repeats text of a row must not fill the memory
MAX_PROMPT_CHARS = MAX_CHARS
Row = Mapping[str, object]


class _NullValueError(jinja2.TemplateRuntimeError):
    """The value of a printed expression is null."""


def _check_printed(value: object) -> object:
    if value is None:
        raise _NullValueError(
            "the value of an expression is null; give it one with {{ column or '…' }}, or leave "
            "the row out"
        )
    if not isinstance(value, str):  # of a long text the rendering stops by itself
        check_size(nested_size(value, MAX_CHARS))
    return value


# Lines with only a {% block %} are removed, as in chat templates.
_SANDBOX = Sandbox(trim_blocks=True, lstrip_blocks=True, finalize=_check_printed)


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """A template as the user writes it.

    Raises:
        ConfigError: the weight is not a number above 0.
    """

    name: str
    text: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(
                f"--templates: {self.name}: weight: expected a number above 0, got "
                f"{quoted(self.weight)}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class PromptTemplate:
    """A compiled template."""

    def __init__(self, spec: TemplateSpec) -> None:
        """Compiles the template.

        Raises:
            ConfigError: the template has a syntax error (with its line), or refers to other files.
        """
        self.spec = spec
        try:
            parsed = _SANDBOX.parse(spec.text)
            self._template = _SANDBOX.from_string(spec.text)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ConfigError(_syntax_message(spec, error)) from error

        self.names = frozenset(meta.find_undeclared_variables(parsed))
        if list(meta.find_referenced_templates(parsed)):
            raise ConfigError(
                f"--templates: {spec.name}: include, import and extends are not available; write "
                "the text itself"
            )

    def check(self, columns: Collection[str], *, shots: bool) -> None:
        """Checks that every name of the template has a value.

        Args:
            columns: columns of the seeds.
            shots: whether there are worked examples.

        Raises:
            ConfigError: an unknown column, or `shots` without --shots.
        """
        if SHOTS in self.names and not shots and SHOTS not in columns:
            raise ConfigError(
                f"--templates: {self.spec.name}: it uses 'shots', but --shots is not given"
            )

        for name in sorted(self.names - {ROW, SHOTS} - set(columns)):
            similar = difflib.get_close_matches(name, columns, n=1)
            hint = ""
            if similar:
                hint = f" (did you mean {quoted(similar[0])}?)"
            raise ConfigError(
                f"--templates: {self.spec.name}: the seeds have no column {quoted(name)}{hint}; "
                f"they have {', '.join(sorted(columns))}"
            )

    def render(self, row: Row, shots: Sequence[Row]) -> str | Rejection:
        """Returns the prompt of a row, or the reason why it has none."""
        try:
            prompt = self._generate(row, shots)
        except _NullValueError as error:
            return Rejection("template", "null_value", self._null_columns(row) or str(error))
        except jinja2.UndefinedError as error:
            return Rejection("template", "undefined_value", shortened(error))
        except UnicodeEncodeError as error:
            return Rejection(
                "template", "invalid_text", f"a lone surrogate at character {error.start}"
            )
        except ROW_ERRORS as error:
            return Rejection(
                "template", "template_error", shortened(f"{type(error).__name__}: {error}")
            )

        if prompt is None:
            return Rejection(
                "template", "prompt_too_long", f"more than {MAX_PROMPT_CHARS:,} characters"
            )
        if not prompt.strip():
            return Rejection(
                "template", "empty_prompt", "the template gave nothing but white space"
            )
        return prompt

    def _generate(self, row: Row, shots: Sequence[Row]) -> str | None:
        """Returns the text of a row, or None when it is longer than `MAX_PROMPT_CHARS`."""
        parts: list[str] = []
        length = 0
        with _SANDBOX.bounded_work():
            for part in self._template.generate({**row, ROW: row, SHOTS: shots}):
                parts.append(part)
                length += len(part)
                if length > MAX_PROMPT_CHARS:
                    return None

        prompt = "".join(parts)
        prompt.encode()  # raises for a lone surrogate
        return prompt

    def _null_columns(self, row: Row) -> str | None:
        """Returns the names of the columns that are null and used, as a message."""
        nulls = sorted(name for name in self.names if name in row and row[name] is None)
        if not nulls:
            return None
        return f"null, of the columns that it uses: {', '.join(nulls)}"


def _syntax_message(spec: TemplateSpec, error: Exception) -> str:
    line = getattr(error, "lineno", None)
    place = "it"
    source = ""
    if line:
        place = f"line {line}"
        lines = spec.text.splitlines()
        source = lines[line - 1].strip() if line <= len(lines) else ""
    reason = str(error) or "nested too deeply"
    return f"--templates: {spec.name}: {place}: {reason}; in {quoted(source)}"
