"""A Jinja template over the columns of a row, rendered into a text.

The template is trusted, the row is not: text of a row is never read as a template, and the sandbox
bounds what it can do. The same row gives the same text.

    {{ column }}          a column of the row; a null or undefined value is an error of the row
    row["my column"]      the same for any name
"""

from collections.abc import Collection, Iterator, Mapping

import jinja2
from jinja2 import meta, nodes

from actors.protocol.plain_text import VALUE_CHARS, bare, quoted
from actors.protocol.similar_names import suggestion
from pipeline.errors import ConfigError
from pipeline.templates.sandbox import ROW_ERRORS, Sandbox
from pipeline.templates.work_limits import MAX_CHARS, check_size, nested_size

ROW = "row"
# far beyond any context; a template that repeats text of a row must not fill the memory
MAX_TEXT_CHARS = MAX_CHARS
Row = Mapping[str, object]


class RowTemplateError(Exception):
    """A row cannot be rendered.

    Attributes:
        reason: one of few, so that reasons can be counted.
        detail: one bounded line.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


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


class RowTemplate:
    """A compiled template.

    Attributes:
        text: the source.
        names: all names that it takes from its context, `row` among them.
        row_columns: columns that it takes as `row["column"]` or `row.column`.
    """

    def __init__(self, text: str, label: str) -> None:
        """Compiles the template.

        Args:
            text: the source.
            label: what messages begin with, such as the flag that gives the template.

        Raises:
            ConfigError: the template has a syntax error (with its line), or refers to other files.
        """
        self.text = text
        self._label = label
        try:
            parsed = _SANDBOX.parse(text)
            self._template = _SANDBOX.from_string(text)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ConfigError(self._syntax_message(error)) from error

        self.names = frozenset(meta.find_undeclared_variables(parsed))
        self.row_columns = frozenset(_row_columns(parsed))
        if list(meta.find_referenced_templates(parsed)):
            raise ConfigError(
                f"{label}: include, import and extends are not available; write the text itself"
            )

    def check_names(self, names: Collection[str], columns: Collection[str], table: str) -> None:
        """Checks that `names` are columns.

        Args:
            names: that the template uses as columns.
            columns: of the rows.
            table: what has the columns, a plural such as "the seeds".

        Raises:
            ConfigError: a name is no column.
        """
        for name in sorted(set(names) - set(columns)):
            raise ConfigError(
                f"{self._label}: {table} have no column {quoted(name)}"
                f"{suggestion(name, sorted(columns))}"
            )

    def render(self, row: Row, variables: Row) -> str:
        """Returns the text of a row.

        Args:
            row: values by column.
            variables: further names of the context.

        Raises:
            RowTemplateError: the row has no text: a null or undefined value, an error of an
                expression, too many characters, or nothing but white space.
        """
        try:
            text = self._generate({**row, ROW: row, **variables})
        except _NullValueError as error:
            detail = self._null_columns(row) or str(error)
            raise RowTemplateError("null_value", detail) from error
        except jinja2.UndefinedError as error:
            raise RowTemplateError("undefined_value", bare(error, VALUE_CHARS)) from error
        except UnicodeEncodeError as error:
            detail = f"a lone surrogate at character {error.start}"
            raise RowTemplateError("invalid_text", detail) from error
        except ROW_ERRORS as error:
            detail = bare(f"{type(error).__name__}: {error}", VALUE_CHARS)
            raise RowTemplateError("template_error", detail) from error

        if text is None:
            raise RowTemplateError("prompt_too_long", f"more than {MAX_TEXT_CHARS:,} characters")
        if not text.strip():
            raise RowTemplateError("empty_prompt", "the template gave nothing but white space")
        return text

    def _generate(self, context: Row) -> str | None:
        """Returns the text, or None when it is longer than `MAX_TEXT_CHARS`."""
        parts: list[str] = []
        length = 0
        with _SANDBOX.bounded_work():
            for part in self._template.generate(context):
                parts.append(part)
                length += len(part)
                if length > MAX_TEXT_CHARS:
                    return None

        text = "".join(parts)
        text.encode()  # raises for a lone surrogate
        return text

    def _null_columns(self, row: Row) -> str | None:
        """Returns the names of the columns that are null and used, as a message."""
        used = self.names | self.row_columns
        nulls = sorted(name for name in used if name in row and row[name] is None)
        if not nulls:
            return None
        return f"null, of the columns that it uses: {', '.join(nulls)}"

    def _syntax_message(self, error: Exception) -> str:
        line = getattr(error, "lineno", None)
        place = "it"
        source = ""
        if line:
            place = f"line {line}"
            lines = self.text.splitlines()
            source = lines[line - 1].strip() if line <= len(lines) else ""
        reason = str(error) or "nested too deeply"
        return f"{self._label}: {place}: {reason}; in {quoted(source)}"


def _row_columns(parsed: nodes.Template) -> Iterator[str]:
    """Yields the columns that a template takes from the variable `row`; methods are no columns."""
    for item in parsed.find_all(nodes.Getitem):
        name = item.arg.value if isinstance(item.arg, nodes.Const) else None
        if _is_row(item.node) and isinstance(name, str):
            yield name
    called = [call.node for call in parsed.find_all(nodes.Call)]
    for attribute in parsed.find_all(nodes.Getattr):
        if _is_row(attribute.node) and attribute not in called:
            yield attribute.attr


def _is_row(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Name) and node.name == ROW
