"""Arrow types that an input column may have, by what the column is used for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import types

from actors.protocol.parameters import ColumnType
from actors.protocol.plain_text import quoted
from actors.protocol.sampling import PARAMETERS
from pipeline.errors import DatasetError
from pipeline.input.common_types import is_bytes, is_list, is_string
from pipeline.input.file_columns import displayed_type


def is_text(data_type: Any) -> bool:
    """Whether the values are strings or bytes of UTF-8, or a dictionary or runs of these."""
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return is_text(data_type.value_type)
    return is_string(data_type) or is_bytes(data_type)


def is_list_of(data_type: Any, is_item: Callable[[Any], bool]) -> bool:
    """Whether the values are lists of such items; the items of lists without any are null."""
    if not is_list(data_type):
        return False
    return types.is_null(data_type.value_type) or is_item(data_type.value_type)


def is_text_list(data_type: Any) -> bool:
    """Whether the values are lists of text."""
    return is_list_of(data_type, is_text)


def is_number_list(data_type: Any) -> bool:
    """Whether the values are lists of numbers."""
    return is_list_of(data_type, is_number)


def is_number_list_list(data_type: Any) -> bool:
    """Whether the values are lists of lists of numbers."""
    return is_list_of(data_type, is_number_list)


def is_number(data_type: Any) -> bool:
    """Whether the values are integers, reals or decimals.

    Integers with nulls are often stored as reals, and those of data bases as decimals: which values
    are integral is checked row by row.
    """
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return is_number(data_type.value_type)
    return bool(
        types.is_integer(data_type) or types.is_floating(data_type) or types.is_decimal(data_type)
    )


def is_row_id(data_type: Any) -> bool:
    """Whether the values can identify rows: text, integers, or decimals without fraction."""
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return is_row_id(data_type.value_type)
    if types.is_decimal(data_type):
        return bool(data_type.scale <= 0)
    return bool(types.is_integer(data_type)) or is_text(data_type)


def is_texts(data_type: Any) -> bool:
    """Whether the values are one or several texts per row."""
    return is_text(data_type) or is_text_list(data_type)


def is_token_bias(data_type: Any) -> bool:
    """Whether the values are maps, structs with a field per token, lists of pairs, or JSON text.

    A pair is a list, or a struct with two fields.
    """
    if types.is_map(data_type) or types.is_struct(data_type) or is_text(data_type):
        return True
    if is_list(data_type) and types.is_struct(data_type.value_type):
        return bool(data_type.value_type.num_fields == 2)
    return is_list_of(data_type, is_number_list)


@dataclass(frozen=True, slots=True)
class ExpectedType:
    """What a column may be, in words and as a check of its Arrow type."""

    description: str
    accepts: Callable[[Any], bool]


_TEXT = ExpectedType("a string", is_text)
_TOKEN_IDS = ExpectedType("a list of integers", is_number_list)
_PARAMETER_TYPES: dict[ColumnType, ExpectedType] = {
    "integer": ExpectedType("an integer", is_number),
    "number": ExpectedType("a number", is_number),
    "boolean": ExpectedType("a boolean", types.is_boolean),
    "texts": ExpectedType("a string or a list of strings", is_texts),
    "token ids": _TOKEN_IDS,
    "token bias": ExpectedType(
        "a map from token ids or text to numbers, or JSON text", is_token_bias
    ),
}

# By "id", the form of a role's column (pipeline/input/roles.py), or a sampling parameter.
_EXPECTED: dict[str, ExpectedType] = {
    "id": ExpectedType("a string or an integer", is_row_id),
    "prompt": _TEXT,
    "prompt_token_ids": _TOKEN_IDS,
    "continuation": _TEXT,
    "continuation_token_ids": _TOKEN_IDS,
    "choices": ExpectedType("a list of strings", is_text_list),
    "choices_token_ids": ExpectedType("a list of lists of integers", is_number_list_list),
    **{name: _PARAMETER_TYPES[item.kind.column] for name, item in PARAMETERS.items()},
}


def check_type(name: str, data_type: pa.DataType | None, use: str, source: str) -> None:
    """Checks that the type of a column fits its use.

    A column of JSON lines with values of several types is accepted: rows whose values do not fit
    fail one by one. Ids are the exception, because every row needs one.

    Args:
        name: of the column.
        data_type: None: values of several types.
        use: "id", the form of a role's column such as "prompt_token_ids", or a sampling parameter.
        source: the files, for the message.

    Raises:
        DatasetError: the type does not fit.
    """
    expected = _EXPECTED[use]
    if data_type is None:
        if use == "id":
            raise DatasetError(
                f"{source}: column {quoted(name)} has values of several types, expected "
                f"{expected.description} in every row; convert it"
            )
        return
    if not types.is_null(data_type) and not expected.accepts(data_type):
        raise DatasetError(
            f"{source}: column {quoted(name)} is {displayed_type(data_type)}, expected "
            f"{expected.description}; convert it in the input"
        )
