"""An expression of the user's, in Python's syntax, over the columns of a sample → true or false.

Nothing is ever executed.

The text is parsed, and of its syntax tree only what is listed here is understood: literals, names
of columns, arithmetic on numbers, comparisons, `in`, `is None`, `and or not`, `a if b else c`,
subscripts, and calls of the functions below. There are no attributes, no loops and no names but
columns. Work is bounded by the length of the expression and of the values.
"""

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from pipeline.errors import ConfigError

Values = Mapping[str, Any]
Step = Callable[[Values], Any]
MAX_CHARS, MAX_PLACES = 2000, 20
# what values of the wrong kind raise
ERRORS = (ArithmeticError, LookupError, TypeError, ValueError)


def _words(text: str) -> int:
    return len(_string(text).split())


def _lines(text: str) -> int:
    return len(_string(text).splitlines())


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {type(value).__name__}")
    return value


def _round(value: float, places: int = 0) -> float:
    if abs(places) > MAX_PLACES:
        raise ValueError(f"round takes up to {MAX_PLACES} places, got {places}")
    return round(value, places) if places else round(value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "count": lambda text, part: _string(text).count(_string(part)),
    "endswith": lambda text, part: _string(text).endswith(_string(part)),
    "float": float,
    "int": int,
    "len": len,
    "lines": _lines,
    "lower": lambda text: _string(text).lower(),
    "max": max,
    "min": min,
    "round": _round,
    "startswith": lambda text, part: _string(text).startswith(_string(part)),
    "str": str,
    "strip": lambda text: _string(text).strip(),
    "sum": sum,
    "upper": lambda text: _string(text).upper(),
    "words": _words,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda item, items: item in items, ast.NotIn: lambda item, items: item not in items,
    ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


class Expression:
    """A condition on a sample."""

    def __init__(self, source: str, columns: Collection[str], flag: str = "--where") -> None:
        """Parses the expression; it may name `columns`.

        Raises:
            ConfigError: it is no expression, or uses what is not understood; tells where.
        """
        self.source, self._flag, self._columns = source, flag, columns
        self.names: set[str] = set()  # columns that it looks at
        if len(source) > MAX_CHARS:
            raise ConfigError(f"{flag}: expected at most {MAX_CHARS} characters, got {len(source)}")
        try:
            with warnings.catch_warnings():  # of escapes such as "\\d": the text says what it says
                warnings.simplefilter("ignore")
                tree = ast.parse(source.strip(), mode="eval")
            self._step = self._understood(tree.body)
        except SyntaxError as error:
            raise ConfigError(
                f"{flag}: {source!r}: position {error.offset}: {error.msg}"
            ) from error
        # nested too deeply, or a null character
        except (RecursionError, MemoryError, ValueError) as error:
            raise ConfigError(
                f"{flag}: {source!r}: it cannot be parsed ({type(error).__name__})"
            ) from error

    def __call__(self, values: Values) -> bool:
        """Returns whether the condition holds.

        Raises one of ERRORS: values do not fit, or the result is no truth value.
        """
        result = self._step(values)
        if not isinstance(result, bool):
            raise TypeError(f"expected true or false, got {result!r:.50}")
        return result

    def _understood(self, node: ast.expr) -> Step:
        """Returns what evaluates a node, if it is of a kind that is understood."""
        read = self._KINDS.get(type(node))
        step = read(self, node) if read is not None else None
        if step is not None:
            return step
        raise ConfigError(
            f"{self._flag}: {self.source!r}: position {node.col_offset + 1}: {ast.unparse(node)!r} "
            "is not understood; there are "
            "columns, numbers, texts, comparisons, in, and, or, not, + - * / // %, a if b else c, "
            f"and {', '.join(FUNCTIONS)}"
        )

    def _constant(self, node: ast.Constant) -> Step | None:
        value = node.value
        return (
            (lambda _: value)
            if value is None or isinstance(value, bool | int | float | str)
            else None
        )

    def _boolean(self, node: ast.BoolOp) -> Step:
        steps = [self._understood(part) for part in node.values]
        decide = all if isinstance(node.op, ast.And) else any
        return lambda values: decide(_truth(step(values)) for step in steps)

    def _unary(self, node: ast.UnaryOp) -> Step | None:
        if type(node.op) not in _SIGNS:
            return None
        apply, inner, checked = _SIGNS[type(node.op)], self._understood(node.operand), _number
        if isinstance(node.op, ast.Not):
            checked = _truth
        return lambda values: apply(checked(inner(values)))

    def _arithmetic(self, node: ast.BinOp) -> Step | None:
        """Numbers only, but for `+`, which also joins two texts: no value can be repeated or formatted."""
        if type(node.op) not in _ARITHMETIC:
            return None
        apply, left, right = (
            _ARITHMETIC[type(node.op)],
            self._understood(node.left),
            self._understood(node.right),
        )
        joins = isinstance(node.op, ast.Add)

        def step(values: Values) -> Any:
            one, other = left(values), right(values)
            if joins and isinstance(one, str) and isinstance(other, str):
                return one + other
            return apply(_number(one), _number(other))

        return step

    def _comparison(self, node: ast.Compare) -> Step | None:
        if any(type(op) not in _COMPARISONS for op in node.ops):
            return None
        checks = [_COMPARISONS[type(op)] for op in node.ops]
        return _chained(checks, [self._understood(each) for each in (node.left, *node.comparators)])

    def _conditional(self, node: ast.IfExp) -> Step:
        when, then, otherwise = (
            self._understood(each) for each in (node.test, node.body, node.orelse)
        )
        return lambda values: then(values) if _truth(when(values)) else otherwise(values)

    def _items(self, node: ast.List | ast.Tuple) -> Step:
        steps = [self._understood(item) for item in node.elts]
        return lambda values: [step(values) for step in steps]

    def _subscript(self, node: ast.Subscript) -> Step:
        whole, at = self._understood(node.value), self._understood(node.slice)
        return lambda values: whole(values)[at(values)]

    def _call(self, node: ast.Call) -> Step | None:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
            return None
        function, steps = FUNCTIONS[node.func.id], [self._understood(each) for each in node.args]
        return lambda values: function(*(step(values) for step in steps))

    def _column(self, node: ast.Name) -> Step:
        name = node.id
        if name in self._columns:
            self.names.add(name)
            return lambda values: values[name]
        near = difflib.get_close_matches(name, self._columns, n=1)
        hint = (
            f"; did you mean {near[0]!r}?"
            if near
            else f"; there are {', '.join(sorted(self._columns))}"
        )
        raise ConfigError(
            f"{self._flag}: {self.source!r}: position {node.col_offset + 1}: no column "
            f"{name!r}{hint}"
        )

    _KINDS: ClassVar[dict[type[ast.expr], Callable[[Any, Any], Step | None]]] = {
        ast.Constant: _constant, ast.Name: _column, ast.BoolOp: _boolean, ast.UnaryOp: _unary, ast.BinOp: _arithmetic,
        ast.Compare: _comparison, ast.IfExp: _conditional, ast.List: _items, ast.Tuple: _items, ast.Subscript: _subscript,
        ast.Call: _call,
    }  # fmt: skip


def _chained(checks: list[Callable[[Any, Any], bool]], steps: list[Step]) -> Step:
    def step(values: Values) -> bool:
        one = steps[0](values)
        for check, each in zip(checks, steps[1:], strict=True):
            other = each(values)
            if not check(one, other):
                return False
            one = other
        return True

    return step


def _truth(value: Any) -> Any:
    if not isinstance(value, bool):
        raise TypeError(f"and, or, not and if take true or false, got {value!r:.50}")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"arithmetic takes numbers, got {type(value).__name__}")
    return value
