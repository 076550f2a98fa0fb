"""The type that holds the values of two Arrow types without changing any of them."""

from typing import Any

import pyarrow as pa
from pyarrow import types

from pipeline.output.storable import can_cast

# Bits of integers that each type of reals holds exactly.
_EXACT_BITS = ((pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53))


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Returns a type into which both convert without loss; None if there is none.

    Layouts of the same values are harmless (`string` and `large_string`, a dictionary of strings),
    as are nulls and narrower numbers. int64 and float64 are not: 2**53 + 1 is no float64.
    """
    common: pa.DataType | None = _common_type(first, second)
    if common is None or not can_cast(first, common) or not can_cast(second, common):
        return None
    return common


def _common_type(first: Any, second: Any) -> Any:
    if first == second or types.is_null(second):
        return first
    if types.is_null(first):
        return second
    if types.is_dictionary(first) or types.is_dictionary(second):
        return _common_type(_decoded(first), _decoded(second))

    if is_string(first) and is_string(second):
        return _wider(first, second, pa.string(), pa.large_string())
    if is_bytes(first) and is_bytes(second):
        return _wider(first, second, pa.binary(), pa.large_binary())
    if is_list(first) and is_list(second):
        return _common_list(first, second)
    if types.is_struct(first) and types.is_struct(second):
        return _common_struct(first, second)
    if types.is_map(first) and types.is_map(second):
        key_type = _common_type(first.key_type, second.key_type)
        item_type = _common_type(first.item_type, second.item_type)
        if key_type is None or item_type is None:
            return None
        return pa.map_(key_type, item_type)
    return _common_number(first, second)


def _decoded(data_type: Any) -> Any:
    if types.is_dictionary(data_type):
        return data_type.value_type
    return data_type


def is_string(data_type: Any) -> bool:
    """Whether the type is a string, in any of Arrow's layouts."""
    return bool(
        types.is_string(data_type)
        or types.is_large_string(data_type)
        or types.is_string_view(data_type)
    )


def is_bytes(data_type: Any) -> bool:
    """Whether the type is bytes of any length, in any of Arrow's layouts."""
    return bool(
        types.is_binary(data_type)
        or types.is_large_binary(data_type)
        or types.is_binary_view(data_type)
    )


def is_list(data_type: Any) -> bool:
    """Whether the type is a list, in any of Arrow's layouts."""
    return bool(
        types.is_list(data_type)
        or types.is_large_list(data_type)
        or types.is_fixed_size_list(data_type)
        or types.is_list_view(data_type)
        or types.is_large_list_view(data_type)
    )


def _wider(first: Any, second: Any, usual: pa.DataType, large: pa.DataType) -> pa.DataType:
    """Returns the layout with 64-bit offsets if one of the types has them."""
    if large in (first, second):
        return large
    return usual


def _common_list(first: Any, second: Any) -> Any:
    value_type = _common_type(first.value_type, second.value_type)
    if value_type is None:
        return None
    for data_type in (first, second):
        if types.is_large_list(data_type) or types.is_large_list_view(data_type):
            return pa.large_list(value_type)
    return pa.list_(value_type)


def _common_struct(first: Any, second: Any) -> Any:
    """Returns the struct of the common types of both structs' fields, which must be the same."""
    if [field.name for field in first] != [field.name for field in second]:
        return None
    fields: list[Any] = []
    for first_field, second_field in zip(first, second, strict=True):
        field_type = _common_type(first_field.type, second_field.type)
        if field_type is None:
            return None
        fields.append(pa.field(first_field.name, field_type))
    return pa.struct(fields)


def _common_number(first: Any, second: Any) -> Any:
    if types.is_integer(first) and types.is_integer(second):
        return _common_integer(first, second)
    if types.is_floating(first) and types.is_floating(second):
        return max(first, second, key=lambda data_type: data_type.bit_width)
    if types.is_integer(first) and types.is_floating(second):
        return _common_real(second, first)
    if types.is_floating(first) and types.is_integer(second):
        return _common_real(first, second)
    return None


def _common_integer(first: Any, second: Any) -> Any:
    if types.is_signed_integer(first) == types.is_signed_integer(second):
        return max(first, second, key=lambda data_type: data_type.bit_width)

    signed, unsigned = first, second
    if types.is_unsigned_integer(first):
        signed, unsigned = second, first
    for candidate in (signed, pa.int16(), pa.int32(), pa.int64()):
        if candidate.bit_width >= signed.bit_width and candidate.bit_width > unsigned.bit_width:
            return candidate
    return None


def _common_real(real: Any, integer: Any) -> Any:
    value_bits = integer.bit_width
    if types.is_signed_integer(integer):
        value_bits -= 1
    for candidate, exact_bits in _EXACT_BITS:
        if candidate.bit_width >= real.bit_width and exact_bits >= value_bits:
            return candidate
    return None
