"""Limits of the work and of the sizes of values in a template.

Work is counted, not timed: the same row is rejected on a fast and on a slow machine.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2

MAX_CHARS = 4_000_000  # or items, of any value; far beyond any context
MAX_WORK = 20_000_000  # characters and items that one rendering may read or write; up to 2 seconds
STEP_WORK = 200  # of an iteration or call, beside its values: 16 microseconds for a macro
ITEM_CHARS = 4  # that an item of a list counts for, beside its own
# a width or precision that has more than 6 digits, or is taken from the values
_LARGE_PERCENT_WIDTH = re.compile(r"%[^a-zA-Z%]*(\d{7,}|\*)")
_LARGE_FIELD_WIDTH = re.compile(r"\{[^{}]*:[^{}]*(\d{7,}|\{)")
UNBOUNDED_METHODS = ("format_map", "to_bytes", "translate")


@dataclass
class WorkBudget:
    """The work that remains to one rendering."""

    remaining: int = MAX_WORK

    def spend(self, *values: object) -> None:
        """Subtracts one step over these values.

        Raises:
            jinja2.TemplateRuntimeError: nothing is left.
        """
        self.remaining -= STEP_WORK
        for value in values:
            self.remaining -= nested_size(value, self.remaining)
        if self.remaining < 0:
            raise jinja2.TemplateRuntimeError(
                f"the template takes too much work for one row (more than {MAX_WORK:,} characters "
                f"read or written, an iteration counts as {STEP_WORK})"
            )


def nested_size(value: object, limit: int) -> int:
    """Returns the characters of a value and of all values in it, some for each item.

    Args:
        value: of any type; what has no length counts as 1.
        limit: above which counting stops; a value that is in a list twice counts twice.
    """
    size = 0
    values = [value]
    while values and size <= limit:
        item = values.pop()
        if isinstance(item, str | bytes | range):
            size += len(item)
        elif isinstance(item, list | tuple | set | frozenset):
            size += ITEM_CHARS * len(item)
            values += item
        elif isinstance(item, Mapping):
            size += ITEM_CHARS * len(item)
            values += item.keys()
            values += item.values()
        else:
            size += 1
    return size


def check_size(size: int) -> None:
    """Checks the size of a value that is about to be made.

    Raises:
        jinja2.TemplateRuntimeError: it is larger than `MAX_CHARS`.
    """
    if size > MAX_CHARS:
        raise jinja2.TemplateRuntimeError(
            f"a value would have {size:,} characters or items, expected at most {MAX_CHARS:,}"
        )


def check_method(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Checks the size of the result of a method of a string or number.

    Raises:
        jinja2.TemplateRuntimeError: it would be too large, or cannot be estimated.
    """
    if name in UNBOUNDED_METHODS:
        raise jinja2.TemplateRuntimeError(f"{name} is not available in templates")
    if name == "format":
        _check_width(_LARGE_FIELD_WIDTH, value)
    estimate = _METHOD_GROWTH.get(name)
    if estimate is not None:
        check_size(estimate(value, *args, **kwargs))


def check_filter(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Checks the size of the result of a filter.

    Raises:
        jinja2.TemplateRuntimeError: it would be too large.
    """
    if name == "format":
        check_percent_format(value)
    estimate = _FILTER_GROWTH.get(name)
    if estimate is not None:
        check_size(estimate(value, *args, **kwargs))


def check_percent_format(text: object) -> None:
    """Checks the widths of the left side of `%`.

    Raises:
        jinja2.TemplateRuntimeError: one is too large, or is taken from the values.
    """
    if isinstance(text, str | bytes):
        _check_width(_LARGE_PERCENT_WIDTH, text)


def _check_width(large_width: re.Pattern[str], text: str | bytes) -> None:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if large_width.search(text):
        raise jinja2.TemplateRuntimeError(
            "expected widths of at most 6 digits in a format, and none from its values"
        )


def _padded(
    _value: Any, width: int = 80, *_: Any, linecount: int = 0, slices: int = 0, **__: Any
) -> int:
    return max(abs(int(width)), abs(int(linecount)), abs(int(slices)))


def _indented(value: str, width: Any = 4, *_: Any, **__: Any) -> int:
    width_chars = len(width) if isinstance(width, str) else abs(int(width))
    return len(value) + width_chars * (value.count("\n") + 1)


def _with_tabs(value: Any, tabsize: int = 8) -> int:
    tab = b"\t" if isinstance(value, bytes) else "\t"
    return len(value) + int(value.count(tab)) * abs(int(tabsize))


def _replaced(value: Any, old: Any, new: Any, *_: Any, **__: Any) -> int:
    return len(value) + int(value.count(old)) * len(new)


def _replaced_text(value: Any, old: Any, new: Any, *_: Any, **__: Any) -> int:
    return _replaced(str(value), str(old), str(new))


def _wrapped(
    value: str,
    width: int = 79,
    _break_words: bool = True,
    wrapstring: str | None = None,
    *_: Any,
    **__: Any,
) -> int:
    return abs(int(width)) + len(value) * (1 + len(wrapstring or ""))


_METHOD_GROWTH: Mapping[str, Callable[..., int]] = {
    "center": _padded,
    "expandtabs": _with_tabs,
    "ljust": _padded,
    "replace": _replaced,
    "rjust": _padded,
    "zfill": _padded,
}
_FILTER_GROWTH: Mapping[str, Callable[..., int]] = {
    "batch": _padded,
    "center": _padded,
    "indent": _indented,
    "replace": _replaced_text,
    "slice": _padded,
    "wordwrap": _wrapped,
}
