"""Conditions over the columns of a sample, as Jinja expressions.

The language is Jinja's, in the sandbox of the templates, with a strict reading: conditions are true
or false and nothing else, arithmetic takes numbers, and a value that does not fit raises instead of
deciding. Attributes of Python cannot be reached: `value.key` is `value["key"]`, and only the
functions and filters below can be called. Work is bounded by the length of the expression and of
the values.
"""

# ruff: noqa: N802 (jinja2 calls visit_<class of the node>)

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.environment import TemplateExpression
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from actors.protocol.plain_text import quoted
from actors.protocol.similar_names import suggestion
from pipeline.errors import ConfigError
from pipeline.templates.sandbox import CONCAT_FILTER, ROW_ERRORS, Sandbox

Values = Mapping[str, Any]
MAX_CHARS = 2000
MAX_PLACES = 20
# what values of another type than the expression expects raise
ERRORS = ROW_ERRORS
FILTERS = (
    "abs",
    "count",
    "default",
    "first",
    "float",
    "int",
    "last",
    "length",
    "list",
    "lower",
    "max",
    "min",
    "sort",
    "string",
    "sum",
    "trim",
    "unique",
    "upper",
    "wordcount",
)
_ROW = "row"  # the variable that holds the values
_TRUTH = "_truth"  # the filter around operands of and, or, not and if


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    return value


def _count(text: str, part: str) -> int:
    return _string(text).count(_string(part))


def _ends_with(text: str, part: str) -> bool:
    return _string(text).endswith(_string(part))


def _lines(text: str) -> int:
    return len(_string(text).splitlines())


def _lower(text: str) -> str:
    return _string(text).lower()


def _round(value: float, places: int = 0) -> float:
    if abs(places) > MAX_PLACES:
        raise ValueError(f"round takes up to {MAX_PLACES} places, got {places}")
    if places == 0:
        return round(value)
    return round(value, places)


def _starts_with(text: str, part: str) -> bool:
    return _string(text).startswith(_string(part))


def _strip(text: str) -> str:
    return _string(text).strip()


def _upper(text: str) -> str:
    return _string(text).upper()


def _words(text: str) -> int:
    return len(_string(text).split())


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "count": _count,
    "endswith": _ends_with,
    "float": float,
    "int": int,
    "len": len,
    "lines": _lines,
    "lower": _lower,
    "max": max,
    "min": min,
    "round": _round,
    "startswith": _starts_with,
    "str": str,
    "strip": _strip,
    "sum": sum,
    "upper": _upper,
    "words": _words,
}
_LANGUAGE = (
    nodes.Const,
    nodes.Name,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.BinExpr,
    nodes.UnaryExpr,
    nodes.Concat,
    nodes.List,
    nodes.Tuple,
    nodes.Getitem,
    nodes.Getattr,
    nodes.Slice,
    nodes.Test,
    nodes.Filter,
    nodes.Call,
)


class _ConditionSandbox(Sandbox):
    """Sandbox in which arithmetic takes numbers and subscripts reach values only."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    intercepted_unops = frozenset({"+", "-"})

    def __init__(self) -> None:
        super().__init__()
        self.globals = dict(FUNCTIONS)
        self.filters = {name: self.filters[name] for name in (*FILTERS, CONCAT_FILTER)}
        self.filters[_TRUTH] = _truth
        self.tests |= {"none": _is_none, "None": _is_none}
        self.tests |= {"True": self.tests["true"], "False": self.tests["false"]}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Applies an operator to two numbers; `+` also joins two strings."""
        joins_strings = operator == "+" and isinstance(left, str) and isinstance(right, str)
        if not joins_strings:
            _check_number(left)
            _check_number(right)
        return super().call_binop(context, operator, left, right)

    def call_unop(self, context: Any, operator: str, arg: Any) -> Any:
        """Applies a sign to a number."""
        _check_number(arg)
        return super().call_unop(context, operator, arg)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Returns an item of a value; an undefined value if there is none."""
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)


class _Translation(NodeTransformer):
    """Checks a syntax tree, reads names as columns and makes truth values strict."""

    def __init__(self, columns: Collection[str]) -> None:
        self.names: set[str] = set()
        self._columns = columns

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if not isinstance(node, _LANGUAGE):
            raise _UnsupportedError(f"{_title(node)} is not supported")
        return super().generic_visit(node, *args, **kwargs)

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        if node.name not in self._columns:
            end = suggestion(node.name, sorted(self._columns))
            raise _UnsupportedError(f"no column {quoted(node.name)}{end}")

        self.names.add(node.name)
        row = nodes.Name(_ROW, "load", lineno=node.lineno)
        column = nodes.Const(node.name, lineno=node.lineno)
        return nodes.Getitem(row, column, "load", lineno=node.lineno)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        key = nodes.Const(node.attr, lineno=node.lineno)
        return self.generic_visit(nodes.Getitem(node.node, key, "load", lineno=node.lineno))

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        is_function = isinstance(node.node, nodes.Name) and node.node.name in FUNCTIONS
        if not is_function:
            raise _UnsupportedError(f"only these can be called: {', '.join(FUNCTIONS)}")
        if node.kwargs or node.dyn_args or node.dyn_kwargs:
            raise _UnsupportedError("arguments of functions are given by position")

        arguments = list(map(self.visit, node.args))
        return nodes.Call(node.node, arguments, [], None, None, lineno=node.lineno)

    def visit_And(self, node: nodes.And) -> nodes.Node:
        return nodes.And(self._truth(node.left), self._truth(node.right), lineno=node.lineno)

    def visit_Or(self, node: nodes.Or) -> nodes.Node:
        return nodes.Or(self._truth(node.left), self._truth(node.right), lineno=node.lineno)

    def visit_Not(self, node: nodes.Not) -> nodes.Node:
        return nodes.Not(self._truth(node.node), lineno=node.lineno)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        if node.expr2 is None:
            raise _UnsupportedError("if needs else")
        return nodes.CondExpr(
            self._truth(node.test),
            self.visit(node.expr1),
            self.visit(node.expr2),
            lineno=node.lineno,
        )

    def _truth(self, node: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(self.visit(node), _TRUTH, [], [], None, None, lineno=node.lineno)


class _UnsupportedError(ValueError):
    """A part of an expression is not in the language of conditions."""


class Expression:
    """A condition on a sample."""

    def __init__(self, source: str, columns: Collection[str], flag: str = "--where") -> None:
        """Compiles the expression.

        Args:
            source: text of the expression.
            columns: names that it may use.
            flag: name of the flag in messages.

        Raises:
            ConfigError: the text is not an expression, or names an unknown column.
        """
        if len(source) > MAX_CHARS:
            raise ConfigError(f"{flag}: expected at most {MAX_CHARS} characters, got {len(source)}")

        self.source = source
        translation = _Translation(columns)
        try:
            self._evaluate = _compiled(source, translation)
        except (jinja2.TemplateSyntaxError, _UnsupportedError, SyntaxError) as error:
            raise ConfigError(f"{flag}: {quoted(source)}: {error}") from error
        # nested too deeply
        except (RecursionError, MemoryError) as error:
            raise ConfigError(
                f"{flag}: {quoted(source)}: the expression is nested too deeply"
            ) from error
        self.names = frozenset(translation.names)  # columns that the expression reads

    def __call__(self, values: Values) -> bool:
        """Returns whether the condition holds.

        Raises one of ERRORS: a value does not fit, or the result is not a truth value.
        """
        result = self._evaluate(row=values)
        _check_defined(result)
        if not isinstance(result, bool):
            raise TypeError(f"expected true or false, got {quoted(result)}")
        return result


def _compiled(source: str, translation: _Translation) -> TemplateExpression:
    """Returns an expression as `Environment.compile_expression` does, translated on the way."""
    environment = _ConditionSandbox()
    with warnings.catch_warnings():  # of escapes such as "\\d", which stand for themselves
        warnings.simplefilter("ignore")
        parser = Parser(environment, source, state="variable")
        expression = parser.parse_expression()
    if not parser.stream.eos:
        raise _UnsupportedError(
            f"unexpected {quoted(parser.stream.current.value)} after the expression"
        )

    translated = translation.visit(expression)
    translated.set_environment(environment)
    result = nodes.Name("result", "store", lineno=1)
    body: list[nodes.Node] = [nodes.Assign(result, translated, lineno=1)]
    template = environment.from_string(nodes.Template(body, lineno=1))
    return TemplateExpression(template, undefined_to_none=False)


def _title(node: nodes.Node) -> str:
    return type(node).__name__.lower()


def _check_defined(value: Any) -> None:
    if isinstance(value, jinja2.Undefined):
        bool(value)  # raises with the name of the missing item


def _check_number(value: Any) -> None:
    _check_defined(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"arithmetic takes numbers, got {type(value).__name__}")


def _is_none(value: Any) -> bool:
    _check_defined(value)
    return value is None


def _truth(value: Any) -> bool:
    _check_defined(value)
    if not isinstance(value, bool):
        raise TypeError(f"and, or, not and if take true or false, got {quoted(value)}")
    return value
