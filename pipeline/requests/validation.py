"""Checks of a row's text and token ids: the only place where they are validated.

Each check raises a `RequestError`, which becomes the error of its row. `name` is the input field
that a message names, such as `prompt` or `choices_token_ids`.
"""

from array import array
from typing import SupportsIndex

import numpy as np

from actors.protocol.errors import (
    EmptyPromptError,
    InvalidPromptError,
    InvalidTokenError,
    MissingPromptError,
    PromptTooLongError,
)
from actors.protocol.messages import token_ids, type_code_ids
from actors.protocol.plain_text import quoted
from pipeline.requests.rules import RequestRules


def check_present(name: str, value: object) -> object:
    """Returns `value`.

    Raises:
        MissingPromptError: it is null.
    """
    if value is None:
        raise MissingPromptError(f"{name}: expected text or token ids, got null")
    return value


def check_text(name: str, value: object) -> str:
    """Returns `value` as text.

    Raises:
        MissingPromptError: it is null.
        InvalidPromptError: it is not a string, or not valid Unicode; JSON lines can hold such.
    """
    text = check_present(name, value)
    if not isinstance(text, str):
        raise InvalidPromptError(f"{name}: expected a string, got {type(text).__name__}")
    if text.isascii():
        return text

    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidPromptError(
            f"{name}: expected valid Unicode, got a lone surrogate at character {error.start}"
        ) from error
    return text


def check_list(name: str, value: object) -> "list[object] | array[int]":
    """Returns `value`, a list or an array of any library, as a list or a compact array.

    Raises:
        MissingPromptError: it is null.
        InvalidPromptError: it is not a list.
        EmptyPromptError: it has no items.
    """
    items = check_present(name, value)
    if isinstance(items, array) and items.typecode == type_code_ids and len(items):
        return items
    if hasattr(items, "tolist"):
        items = items.tolist()
    if not isinstance(items, list | tuple):
        raise InvalidPromptError(f"{name}: expected a list, got {type(items).__name__}")
    if not items:
        raise EmptyPromptError(f"{name}: expected at least one item, got an empty list")
    return list(items)


def check_token_ids(name: str, value: object, vocab_size: int) -> "array[int]":
    """Returns the token ids of an input column as a compact array.

    Raises:
        MissingPromptError: they are null.
        EmptyPromptError: there are none.
        InvalidPromptError: an item is not an integer.
        InvalidTokenError: an id is outside the vocabulary.
    """
    items = check_list(name, value)
    if not isinstance(items, array) and any(isinstance(item, float) for item in items):
        items = list(map(_integral, items))
    try:
        ids = items if isinstance(items, array) else token_ids(items)  # type: ignore[arg-type]
    except OverflowError as error:
        raise InvalidTokenError(
            f"{name}: expected ids from 0 to {vocab_size - 1}, got one beyond int32"
        ) from error
    except TypeError as error:
        position = next(index for index, item in enumerate(items) if not _is_integer(item))
        raise InvalidPromptError(
            f"{name}: expected a list of integers, got {quoted(items[position])} at position "
            f"{position}"
        ) from error

    # One pass in NumPy: as an unsigned number, a negative id is a huge one. The same loop in Python
    # was the most expensive line of the driver.
    largest = int(np.frombuffer(ids, np.uint32).max())
    if largest >= vocab_size:
        valid = range(vocab_size)
        position = next(index for index, token in enumerate(ids) if token not in valid)
        raise InvalidTokenError(
            f"{name}: expected ids below {vocab_size}, got {ids[position]} at position {position}"
        )
    return ids


def _is_integer(item: object) -> bool:
    """Whether an item can be one of an array of integers."""
    return isinstance(item, SupportsIndex)


def _integral(item: object) -> object:
    """Returns a float without fraction as an integer, and anything else unchanged."""
    if isinstance(item, float) and item.is_integer():
        return int(item)
    return item


def check_encoded(name: str, ids: "array[int]") -> "array[int]":
    """Returns the token ids of an encoded text.

    Raises:
        EmptyPromptError: there are none.
    """
    if not len(ids):
        raise EmptyPromptError(f"{name}: expected at least one token, got none")
    return ids


def fit_prompt(
    prompt: "array[int]",
    max_tokens: int,
    rules: RequestRules,
    reserved_for: str = "",
    overflow: str = "truncate-left",
) -> "array[int]":
    """Returns the prompt, or its last `max_tokens` tokens under `--on-overflow truncate-left`.

    Args:
        prompt: token ids.
        max_tokens: the most that fit.
        rules: of the run.
        reserved_for: what the rest of --max-len is needed for, for the message.
        overflow: value of --on-overflow that the message recommends.

    Raises:
        PromptTooLongError: the prompt does not fit.
    """
    if len(prompt) <= max_tokens:
        return prompt
    if rules.overflow == "truncate-left" and max_tokens > 0:
        # grok-1: truncates on the left without correcting the length; here the shorter prompt is
        # the prompt, and its length is counted.
        return prompt[len(prompt) - max_tokens :]
    limit = f"--max-len {rules.max_len}"
    if reserved_for:
        limit += f" less {reserved_for}"
    raise PromptTooLongError(
        f"prompt: expected at most {max(max_tokens, 0)} tokens ({limit}), got {len(prompt)}; "
        f"raise --max-len or use --on-overflow {overflow}"
    )
