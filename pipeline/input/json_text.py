"""Values as JSON text: what stands in a column whose values have no type that Parquet holds."""

import base64
import json
from collections.abc import Iterable
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

JSON_TEXT = {b"json_text": b"values of several types, written as JSON"}


def json_text_field(name: str) -> "pa.Field[Any]":
    """Returns the field of a column of JSON text; its metadata marks it."""
    return pa.field(name, pa.string(), metadata=JSON_TEXT)


def is_json_text(field: Any) -> bool:
    """Whether the values of a field are JSON text."""
    return field.metadata is not None and JSON_TEXT.items() <= field.metadata.items()


def to_json_text(values: Iterable[Any]) -> "pa.Array[Any]":
    """Returns each value, as parsed from JSON, as JSON text; null stays null."""
    texts: list[str | None] = []
    for value in values:
        if value is None:
            texts.append(None)
        else:
            texts.append(json.dumps(value))
    return cast("pa.Array[Any]", pa.array(texts, pa.string()))


def column_to_json_text(column: "pa.ChunkedArray[Any]") -> "pa.ChunkedArray[Any]":
    """Returns the values of an Arrow column as JSON text; null stays null.

    Maps become lists of objects with `key` and `value`, bytes become base64, and values that JSON
    does not have (decimals, dates, times) become strings.
    """
    chunks = [to_json_text(_json_values(chunk)) for chunk in column.chunks]
    return cast("pa.ChunkedArray[Any]", pa.chunked_array(chunks, pa.string()))


def _json_values(values: Any) -> list[Any]:
    data_type = values.type
    if isinstance(data_type, pa.BaseExtensionType):
        return _json_values(values.storage)
    if types.is_dictionary(data_type):
        return _json_values(values.dictionary_decode())
    if types.is_run_end_encoded(data_type):
        return _json_values(pc.run_end_decode(values))  # type: ignore[attr-defined]
    if types.is_union(data_type):
        return [_json_scalar(scalar.value) for scalar in values]
    if types.is_struct(data_type):
        return _json_objects(values)
    if types.is_nested(data_type):
        return _json_lists(values)

    if types.is_primitive(data_type) and not types.is_temporal(data_type):
        return cast(list[Any], values.to_pylist())
    if types.is_null(data_type):
        return [None] * len(values)
    if pa.types.is_decimal(data_type) or types.is_temporal(data_type):
        return _texts(values)
    items = values.to_pylist()
    return [_json_value(item) for item in items]


def _json_objects(values: Any) -> list[Any]:
    columns = [_json_values(column) for column in values.flatten()]  # null where the struct is
    names = [field.name for field in values.type]
    objects: list[Any] = []
    if len(set(names)) < len(names):
        names = [f"{name}#{index}" for index, name in enumerate(names)]
    for row, is_valid in enumerate(values.is_valid().to_pylist()):
        if not is_valid:
            objects.append(None)
            continue
        objects.append({name: column[row] for name, column in zip(names, columns, strict=True)})
    return objects


def _json_lists(values: Any) -> list[Any]:
    """Returns lists of any layout; a map is a list of entries."""
    lists: list[Any] = []
    for scalar in values:
        if not scalar.is_valid:
            lists.append(None)
            continue
        lists.append(_json_values(scalar.values))
    return lists


def _json_scalar(scalar: Any) -> Any:
    [value] = _json_values(pa.repeat(scalar, 1))
    return value


def _texts(values: Any) -> list[Any]:
    """Returns values as Arrow writes them, with all digits."""
    try:
        return cast(list[Any], values.cast(pa.string()).to_pylist())
    except pa.ArrowException:
        return [None if item is None else str(item) for item in values.to_pylist()]


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
