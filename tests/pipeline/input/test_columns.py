"""Columns of the input: their roles, and what is rejected before anything starts."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.protocol.messages import RowRef
from actors.protocol.parameters import ParameterError
from actors.protocol.sampling import read_parameters
from pipeline.errors import DatasetError
from pipeline.input.columns import InputColumns, input_root, inspect_columns, row_name
from pipeline.input.listing import list_input
from pipeline.records import InputFile, PromptRow
from pipeline.tasks import GENERATE, PERPLEXITY, SCORE, TASKS
from tests.pipeline.input.input_files import COLUMNS, read_all, write, write_jsonl


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
def test_prompt_accepts_every_text_type(tmp_path: Path, kind: pa.DataType) -> None:
    text = pa.array(["é", None, ""])
    prompts = text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)
    rows, _, _ = read_all(write(tmp_path / "a.parquet", {"prompt": prompts}))
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == ["é", None, ""]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.uint8())]
)
def test_token_ids_accept_every_integer_list(tmp_path: Path, kind: pa.DataType) -> None:
    ids = [[1, 2], None, [], [3, None], [4]]
    rows, _, schema = read_all(
        write(tmp_path / "a.parquet", {"prompt_token_ids": pa.array(ids, kind)}), shard_rows=2
    )
    found = [row.prompt_token_ids for row in rows if isinstance(row, PromptRow)]
    assert [None if each is None else list(each) for each in found] == ids
    assert not schema.has_text


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {"question": ["q"], "key": ["k"], "answer": ["a"], "prompt": ["passes"]},
    )
    rows, passthrough, _ = read_all(
        url, InputColumns(GENERATE, prompt_column="question", id_column="key")
    )
    assert rows == [PromptRow(RowRef(0, 0), "k", "q")]
    assert passthrough.to_pydict() == {"id": ["k"], "answer": ["a"], "prompt": ["passes"]}


def test_ids_of_two_types_are_rejected(tmp_path: Path) -> None:
    url = write_jsonl(tmp_path / "a.jsonl", {"prompt": "a", "id": 1}, {"prompt": "b", "id": "two"})
    with pytest.raises(DatasetError, match="column 'id' has values of several types"):
        read_all(url)


@pytest.mark.parametrize(
    ("task", "columns", "message"),
    [
        ("generate", {"text": ["x"]}, "no column 'prompt' or 'prompt_token_ids', found .*text"),
        ("generate", {"q": ["x"], "question": ["x"]}, r"; did you mean 'question'\?$"),
        ("generate", {"ID": [1], " Prompt": ["x"]}, r"; did you mean ' Prompt'\?$"),
        ("generate", {"messages": [["x"]]}, "--template makes prompts of chat messages"),
        ("generate", {"id;prompt": ["x"]}, "separated by semicolons, expected commas$"),
        ("generate", {"x": ["x"]}, "or add it to the input$"),
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
            {"prompt": ["x"], "id": pa.array([Decimal("1.5")], pa.decimal128(3, 1))},
            r"column 'id' is decimal128\(3, 1\), expected a string or an integer",
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
def test_columns_that_cannot_be_used_are_rejected(
    tmp_path: Path, task: str, columns: dict[str, Any], message: str
) -> None:
    files = list_input(write(tmp_path / "bad.parquet", columns))
    with pytest.raises(DatasetError, match=message) as caught:
        inspect_columns(files, InputColumns(TASKS[task]))
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
    (row,), _, schema = read_all(url, InputColumns(SCORE, continuation_column=column))
    value = getattr(row, field)
    assert value == values or list(value) == values
    assert schema.has_choices == field.startswith("choices")


def test_prompt_column_may_name_the_token_ids(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"prompt_token_ids": [[5, 6]]})
    (row,), _, schema = read_all(url, InputColumns(GENERATE, prompt_column="prompt_token_ids"))
    assert isinstance(row, PromptRow)
    assert list(row.prompt_token_ids) == [5, 6]  # type: ignore[call-overload]
    assert not schema.has_text


def test_columns_of_other_tasks_pass_through(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet", {"prompt": ["x"], "choices": [["a"]], "loglikelihood": [0.5]}
    )
    assert inspect_columns(list_input(url), COLUMNS).passthrough.names == [
        "id",
        "choices",
        "loglikelihood",
    ]
    url = write(tmp_path / "b.parquet", {"prompt": ["x"], "text": ["a"]})
    assert inspect_columns(list_input(url), InputColumns(PERPLEXITY)).passthrough.names == [
        "id",
        "text",
    ]


def test_text_that_continues_token_ids_is_rejected(tmp_path: Path) -> None:
    for continuation in ({"continuation": ["a"]}, {"choices": [["a", "b"]]}):
        url = write(tmp_path / "a.parquet", {"prompt_token_ids": [[5]], **continuation})
        with pytest.raises(DatasetError, match=r"both as text or both as token ids"):
            inspect_columns(list_input(url), InputColumns(SCORE))


@pytest.mark.parametrize(
    ("columns", "has_text", "has_choices"),
    [
        ({"prompt": ["x"], "continuation": ["a"]}, True, False),
        ({"prompt": ["x"], "continuation_token_ids": [[5]]}, True, False),
        ({"prompt": ["x"], "choices_token_ids": [[[5]]]}, True, True),
        ({"prompt_token_ids": [[5]], "continuation_token_ids": [[5]]}, False, False),
        ({"prompt_token_ids": [[5]], "choices_token_ids": [[[5]]]}, False, True),
    ],
)
def test_schema_has_flags_for_text_and_choices(
    tmp_path: Path, columns: dict[str, Any], has_text: bool, has_choices: bool
) -> None:
    schema = inspect_columns(
        list_input(write(tmp_path / "a.parquet", columns)), InputColumns(SCORE)
    )
    assert (schema.has_text, schema.has_choices) == (has_text, has_choices)
    assert schema.inputs == tuple(columns)


def test_columns_of_several_files_are_named_by_the_first_and_their_number(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.parquet", {"text": ["x"]})
    with pytest.raises(DatasetError, match=r"a\.parquet and 2 other files: no column 'prompt'"):
        inspect_columns(list_input(str(tmp_path)), COLUMNS)


def test_id_column_must_be_one_that_identifies_rows(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"prompt": ["x"], "key": [0.5], "id": [7]})
    with pytest.raises(DatasetError, match="'key' is double"):
        inspect_columns(list_input(url), InputColumns(GENERATE, id_column="key"))
    with pytest.raises(DatasetError, match=r"no column 'none', found .*--id-column"):
        inspect_columns(list_input(url), InputColumns(GENERATE, id_column="none"))


def test_column_id_beside_the_id_column_passes_through(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"id": ["x", "x"], "uid": ["a", "b"], "prompt": ["p", "q"]})
    columns = InputColumns(GENERATE, id_column="uid")
    rows, passthrough, schema = read_all(url, columns)
    assert [row.id for row in rows if isinstance(row, PromptRow)] == ["a", "b"]
    assert passthrough.to_pydict() == {"id": ["a", "b"], "input_id": ["x", "x"]}
    assert "column 'id' of the input passes through as 'input_id'" in schema.notices

    url = write(
        tmp_path / "b.parquet", {"id": ["x"], "uid": ["a"], "prompt": ["p"], "input_id": [1]}
    )
    with pytest.raises(DatasetError, match="'id' would pass through"):
        inspect_columns(list_input(url), columns)


@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        (pa.float64(), [8, None, 8.5]),
        (pa.decimal128(6, 2), [8, None, 8.5]),
        (pa.uint64(), [8, None, 2**64 - 1]),
    ],
)
@pytest.mark.parametrize("name", ["max_tokens", "n", "seed", "top_k", "min_tokens"])
def test_integer_parameters_may_be_any_number(
    tmp_path: Path, name: str, data_type: Any, expected: list[Any]
) -> None:
    numbers: list[Any] = expected
    if pa.types.is_decimal(data_type):
        numbers = [Decimal(8), None, Decimal("8.5")]
    values = pa.array(numbers, data_type)
    url = write(tmp_path / "a.parquet", {"prompt": ["p", "q", "r"], name: values})
    rows, _, _ = read_all(url)
    prompts = [row for row in rows if isinstance(row, PromptRow)]
    assert [row.parameters.get(name) for row in prompts] == expected
    assert read_parameters(prompts[0].parameters) == {name: 8}
    with pytest.raises(ParameterError, match=f"{name}: expected .*, got {expected[2]}"):
        read_parameters(prompts[2].parameters)


def test_decimal_ids_are_integers_and_pass_through_unchanged(tmp_path: Path) -> None:
    ids = pa.array([Decimal(10**30), Decimal(2)], pa.decimal128(38, 0))
    temperatures = pa.array([Decimal("0.50"), None], pa.decimal128(3, 2))
    columns = {"id": ids, "prompt": ["p", "q"], "temperature": temperatures}
    rows, passthrough, _ = read_all(write(tmp_path / "a.parquet", columns))
    prompts = [row for row in rows if isinstance(row, PromptRow)]
    assert [row.id for row in prompts] == [10**30, 2]
    assert [dict(row.parameters) for row in prompts] == [{"temperature": 0.5}, {}]
    assert passthrough["id"].to_pylist() == ids.to_pylist()


def test_columns_that_set_parameters_are_announced(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"prompt": ["x"], "n": [3], "seed": [1], "m": [2]})
    [notice] = inspect_columns(list_input(url), COLUMNS).notices
    assert ": seed, n. They do not pass through" in notice


@pytest.mark.parametrize(
    ("urls", "root"),
    [
        (["/data/a.parquet"], "/data"),
        (["/data/a.parquet", "/data/b/a.parquet"], "/data"),
        (["/data/x/a.parquet", "/data/y/a.parquet"], "/data"),
        (["s3://bucket/x/a.parquet", "s3://bucket/y/a.parquet"], "s3://bucket"),
        (["s3://bucket/in/a.parquet"], "s3://bucket/in"),
    ],
)
def test_input_root_is_the_common_folder(urls: list[str], root: str) -> None:
    assert input_root([InputFile(url, 1, "", 1) for url in urls]) == root


def test_row_names_omit_credentials() -> None:
    assert row_name("/data", "/data/sub/a.parquet", 3) == "sub/a.parquet#3"
    name = row_name("https://host", "https://host/a.parquet?X-Amz-Signature=secret", 0)
    assert "secret" not in name


def test_table_of_five_thousand_columns_keeps_their_order(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(5000)]
    url = write(tmp_path / "a.parquet", {"prompt": ["x"], **{name: [1] for name in names}})
    schema = inspect_columns(list_input(url), COLUMNS)
    assert schema.passthrough.names == ["id", *names]
