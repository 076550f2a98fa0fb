"""The reader: rows of shards in order, with their address and passthrough columns."""

import datetime
import decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.messages import Completion, RowRef
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.reader import read_rows
from pipeline.input.shards import RowSample, plan_shards
from pipeline.records import PromptRow, Shard, ShardOpened, UnreadableShard
from pipeline.tasks import GENERATE, SCORE
from pipeline.templates.row_template import RowTemplate
from tests.pipeline.input.input_files import COLUMNS, read_all, write, write_jsonl


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
def test_rows_are_complete_for_any_groups_shards_and_partitions(
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
    schema = inspect_columns(files, COLUMNS)
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


def test_shard_with_only_reads_those_rows(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {"id": list(range(8)), "prompt": list("abcdefgh"), "x": list("ABCDEFGH")},
    )
    schema = inspect_columns(list_input(url), COLUMNS)
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


def test_invalid_utf8_in_choices_fails_that_row_alone(tmp_path: Path) -> None:
    words = pa.Array.from_buffers(pa.string(), 3, pa.array([b"A", b"\xff", b"C"]).buffers())
    choices = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), words)
    url = write(tmp_path / "a.parquet", {"prompt": ["p", "q", "r"], "choices": choices})
    rows, _, schema = read_all(url, InputColumns(SCORE))
    assert schema.has_choices
    assert [row.error_code if isinstance(row, Completion) else row.choices for row in rows] == [
        ["A"],
        "invalid_prompt",
        ["C"],
    ]


def test_rows_carry_their_sampling_columns(tmp_path: Path) -> None:
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


def test_ids_made_from_file_and_row_are_relative(tmp_path: Path) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    write(tmp_path / "data" / "a.parquet", {"prompt": ["x"]})
    write(tmp_path / "data" / "sub" / "a.parquet", {"prompt": ["y", "z"]})
    rows, passthrough, _ = read_all(str(tmp_path / "data"), shard_rows=1)
    assert passthrough["id"].to_pylist() == ["a.parquet#0", "sub/a.parquet#0", "sub/a.parquet#1"]
    assert [row.id for row in rows if isinstance(row, PromptRow)] == passthrough["id"].to_pylist()


@pytest.mark.s3
def test_rows_are_read_from_s3(s3_url: str, tmp_path: Path) -> None:
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


def test_unreadable_file_leaves_other_files_readable(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", {"prompt": ["x"]})
    schema = inspect_columns(list_input(good), COLUMNS)
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
        (b'{"id": "a", "prompt": "x", "count": "two"}', "a"),
        (b'{"id": "\\ud800", "prompt": "x"}', None),
        (b"not JSON", None),
    ],
)
def test_row_that_cannot_be_read_carries_its_id(
    tmp_path: Path, line: bytes, row_id: str | None
) -> None:
    url = write_jsonl(tmp_path / "a.jsonl", {"id": "first", "prompt": "x", "count": 1}, line)
    files = list_input(url)
    schema = inspect_columns(list_input(url, limit=1), COLUMNS)
    *_, row = read_rows(plan_shards(files, 9), schema)
    assert isinstance(row, Completion)
    assert row.error_code == "invalid_prompt"
    assert row.row_id == row_id


def test_template_gives_prompts_and_keep_prompt_writes_them(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {
            "id": ["a", "b", "c"],
            "prompt": ["p", "q", "r"],
            "count": [1, None, 3],
            "x y": ["é", "", "-"],
        },
    )
    template = RowTemplate('{{ count }}: {{ row["x y"] }}', "--template")
    columns = InputColumns(GENERATE, template=template, keep_prompt=True)
    rows, passthrough, schema = read_all(url, columns, shard_rows=2)

    assert [getattr(row, "prompt", None) for row in rows] == ["1: é", None, "3: -"]
    failed = rows[1]
    assert isinstance(failed, Completion)
    assert (failed.error_code, failed.row_id) == ("invalid_prompt", "b")
    assert failed.error_message == "--template: null, of the columns that it uses: count"
    assert passthrough.to_pydict() == {
        "id": ["a", "b", "c"],
        "prompt": ["1: é", None, "3: -"],
        "input_prompt": ["p", "q", "r"],
        "count": [1, None, 3],
        "x y": ["é", "", "-"],
    }
    assert "column 'prompt' of the input passes through as 'input_prompt'" in schema.notices


def test_template_refuses_missing_column_before_rows_are_read(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"id": ["a"], "question": ["p"]})
    for text in ("{{ quest }}", '{{ row["quest"] }}'):
        columns = InputColumns(GENERATE, template=RowTemplate(text, "--template"))
        with pytest.raises(ConfigError, match=r"no column 'quest'; did you mean 'question'\?"):
            read_all(url, columns)


def test_keep_prompt_passes_the_prompt_column_through(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"id": ["a"], "question": ["p"]})
    columns = InputColumns(GENERATE, prompt_column="question", keep_prompt=True)
    rows, passthrough, _ = read_all(url, columns)
    assert rows == [PromptRow(ref=RowRef(0, 0), id="a", prompt="p")]
    assert passthrough.to_pydict() == {"id": ["a"], "question": ["p"]}


def test_columns_of_an_output_pass_through_under_other_names(tmp_path: Path) -> None:
    values: dict[str, list[object]] = {
        "id": ["a"],
        "sample_index": [0],
        "status": ["ok"],
        "error_code": [None],
        "error_message": [None],
        "attempts": [1],
        "text": ["t"],
        "token_ids": [[5]],
        "subject": ["math"],
    }
    url = write(tmp_path / "part-00000.parquet", values)
    columns = InputColumns(GENERATE, prompt_column="text", keep_prompt=True)
    rows, passthrough, _ = read_all(url, columns)
    assert rows == [PromptRow(ref=RowRef(0, 0), id="a", prompt="t")]
    renamed = {f"input_{name}": value for name, value in values.items()}
    del renamed["input_id"], renamed["input_subject"]
    assert passthrough.to_pydict() == {"id": ["a"], "subject": ["math"], **renamed}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_sample_reads_the_sampled_rows_alone(tmp_path: Path, suffix: str) -> None:
    url = str(tmp_path / f"a.{suffix}")
    prompts = [f"p{row}" for row in range(50)]
    if suffix == "parquet":
        write(tmp_path / "a.parquet", {"prompt": prompts}, row_group_size=7)
    else:
        write_jsonl(tmp_path / "a.jsonl", *[{"prompt": prompt} for prompt in prompts[:-1]], b"{")
    files = list_input(url)
    schema = inspect_columns(files, COLUMNS)
    shards = plan_shards(files, 6, None, RowSample(48, 3))
    items = list(read_rows(shards, schema))
    passthrough = [item.passthrough["id"] for item in items if isinstance(item, ShardOpened)]
    ids = [row_id for column in passthrough for row_id in column.to_pylist()]

    sampled = RowSample(48, 3).positions(50)
    assert ids == [f"a.{suffix}#{row}" for row in sampled]
    rows = [item for item in items if isinstance(item, PromptRow | Completion)]
    assert [row.ref for row in rows] == [RowRef(at // 6, at % 6) for at in range(48)]
    for row, file_row in zip(rows, sampled, strict=True):
        if isinstance(row, PromptRow):
            assert (row.id, row.prompt) == (f"a.{suffix}#{file_row}", prompts[file_row])
        else:
            assert f"line {file_row + 1} of" in str(row.error_message)
