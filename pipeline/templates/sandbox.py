"""Jinja sandbox in which templates and conditions run, with bounded work and sizes.

Text of the user is trusted, text of a row is not. The sandbox closes attributes and methods that
reach beyond values, values are immutable, and what an operator, filter or method makes is bounded
before it is made. Within `bounded_work`, so is the work of all iterations, calls and output.
Nothing in it is random: the same row gives the same result.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from pipeline.templates.work_limits import (
    MAX_CHARS,
    WorkBudget,
    check_filter,
    check_method,
    check_percent_format,
    check_size,
    nested_size,
)

MAX_REPEATED = 1_000_000  # characters or items that `*` may produce
MAX_EXPONENT = 64
# of the result of `**`: powers of powers are bounded, too
MAX_POWER_BITS = 64 * 64
RANDOM_FILTERS = ("random",)
RANDOM_GLOBALS = ("lipsum",)
ROW_ERRORS = (  # what values of another type or size than the text expects raise
    jinja2.TemplateError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    MemoryError,
)
# filters that a syntax tree gets when it is compiled
CONCAT_FILTER = "_concat"
_STEP = "_step"
_VALUES = "_values"


class Sandbox(ImmutableSandboxedEnvironment):
    """Environment without random filters, in which undefined values are errors."""

    intercepted_binops = frozenset({"+", "%", "*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, autoescape=False, **options)
        for name in RANDOM_FILTERS:
            del self.filters[name]
        for name in RANDOM_GLOBALS:
            del self.globals[name]

        self._budget: ContextVar[WorkBudget | None] = ContextVar("budget", default=None)
        self.concat = self._joined_output  # type: ignore[method-assign]
        self.filters["join"] = jinja2.pass_environment(_join)
        self.filters["sum"] = _sum_of_numbers(self.filters["sum"])
        for name, function in self.filters.items():
            self.filters[name] = self._bounded_filter(name, function)
        # of the syntax tree, see `_WorkCounting`; not constant, so that none is computed early
        self.filters[_STEP] = self._step
        self.filters[_VALUES] = self._values
        self.filters[CONCAT_FILTER] = self._concatenated

    @contextmanager
    def bounded_work(self) -> Iterator[None]:
        """Gives what is rendered within it the work of one row."""
        token = self._budget.set(WorkBudget())
        try:
            yield
        finally:
            self._budget.reset(token)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls a function or method.

        Raises:
            jinja2.TemplateRuntimeError: the result would be too large, or it is too much work.
        """
        method = getattr(__obj, "__wrapped__", __obj)  # jinja wraps the method `format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            if method.__name__ == "join" and isinstance(owner, str):
                [values] = args
                return _join(__self, values, owner)
            check_method(method.__name__, owner, args, kwargs)
        __self._spend(owner, *args, *kwargs.values())
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Applies an operator.

        Raises:
            jinja2.TemplateRuntimeError: the result would be too large.
        """
        if operator == "**":
            _check_power(left, right)
        if operator == "*":
            _check_repetition(left, right)
            _check_repetition(right, left)
        if operator == "+" and isinstance(left, str | bytes | list | tuple):
            check_size(len(left) + nested_size(right, MAX_CHARS))
        if operator == "%":
            check_percent_format(left)
        self._spend(left, right)
        return super().call_binop(context, operator, left, right)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compiles a syntax tree, with the calls that count work."""
        return super()._generate(_WorkCounting().visit(source), *args, **kwargs)

    def _spend(self, *values: object) -> None:
        budget = self._budget.get()
        if budget is not None:
            budget.spend(*values)

    def _bounded_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a filter that checks sizes and work before it does its own."""
        # jinja marks functions that take the context or the environment first
        value_index = int(hasattr(function, "jinja_pass_arg"))

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            check_filter(name, args[value_index], args[value_index + 1 :], kwargs)
            self._spend(*args[value_index:], *kwargs.values())
            return function(*args, **kwargs)

        return bounded

    @jinja2.pass_context
    def _step(self, _context: Any, _value: Any) -> None:
        self._spend()

    @jinja2.pass_context
    def _values(self, _context: Any, values: Any) -> Any:
        self._spend(values)
        return values

    @jinja2.pass_context
    def _concatenated(self, _context: Any, *values: Any) -> str:
        self._spend(*values)
        texts = list(map(str, values))
        check_size(sum(map(len, texts)))
        return "".join(texts)

    def _joined_output(self, parts: Iterable[str]) -> str:
        """Joins the output of a macro or block."""
        texts = list(parts)
        check_size(sum(map(len, texts)))
        self._spend(texts)
        return "".join(texts)


class _WorkCounting(NodeTransformer):
    """Adds calls to a syntax tree that count iterations, calls of macros, and joined text."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Counts the values of a loop and its iterations."""
        self.generic_visit(node)
        node.iter = _filter(_VALUES, node.iter, node.lineno)
        node.body.insert(0, _step(node.lineno))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        """Counts the calls of a macro."""
        self.generic_visit(node)
        node.body.insert(0, _step(node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Bounds the text of the operator `~`."""
        self.generic_visit(node)
        return _filter(CONCAT_FILTER, node.nodes[0], node.lineno, node.nodes[1:])


def _filter(
    name: str, value: nodes.Node, lineno: int, args: Iterable[nodes.Expr] = ()
) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=lineno)


def _step(lineno: int) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filter(_STEP, nodes.Const(None), lineno), lineno=lineno)


def _join(environment: jinja2.Environment, values: Any, d: Any = "", attribute: Any = None) -> str:
    """Joins texts, as the filter of Jinja does."""
    items = list(values)
    if attribute is not None:
        items = list(map(make_attrgetter(environment, attribute), items))
    check_size(nested_size(items, MAX_CHARS) + len(str(d)) * len(items))
    return str(d).join(map(str, items))


def _sum_of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the filter `sum` for numbers only: sums of lists take quadratic work."""

    @functools.wraps(function)
    def sum_of_numbers(environment: Any, values: Any, attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, int | float):
            raise TypeError(f"sum adds numbers, got {type(start).__name__}")
        return function(environment, values, attribute, start)

    return sum_of_numbers


def _check_power(base: Any, exponent: Any) -> None:
    if abs(exponent) > MAX_EXPONENT:
        raise jinja2.TemplateRuntimeError(
            f"** takes exponents up to {MAX_EXPONENT}, got {exponent}"
        )

    integers = isinstance(base, int) and isinstance(exponent, int)
    if integers and base.bit_length() * exponent > MAX_POWER_BITS:
        raise jinja2.TemplateRuntimeError(f"** gives integers of at most {MAX_POWER_BITS} bits")


def _check_repetition(value: Any, count: Any) -> None:
    is_repetition = isinstance(value, str | bytes | list | tuple) and isinstance(count, int)
    if is_repetition and len(value) * count > MAX_REPEATED:
        raise jinja2.TemplateRuntimeError(f"* gives at most {MAX_REPEATED:,} characters or items")
