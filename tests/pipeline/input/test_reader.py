"""pipeline/input/reader.py with columns, unique, formats and json_types below it: real files, good and bad."""

import datetime
import decimal
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.messages import Completion, RowRef
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.columns import InputColumns, InputSchema, inspect_columns
from pipeline.input.reader import read_rows
from pipeline.input.shards import list_input, plan_shards
from pipeline.input.unique_ids import check_unique_ids
from pipeline.records import PromptRow, Shard, ShardOpened, UnreadableShard

GENERATE = InputColumns(task="generate")


def write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def write_jsonl(path: Path, *lines: object) -> str:
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        + b"\n"
    )
    return str(path)


def read_all(
    url: str, columns: InputColumns = GENERATE, shard_rows: int = 3, limit: int | None = None
) -> tuple[list[PromptRow | Completion], pa.Table, InputSchema]:
    """Plans and reads; checks on the way that each shard is announced before its first row."""
    files = list_input(url, limit)
    schema = inspect_columns(files, columns)
    tables: dict[int, pa.Table] = {}
    rows = []
    for item in read_rows(plan_shards(files, shard_rows, limit), schema):
        if isinstance(item, ShardOpened):
            tables[item.shard.number] = item.passthrough
            continue
        assert not isinstance(item, UnreadableShard)
        assert item.ref.shard == max(tables)
        rows.append(item)
    return rows, pa.concat_tables(tables.values()), schema


def read_error(shard: Shard, schema: InputSchema) -> str:
    """Returns why the shard cannot be read."""
    (item,) = read_rows([shard], schema)
    assert isinstance(item, UnreadableShard)
    assert item.shard == shard
    return str(item.error)


def test_rows_come_in_order_with_their_address(tmp_path: Path) -> None:
    write(
        tmp_path / "a.parquet",
        {"id": [10, 11, 12, 13], "prompt": list("abcd"), "extra": [1.5, None, 2.5, 3.5]},
    )
    write(tmp_path / "b.parquet", {"id": [20, 21], "prompt": ["e", None], "extra": [None, 0.5]})
    rows, passthrough, _ = read_all(str(tmp_path))
    refs = [RowRef(0, 0), RowRef(0, 1), RowRef(0, 2), RowRef(1, 0), RowRef(2, 0), RowRef(2, 1)]
    assert rows == [
        PromptRow(ref=ref, id=key, prompt=prompt)
        for ref, key, prompt in zip(refs, [10, 11, 12, 13, 20, 21], [*"abcde", None], strict=True)
    ]
    assert passthrough.to_pydict() == {
        "id": [10, 11, 12, 13, 20, 21],
        "extra": [1.5, None, 2.5, 3.5, None, 0.5],
    }


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60),
    group=st.integers(1, 25),
    shard_rows=st.integers(1, 25),
    parts=st.integers(1, 4),
    limit=st.integers(1, 70),
)
def test_any_row_groups_shards_and_partitions(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    group: int,
    shard_rows: int,
    parts: int,
    limit: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "groups.parquet"
    write(
        path,
        {"prompt": [f"p{row}" for row in range(rows)], "row": list(range(rows))},
        row_group_size=group,
    )
    files = list_input(str(path))
    schema = inspect_columns(files, GENERATE)
    shards = plan_shards(files, shard_rows, limit)
    seen: list[tuple[int, str]] = []
    for part in range(parts):
        tables: dict[int, pa.Table] = {}
        own = [shard for shard in shards if shard.number % parts == part]

        for row in read_rows(own, schema):
            if isinstance(row, ShardOpened):
                tables[row.shard.number] = row.passthrough
                continue
            assert isinstance(row, PromptRow)
            assert row.prompt is not None
            number = shards[row.ref.shard].first_row + row.ref.row
            assert tables[row.ref.shard]["row"][row.ref.row].as_py() == number
            assert (
                row.id
                == f"groups.parquet#{number}"
                == tables[row.ref.shard]["id"][row.ref.row].as_py()
            )
            seen.append((number, row.prompt))
    assert sorted(seen) == [(row, f"p{row}") for row in range(min(rows, limit))]


def test_rows_between_shards_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write(
        tmp_path / "a.parquet", {"prompt": [str(row) for row in range(100)]}, row_group_size=10
    )
    groups: list[list[int]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, **options: Any) -> Any:
        groups.append(options["row_groups"])
        return original(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    shards = [Shard(0, url, 3, 2), Shard(1, url, 6, 8), Shard(9, url, 95, 5)]
    schema = inspect_columns(list_input(url), GENERATE)
    rows = list(read_rows(shards, schema))
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == [
        str(row) for row in [3, 4, *range(6, 14), *range(95, 100)]
    ]
    assert [later[0] for later in groups] == [0, 9]


def test_only_rows_that_failed(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {"id": list(range(8)), "prompt": list("abcdefgh"), "x": list("ABCDEFGH")},
    )
    schema = inspect_columns(list_input(url), GENERATE)
    opened, *rows = read_rows([Shard(1, url, 2, 5, only=(3, 1))], schema)
    assert rows == [PromptRow(RowRef(1, 1), 3, "d"), PromptRow(RowRef(1, 3), 5, "f")]
    assert isinstance(opened, ShardOpened)
    assert opened.passthrough.to_pydict() == {"id": [3, 5], "x": ["D", "F"]}


UNUSUAL = {
    "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": []}]),
    "list": pa.array([[1, None], [], None], pa.list_(pa.int64())),
    "timestamp": pa.array(
        [datetime.datetime(2026, 1, 2, 3, 4, 5, 678, datetime.UTC), None, None],
        pa.timestamp("us", "Europe/Berlin"),
    ),
    "decimal": pa.array(
        [decimal.Decimal("1.230"), None, decimal.Decimal("-9.999")], pa.decimal128(10, 3)
    ),
    "dictionary": pa.array(["red", "blue", "red"]).dictionary_encode(),
    "large": pa.array(["x", None, "y"], pa.large_string()),
    "binary": pa.array([b"\xff\x00", None, b""]),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
    "date": pa.array([1, 2, None], pa.date32()),
    "null": pa.nulls(3),
    "fixed": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
}


def test_unusual_types_pass_through_unchanged(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {"prompt": list("abc"), "id": ["1", "2", "3"], **UNUSUAL},
        row_group_size=2,
    )
    _, passthrough, schema = read_all(url, shard_rows=1)
    written = pq.read_table(url).drop(["prompt", "id"])
    assert passthrough.drop(["id"]).schema.equals(written.schema)
    assert passthrough.drop(["id"]).to_pylist() == written.to_pylist()
    assert schema.passthrough.names == ["id", *UNUSUAL]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_text_types_of_prompts(tmp_path: Path, kind: pa.DataType) -> None:
    text = pa.array(["é", None, ""])
    prompts = text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)
    rows, _, _ = read_all(write(tmp_path / "a.parquet", {"prompt": prompts}))
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == ["é", None, ""]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.uint8())]
)
def test_types_of_token_ids(tmp_path: Path, kind: pa.DataType) -> None:
    ids = [[1, 2], None, [], [3, None], [4]]
    rows, _, schema = read_all(
        write(tmp_path / "a.parquet", {"prompt_token_ids": pa.array(ids, kind)}), shard_rows=2
    )
    found = [row.prompt_token_ids for row in rows if isinstance(row, PromptRow)]
    assert [None if each is None else list(each) for each in found] == ids
    assert not schema.has_text


def test_invalid_utf8_fails_that_row_alone(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff\xfe bad", b"fine", None], pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    url = write(
        tmp_path / "a.parquet", {"id": [1, 2, 3, 4], "prompt": bad, "other": ["w", "x", "y", "z"]}
    )
    rows, passthrough, _ = read_all(url, shard_rows=4)
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == ["good", "fine", None]
    failed = rows[1]
    assert isinstance(failed, Completion)
    assert (failed.ref, failed.error_code) == (RowRef(0, 1), "invalid_prompt")
    assert failed.error_message == f"row 1 of {url}: column 'prompt' is not valid UTF-8"
    assert passthrough["other"].to_pylist() == ["w", "x", "y", "z"]


def test_choices_with_invalid_utf8(tmp_path: Path) -> None:
    words = pa.Array.from_buffers(pa.string(), 3, pa.array([b"A", b"\xff", b"C"]).buffers())
    choices = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), words)
    url = write(tmp_path / "a.parquet", {"prompt": ["p", "q", "r"], "choices": choices})
    rows, _, schema = read_all(url, InputColumns(task="score"))
    assert schema.has_choices
    assert [row.error_code if isinstance(row, Completion) else row.choices for row in rows] == [
        ["A"],
        "invalid_prompt",
        ["C"],
    ]


def test_row_parameters(tmp_path: Path) -> None:
    columns = {
        "prompt": ["a", "b"],
        "max_tokens": [5, None],
        "stop": [["x", "y"], None],
        "ignore_eos": [True, False],
        "seed": [7, 8],
        "min_p": [0.5, None],
        "repetition_penalty": [None, 2],
        "repetition_max_pattern": [32, 0],
        "repetition_min_count": [4, 4],
    }
    rows, passthrough, schema = read_all(write(tmp_path / "a.parquet", columns))
    assert [row.parameters for row in rows if isinstance(row, PromptRow)] == [
        {
            "max_tokens": 5,
            "stop": ["x", "y"],
            "ignore_eos": True,
            "seed": 7,
            "min_p": 0.5,
            "repetition_max_pattern": 32,
            "repetition_min_count": 4,
        },
        {
            "ignore_eos": False,
            "seed": 8,
            "repetition_penalty": 2,
            "repetition_max_pattern": 0,
            "repetition_min_count": 4,
        },
    ]
    assert passthrough.column_names == ["id"]
    more = ("repetition_max_pattern", "repetition_min_count")
    assert schema.parameters == (
        "max_tokens",
        "min_p",
        "repetition_penalty",
        "seed",
        "stop",
        "ignore_eos",
        *more,
    )


def test_other_column_names(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {"question": ["q"], "key": ["k"], "answer": ["a"], "prompt": ["passes"]},
    )
    rows, passthrough, _ = read_all(
        url, InputColumns("generate", prompt_column="question", id_column="key")
    )
    assert rows == [PromptRow(RowRef(0, 0), "k", "q")]
    assert passthrough.to_pydict() == {"id": ["k"], "answer": ["a"], "prompt": ["passes"]}


def test_ids_made_from_file_and_row_are_relative(tmp_path: Path) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    write(tmp_path / "data" / "a.parquet", {"prompt": ["x"]})
    write(tmp_path / "data" / "sub" / "a.parquet", {"prompt": ["y", "z"]})
    rows, passthrough, _ = read_all(str(tmp_path / "data"), shard_rows=1)
    assert passthrough["id"].to_pylist() == ["a.parquet#0", "sub/a.parquet#0", "sub/a.parquet#1"]
    assert [row.id for row in rows if isinstance(row, PromptRow)] == passthrough["id"].to_pylist()


@pytest.mark.s3
def test_reads_ranges_from_s3(s3_url: str, tmp_path: Path) -> None:
    local = write(
        tmp_path / "a.parquet",
        {"prompt": [f"p{row}" for row in range(1000)], "x": list(range(1000))},
        row_group_size=100,
    )
    storage.put_if_absent(storage.join(s3_url, "in", "a.parquet"), Path(local).read_bytes())
    # an empty file of another kind is still another kind
    storage.put_if_absent(storage.join(s3_url, "in", "sub", "b.jsonl"), b"")
    with pytest.raises(DatasetError, match="mixes Parquet and JSON lines"):
        read_all(storage.join(s3_url, "in"))
    rows, passthrough, _ = read_all(storage.join(s3_url, "in", "*.parquet"), shard_rows=150)
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == [
        f"p{row}" for row in range(1000)
    ]
    assert passthrough["id"][-1].as_py() == "a.parquet#999"


# -- JSON lines -------------------------------------------------------------------------------------------------------------


def test_jsonl_with_bad_lines(tmp_path: Path) -> None:
    url = write_jsonl(
        tmp_path / "a.jsonl",
        {"id": "1", "prompt": "one", "n": 2},
        b"{broken",
        b"",
        b'{"id": "3", "prompt": "\xff"}',
        {"id": "4", "prompt": 4},
        b"[1]",
        {"id": "6", "prompt": "\ud800"},
        {"id": "7", "prompt": None},
        {"id": "8"},
    )
    rows, passthrough, _ = read_all(url)
    good = [row for row in rows if isinstance(row, PromptRow)]
    assert [(row.id, row.prompt, row.parameters.get("n")) for row in good] == [
        ("1", "one", 2),
        ("7", None, None),
        ("8", None, None),
    ]
    failed = [row for row in rows if isinstance(row, Completion)]
    assert [row.error_code for row in failed] == ["invalid_prompt"] * 5
    messages = [str(row.error_message) for row in failed]
    expected = [
        "row 1 .* line 2 .* not JSON",
        "line 4 .* not JSON",
        "'prompt' is int",
        "line 6 .* but list",
        "not valid Unicode",
    ]
    for message, pattern in zip(messages, expected, strict=True):
        assert re.search(pattern, message), message
    assert passthrough["id"].to_pylist() == ["1", None, None, "4", None, "6", "7", "8"]


def test_jsonl_types_are_decided_over_all_rows(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "p", "int": row, "seen": {"a": row}} for row in range(5000)
    ]
    records[10]["late"] = ["x"]
    records.append({"prompt": "p", "int": 0.5, "seen": {"b": "new"}, "mixed": 1, "empty": {}})
    records.append({"prompt": "p", "mixed": "one", "huge": 2**70})
    write_jsonl(tmp_path / "a.jsonl", *records)
    write_jsonl(tmp_path / "b.jsonl", {"prompt": "q", "only_b": True})
    rows, passthrough, _ = read_all(str(tmp_path), shard_rows=700)
    types = {field.name: field.type for field in passthrough.schema}
    assert types["int"] == pa.float64()
    assert types["late"] == pa.list_(pa.string())
    assert types["seen"] == pa.struct([("a", pa.int64()), ("b", pa.string())])
    assert types["only_b"] == pa.bool_()
    assert passthrough["mixed"].to_pylist()[-3:] == ["1", '"one"', None]
    assert passthrough["empty"].to_pylist()[-3:] == ["{}", None, None]
    assert passthrough["huge"].to_pylist()[-2:] == [str(2**70), None]
    assert len(rows) == 5003
    pq.write_table(passthrough, tmp_path / "out")


def test_jsonl_limit_looks_at_the_first_rows_only(tmp_path: Path) -> None:
    url = write_jsonl(
        tmp_path / "a.jsonl",
        {"prompt": "a", "x": 1},
        {"prompt": "b", "x": 2},
        {"prompt": "c", "x": "text"},
    )
    rows, passthrough, _ = read_all(url, limit=2)
    assert len(rows) == 2
    assert passthrough["x"].type == pa.int64()


def test_jsonl_ids_of_two_types(tmp_path: Path) -> None:
    url = write_jsonl(tmp_path / "a.jsonl", {"prompt": "a", "id": 1}, {"prompt": "b", "id": "two"})
    with pytest.raises(DatasetError, match="column 'id' has values of several types"):
        read_all(url)


# -- what is refused before anything starts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "columns", "message"),
    [
        ("generate", {"text": ["x"]}, "no column 'prompt' or 'prompt_token_ids', found .*text"),
        ("generate", {"prompt": ["x"], "prompt_token_ids": [[1]]}, "expected one column of"),
        ("generate", {"prompt": [1]}, "column 'prompt' is int64, expected a string"),
        (
            "generate",
            {"prompt_token_ids": [["a"]]},
            "column 'prompt_token_ids' is list<.*expected a list of integers",
        ),
        (
            "generate",
            {"prompt": ["x"], "id": [1.5]},
            "column 'id' is double, expected a string or an integer",
        ),
        (
            "generate",
            {"prompt": ["x"], "max_tokens": ["5"]},
            "column 'max_tokens' is string, expected an integer",
        ),
        (
            "generate",
            {"prompt": ["x"], "stop": [[1]]},
            "column 'stop' is list<.*expected a string or a list of strings",
        ),
        (
            "generate",
            {"prompt": ["x"], "status": ["y"]},
            "column 'status' would pass through.*rename or drop",
        ),
        ("generate", {"prompt": ["x"], "text": ["y"]}, "column 'text' would pass through"),
        ("score", {"prompt": ["x"]}, "no column 'continuation' or"),
        (
            "score",
            {"prompt": ["x"], "choices": [["a"]], "continuation": ["b"]},
            "expected one column of .*found",
        ),
        (
            "score",
            {"prompt": ["x"], "choices": ["a"]},
            "column 'choices' is string, expected a list of strings",
        ),
    ],
)
def test_columns_that_cannot_be_used(
    tmp_path: Path, task: Any, columns: dict[str, Any], message: str
) -> None:
    files = list_input(write(tmp_path / "bad.parquet", columns))
    with pytest.raises(DatasetError, match=message) as caught:
        inspect_columns(files, InputColumns(task=task))
    assert "bad.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values", "field"),
    [
        ("continuation", "a", "continuation"),
        ("answer", "a", "continuation"),
        ("choices", ["a", "b"], "choices"),
        ("continuation_token_ids", [5, 6], "continuation_token_ids"),
        ("choices_token_ids", [[5], [6]], "choices_token_ids"),
    ],
)
def test_continuation_column_may_have_any_usual_name(
    tmp_path: Path, column: str, values: Any, field: str
) -> None:
    url = write(tmp_path / "a.parquet", {"prompt": ["x"], column: [values]})
    (row,), _, schema = read_all(url, InputColumns("score", continuation_column=column))
    value = getattr(row, field)
    assert value == values or list(value) == values
    assert schema.has_choices == field.startswith("choices")


def test_prompt_column_may_name_the_token_ids(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"prompt_token_ids": [[5, 6]]})
    (row,), _, schema = read_all(url, InputColumns("generate", prompt_column="prompt_token_ids"))
    assert isinstance(row, PromptRow)
    assert list(row.prompt_token_ids) == [5, 6]  # type: ignore[call-overload]
    assert not schema.has_text


def test_columns_of_other_tasks_pass_through(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet", {"prompt": ["x"], "choices": [["a"]], "loglikelihood": [0.5]}
    )
    assert inspect_columns(list_input(url), GENERATE).passthrough.names == [
        "id",
        "choices",
        "loglikelihood",
    ]
    url = write(tmp_path / "b.parquet", {"prompt": ["x"], "text": ["a"]})
    assert inspect_columns(list_input(url), InputColumns("perplexity")).passthrough.names == [
        "id",
        "text",
    ]


def test_files_of_different_schema(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"prompt": ["x"], "n_words": [1]})
    write(tmp_path / "b.parquet", {"n_words": [1], "prompt": ["the order does not matter"]})
    assert len(read_all(str(tmp_path))[0]) == 2
    write(tmp_path / "c.parquet", {"prompt": ["x"], "n_words": ["1"]})
    with pytest.raises(
        DatasetError,
        match=r"column 'n_words' of .*c\.parquet is string, expected int64 as in .*a\.parquet",
    ):
        read_all(str(tmp_path))
    write(tmp_path / "c.parquet", {"prompt": ["x"]})
    with pytest.raises(DatasetError, match=r"column 'n_words' of .*c\.parquet is missing"):
        read_all(str(tmp_path))


def test_file_that_vanished_or_shrank(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"prompt": list("abcd")})
    schema = inspect_columns(list_input(url), GENERATE)
    write(tmp_path / "a.parquet", {"prompt": list("ab")})
    shard = Shard(0, url, 0, 4)
    assert "a.parquet has 2 rows, and had 4" in read_error(shard, schema)
    (tmp_path / "a.parquet").unlink()
    assert re.search(r"cannot read .*a\.parquet: it does not exist", read_error(shard, schema))


def test_file_damaged_in_the_middle(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {"prompt": [f"prompt number {row}" for row in range(5000)]},
        compression="zstd",
    )
    data = bytearray(Path(url).read_bytes())
    data[100:4000] = bytes(3900)
    Path(url).write_bytes(data)
    schema = inspect_columns(list_input(url), GENERATE)
    message = read_error(Shard(0, url, 0, 5000), schema)
    assert "a.parquet is not a readable Parquet file" in message


def test_unreadable_file_leaves_other_files_readable(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", {"prompt": ["x"]})
    schema = inspect_columns(list_input(good), GENERATE)
    shards = [Shard(0, f"{tmp_path}/gone.parquet", 0, 4), Shard(1, good, 0, 1)]
    unreadable, opened, row = read_rows(shards, schema)
    assert isinstance(unreadable, UnreadableShard)
    assert unreadable.shard == shards[0]
    assert isinstance(opened, ShardOpened)
    assert opened.shard == shards[1]
    assert isinstance(row, PromptRow)


@pytest.mark.parametrize(
    ("line", "row_id"),
    [
        (b'{"id": "a", "prompt": 5}', "a"),
        (b'{"id": "b", "prompt": "\\ud800"}', "b"),
        (b"not JSON", None),
    ],
)
def test_row_that_cannot_be_read_carries_its_id(
    tmp_path: Path, line: bytes, row_id: str | None
) -> None:
    url = write_jsonl(tmp_path / "a.jsonl", {"id": "first", "prompt": "x"}, line)
    rows, _, _ = read_all(url)
    assert isinstance(rows[1], Completion)
    assert rows[1].error_code == "invalid_prompt"
    assert rows[1].row_id == row_id


# -- ids ----------------------------------------------------------------------------------------------------------------------


def check_ids(url: str, limit: int | None = None) -> None:
    files = list_input(url, limit)
    check_unique_ids(files, inspect_columns(files, GENERATE).id_column, limit)


@pytest.mark.parametrize(
    "ids", [["a", "b", "c"], [1, 2, -1], [-1, -2, 0], [0, 2**63 - 1, -(2**63)]]
)
def test_unique_ids(tmp_path: Path, ids: list[Any]) -> None:
    check_ids(write(tmp_path / "a.parquet", {"id": ids, "prompt": ["p"] * 3}))


def test_duplicate_ids_are_named_with_file_and_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"id": ["x", "y", "z"], "prompt": ["p"] * 3})
    write(tmp_path / "b.parquet", {"id": ["u", "y"], "prompt": ["p"] * 2})
    with pytest.raises(
        DatasetError,
        match=r"1 occur more than once: 'y' \(row 1 of .*a\.parquet and row 1 of .*b\.parquet\)",
    ):
        check_ids(str(tmp_path))
    check_ids(str(tmp_path), limit=3)


def test_equal_hashes_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = write(tmp_path / "a.parquet", {"id": ["x", "y", "z"], "prompt": ["p"] * 3})
    monkeypatch.setattr("pipeline.input.unique_ids._hash", lambda value: 7)
    check_ids(url)
    with pytest.raises(DatasetError, match="'x'"):
        check_ids(write(tmp_path / "a.parquet", {"id": ["x", "y", "x"], "prompt": ["p"] * 3}))


def test_null_ids_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"null in row 1 of .*a\.parquet"):
        check_ids(write(tmp_path / "a.parquet", {"id": ["x", None], "prompt": ["p"] * 2}))


def test_unreadable_lines_have_no_id(tmp_path: Path) -> None:
    check_ids(
        write_jsonl(
            tmp_path / "a.jsonl", {"id": 1, "prompt": "p"}, b"{", b"}", {"id": 2, "prompt": "p"}
        )
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-5, 5) | st.integers(), min_size=1, max_size=30).filter(
        lambda ids: all(abs(i) < 2**63 for i in ids)
    )
)
def test_ids_are_refused_exactly_when_some_are_equal(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int]
) -> None:
    url = write(
        tmp_path_factory.getbasetemp() / "ids.parquet",
        {"id": pa.array(ids, pa.int64()), "prompt": ["p"] * len(ids)},
    )
    if len(set(ids)) == len(ids):
        check_ids(url)
    else:
        with pytest.raises(DatasetError, match="must be unique"):
            check_ids(url)
