from pathlib import Path

import pyarrow as pa
import pytest

from actors.protocol.messages import Completion
from pipeline.errors import DatasetError
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.input.file_columns import FileColumns
from pipeline.input.listing import list_input
from pipeline.input.partitions import partitions, with_folder_columns
from pipeline.input.unique_ids import check_unique_ids
from pipeline.records import InputFile, PartitionValue, PromptRow
from pipeline.tasks import GENERATE
from tests.pipeline.input.input_files import read_all, write, write_jsonl


@pytest.mark.parametrize(
    ("paths", "columns"),
    [
        (["year=2024/a", "year=-7/b"], [{"year": 2024}, {"year": -7}]),
        (["year=2024/a", "year=007/b"], [{"year": "2024"}, {"year": "007"}]),
        (["n=9223372036854775808/a"], [{"n": "9223372036854775808"}]),
        (["s=a%2Fb%3D/x=1/f"], [{"s": "a/b=", "x": 1}]),
        (["s=a=b/f", "f"], [{"s": "a=b"}, {"s": None}]),
        (["s=__HIVE_DEFAULT_PARTITION__/f", "s=/g"], [{"s": None}, {"s": ""}]),
        (["plain/=x/a=b.parquet"], [{}]),
        (["temperature=0.5/f", "temperature=1/g"], [{"temperature": 0.5}, {"temperature": 1}]),
        (["temperature=x/f", "temperature=1/g"], [{"temperature": "x"}, {"temperature": "1"}]),
        (["max_tokens=8.0/f", "f"], [{"max_tokens": 8.0}, {"max_tokens": None}]),
        (["ignore_eos=true/f"], [{"ignore_eos": True}]),
        (["ignore_eos=1.5/f"], [{"ignore_eos": "1.5"}]),
        (
            ["stop=0.5/f", "score=0.5/g"],
            [{"stop": "0.5", "score": None}, {"stop": None, "score": "0.5"}],
        ),
        ([], []),
    ],
)
def test_names_of_folders_give_columns(
    paths: list[str], columns: list[dict[str, PartitionValue]]
) -> None:
    assert [dict(partition) for partition in partitions(paths)] == columns


def test_column_in_two_folders_of_a_path_is_rejected() -> None:
    with pytest.raises(DatasetError, match="two folders that give a column 'a'"):
        partitions(["a=1/a=2/f"])


def test_columns_of_files_come_before_those_of_folders() -> None:
    files = [InputFile("f", 1, "", 1, partition=(("x", 1), ("y", "b")))]
    own = FileColumns({"y": {pa.int32(): "f"}, "z": {pa.int32(): "f"}})
    columns = with_folder_columns(own, files)
    assert columns.types == {**own.types, "x": {pa.int64(): "f"}}
    assert columns.from_folders == ("x",)
    (notice,) = columns.notices
    assert notice.endswith("folders have: y. The values of the files are used")


@pytest.mark.parametrize("name", ["p.parquet", "p.jsonl"])
def test_rows_have_the_columns_of_their_folders(tmp_path: Path, name: str) -> None:
    for number, subject in enumerate(["math", "law"]):
        folder = tmp_path / "in" / f"subject={subject}" / f"max_tokens={number + 4}"
        folder.mkdir(parents=True)
        if name.endswith("jsonl"):
            write_jsonl(folder / name, {"id": f"i{number}", "prompt": "x"})
        else:
            write(folder / name, {"id": [f"i{number}"], "prompt": ["x"]})
    rows, passthrough, schema = read_all(str(tmp_path / "in"))
    assert passthrough.to_pydict() == {"id": ["i1", "i0"], "subject": ["law", "math"]}
    assert schema.passthrough.field("subject").metadata is None
    assert schema.parameters == ("max_tokens",)
    assert not any(isinstance(row, Completion) for row in rows)
    parameters = [row.parameters for row in rows if isinstance(row, PromptRow)]
    assert parameters == [{"max_tokens": 5}, {"max_tokens": 4}]


def test_glob_over_folders_gives_their_columns(tmp_path: Path) -> None:
    for subject in ("math", "law"):
        (tmp_path / f"subject={subject}").mkdir()
        write(tmp_path / f"subject={subject}" / "p.parquet", {"prompt": [subject]})
    for pattern in ("subject=*", "subject=*/p.parquet", "*"):
        _, passthrough, _ = read_all(str(tmp_path / pattern))
        assert passthrough["subject"].to_pylist() == ["law", "math"]


def test_folders_do_not_give_the_id(tmp_path: Path) -> None:
    (tmp_path / "in" / "id=7").mkdir(parents=True)
    write(tmp_path / "in" / "id=7" / "p.parquet", {"prompt": ["x"]})
    files = list_input(str(tmp_path / "in"))
    with pytest.raises(DatasetError, match="'id' is the name of a folder"):
        inspect_columns(files, InputColumns(GENERATE))


def test_ids_are_checked_over_all_folders(tmp_path: Path) -> None:
    for subject in ("math", "law"):
        (tmp_path / f"subject={subject}").mkdir()
        write(tmp_path / f"subject={subject}" / "p.parquet", {"id": ["a"], "prompt": ["x"]})
    files = list_input(str(tmp_path))
    with pytest.raises(DatasetError, match=r"'a' \(row 0 of .*law.* and row 0 of .*math"):
        check_unique_ids(files, "id")
