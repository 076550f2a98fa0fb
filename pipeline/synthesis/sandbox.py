"""Jinja sandbox in which templates and conditions run, with bounded work per operator.

Text of the user is trusted, text of a row is not. The sandbox closes attributes and methods that
reach beyond values, values are immutable, and operators that data could blow up (`*`, `**`) are
bounded. Nothing in it is random: the same row gives the same result.
"""

from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_REPEATED = 1_000_000  # characters or items that `*` may produce
MAX_EXPONENT = 64
# of the result of `**`: powers of powers are bounded, too
MAX_POWER_BITS = 64 * 64
RANDOM_FILTERS = ("random",)
RANDOM_GLOBALS = ("lipsum",)
ROW_ERRORS = (  # what values of another type than the text expects raise
    jinja2.TemplateError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
)


class Sandbox(ImmutableSandboxedEnvironment):
    """Environment without random filters, in which undefined values are errors."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, autoescape=False, **options)
        for name in RANDOM_FILTERS:
            del self.filters[name]
        for name in RANDOM_GLOBALS:
            del self.globals[name]

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
        return super().call_binop(context, operator, left, right)


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
