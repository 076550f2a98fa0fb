"""Columns of any Arrow type through whole runs on fake replicas: no value is lost or changed."""

import dataclasses
import datetime
import io
import json
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jobs.cli.exit_codes import ExitCode
from jobs.run.config import ScoreConfig
from jobs.run.execute import run_job
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import table

ROWS = 3  # of each file
COLUMNS = 20

# Values are those that the type holds exactly.
SCALARS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.null(): st.none(),
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-(2**7), 2**7 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float16(): st.floats(width=16, allow_nan=False),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(max_size=4),
    pa.large_string(): st.text(max_size=4),
    pa.string_view(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=4),
    pa.large_binary(): st.binary(max_size=4),
    pa.binary_view(): st.binary(max_size=20),
    pa.binary(4): st.binary(min_size=4, max_size=4),
    pa.decimal128(6, 2): st.decimals(-999, 999, places=2),
    pa.decimal128(38, 0): st.integers(-(10**37), 10**37).map(Decimal),
    pa.date32(): st.dates(),
    pa.timestamp("ms"): st.datetimes().map(lambda at: at.replace(microsecond=0)),
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(datetime.UTC)),
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(datetime.timedelta(-999), datetime.timedelta(999)),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["a", "b", ""]),
    pa.dictionary(pa.int32(), pa.int64()): st.integers(0, 3),
}
RUNS = pa.run_end_encoded(pa.int32(), pa.string())  # within others, Arrow cannot make them


def list_types(item_type: Any) -> st.SearchStrategy[Any]:
    layouts = [
        pa.list_(item_type),
        pa.large_list(item_type),
        pa.list_(item_type, 2),
        pa.list_view(item_type),
        pa.large_list_view(item_type),
    ]
    return st.sampled_from(layouts)


def struct_types(item_types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.tuples(st.sampled_from("abc"), item_types)
    names = st.lists(fields, min_size=1, max_size=3, unique_by=lambda item: item[0])
    return names.map(pa.struct)


def nested_types(item_types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    maps = item_types.map(lambda item_type: pa.map_(pa.string(), item_type))
    return item_types.flatmap(list_types) | struct_types(item_types) | maps


TYPES = st.just(RUNS) | st.recursive(st.sampled_from(list(SCALARS)), nested_types, max_leaves=4)


def values_of(data_type: Any) -> st.SearchStrategy[Any]:
    """Values of a type as `pa.array` takes them, with nulls."""
    if data_type == RUNS:
        return st.none() | st.sampled_from(["a", "b"])
    if data_type in SCALARS:
        return st.none() | SCALARS[data_type]
    if pa.types.is_struct(data_type):
        fields = {field.name: values_of(field.type) for field in data_type}
        return st.none() | st.fixed_dictionaries(fields)
    if pa.types.is_map(data_type):
        entries = st.dictionaries(st.text(max_size=2), values_of(data_type.item_type), max_size=2)
        return st.none() | entries.map(lambda items: list(items.items()))

    items = values_of(data_type.value_type)
    if pa.types.is_fixed_size_list(data_type):
        return st.none() | st.lists(items, min_size=2, max_size=2)
    return st.none() | st.lists(items, max_size=2)


@st.composite
def tables(draw: st.DrawFn) -> list[pa.Table]:
    """Two files of the same columns, of which some differ in type."""
    files: list[dict[str, Any]] = [{}, {}]
    for number in range(COLUMNS):
        data_type = draw(TYPES)
        for columns in files:
            if draw(st.integers(0, 3)) == 0:
                data_type = draw(TYPES)
            values = draw(st.lists(values_of(data_type), min_size=ROWS, max_size=ROWS))
            columns[f"c{number}"] = pa.array(values, data_type)
    return [pa.table(columns) for columns in files]


def readable(values: Any) -> Any:
    """Returns the values; nulls in their place where no Parquet file can hold them."""
    part = io.BytesIO()
    try:
        pq.write_table(pa.table({"x": values}), part)
        pq.read_table(part)
    except (pa.ArrowException, OSError):
        return pa.nulls(ROWS)
    return values


def assert_same(value: Any, written: Any, field: Any) -> None:
    """Compares a value of the input with that of the output, which may be JSON text."""
    if field.metadata is None or b"json_text" not in field.metadata:
        assert plain(written) == plain(value)
    elif value is None:
        assert written is None
    else:
        assert_json(json.loads(written), value)


def plain(value: Any) -> Any:
    """Returns a value of which equal ones compare equal, whatever their layout."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return value


def assert_json(parsed: Any, value: Any) -> None:
    """Compares parsed JSON text with the value that it stands for."""
    if isinstance(value, dict):
        assert parsed.keys() == value.keys()
        for name, item in value.items():
            assert_json(parsed[name], item)
    elif isinstance(value, tuple):  # an entry of a map
        assert_json([parsed["key"], parsed["value"]], list(value))
    elif isinstance(value, list):
        assert len(parsed) == len(value)
        for parsed_item, item in zip(parsed, value, strict=True):
            assert_json(parsed_item, item)
    elif value is None or isinstance(value, bool | int | float | str):
        assert parsed == value
    else:
        assert isinstance(parsed, str)


def write_parquet(columns: pa.Table, path: Path) -> pa.Table:
    """Writes the columns that Parquet can hold; returns them as it has them."""
    arrays = [readable(column.chunk(0)) for column in columns.columns]
    pq.write_table(pa.table(arrays, names=columns.column_names), path)
    return pq.read_table(path)


def write_arrow(columns: pa.Table, path: Path) -> pa.Table:
    """Writes an Arrow file, which holds every type."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, columns.schema) as writer:
        writer.write_table(columns)
    return columns


WRITERS: dict[str, Callable[[pa.Table, Path], pa.Table]] = {
    "parquet": write_parquet,
    "arrow": write_arrow,
}


def write_input(folder: Path, files: Sequence[pa.Table], suffix: str) -> list[pa.Table]:
    """Writes the files, with one row that fails; returns their columns as the format has them."""
    folder.mkdir()
    inputs: list[pa.Table] = []
    for number, columns in enumerate(files):
        ids: list[Any] = [[number * ROWS + row + 1, 5] for row in range(ROWS)]
        if number:
            ids[0] = None
        prompts = pa.array(ids, pa.list_(pa.int32()))
        path = folder / f"{number}.{suffix}"
        inputs.append(WRITERS[suffix](columns.append_column("prompt_token_ids", prompts), path))
    return inputs


@pytest.mark.parametrize("suffix", WRITERS)
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(files=tables())
def test_values_of_any_type_come_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, files: list[pa.Table]
) -> None:
    folder = tmp_path_factory.mktemp("types")
    inputs = write_input(folder / "in", files, suffix)
    config = ScoreConfig(
        input=str(folder / "in"),
        output=str(folder / "out"),
        model="demo",
        max_tokens=2,
        n=2,
        max_error_rate=1.0,
        shard_rows=2,
        log_format="json",
    )
    assert run_job(config, FakeBackend(draws_plots=False)) is ExitCode.ROW_ERRORS
    again = dataclasses.replace(config, retry_failed=True)  # merges the row that fails again
    assert run_job(again, FakeBackend(draws_plots=False)) is ExitCode.ROW_ERRORS

    written = table(folder / "out")
    row_of_sample = [row for row in range(2 * ROWS) for _ in range(1 if row == ROWS else 2)]
    assert written.num_rows == len(row_of_sample)
    for name in files[0].column_names:
        values = [value for part in inputs for value in part[name].to_pylist()]
        outputs = written[name].to_pylist()
        for row, output in zip(row_of_sample, outputs, strict=True):
            assert_same(values[row], output, written.field(name))
