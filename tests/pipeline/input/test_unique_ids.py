"""Ids of the whole input: present and unique."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DatasetError
from pipeline.input.columns import inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.unique_ids import BLOCK_ROWS, MAX_NAMED, check_unique_ids
from tests.pipeline.input.input_files import COLUMNS, write, write_jsonl


def check_ids(url: str, limit: int | None = None) -> None:
    files = list_input(url, limit)
    check_unique_ids(files, inspect_columns(files, COLUMNS).id_column, limit)


@pytest.mark.parametrize(
    "ids", [["a", "b", "c"], [1, 2, -1], [-1, -2, 0], [0, 2**63 - 1, -(2**63)]]
)
def test_unique_ids_are_accepted(tmp_path: Path, ids: list[Any]) -> None:
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


def test_unique_ids_with_equal_hashes_are_no_duplicates(tmp_path: Path) -> None:
    unique = list_input(write(tmp_path / "a.parquet", {"id": ["x", "y", "z"]}))
    check_unique_ids(unique, "id", hash_of=lambda row_id: 7)
    repeated = list_input(write(tmp_path / "b.parquet", {"id": ["x", "y", "x"]}))
    with pytest.raises(DatasetError, match=r"'x' \(row 0 of .*b\.parquet and row 2"):
        check_unique_ids(repeated, "id", hash_of=lambda row_id: 7)


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
def test_ids_are_rejected_exactly_when_some_are_equal(
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


def test_unique_ids_of_many_blocks_name_duplicates_between_them(tmp_path: Path) -> None:
    ids = np.arange(BLOCK_ROWS + 3_000)
    url = write(tmp_path / "a.parquet", {"id": ids}, row_group_size=10_000)
    check_unique_ids(list_input(url), "id")
    ids[-1] = ids[7]
    url = write(tmp_path / "b.parquet", {"id": ids}, row_group_size=10_000)
    with pytest.raises(DatasetError, match=rf"7 \(row 7 of .* and row {len(ids) - 1} of "):
        check_unique_ids(list_input(url), "id")


def test_unique_ids_name_several_duplicates(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"id": ["x", "y", "x", "z", "y", "x"]})
    with pytest.raises(DatasetError) as caught:
        check_unique_ids(list_input(url), "id")
    message = str(caught.value)
    assert "but 2 occur more than once" in message
    for duplicate in ("'x' (row 0", "'y' (row 1", "and row 2", "and row 4", "and row 5"):
        assert duplicate in message


def test_unique_ids_name_a_few_of_many(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"id": ["x"] * 20})
    with pytest.raises(DatasetError) as caught:
        check_unique_ids(list_input(url), "id")
    assert str(caught.value).count(" and row ") == MAX_NAMED
    url = write(tmp_path / "b.parquet", {"id": pa.nulls(20, pa.string())})
    with pytest.raises(DatasetError) as caught:
        check_unique_ids(list_input(url), "id")
    assert str(caught.value).count("row ") == MAX_NAMED + 1  # "give every row an id"


def test_unique_ids_beyond_the_limit_are_not_checked(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"id": ["x", "y", "x", None]})
    files = list_input(url)
    check_unique_ids(files, "id", limit=2)
    for limit in (3, 4, None):
        with pytest.raises(DatasetError):
            check_unique_ids(files, "id", limit)


@pytest.mark.parametrize("bound", [2**63, 2**64 - 1])
def test_unique_ids_may_be_beyond_int64(tmp_path: Path, bound: int) -> None:
    ids = pa.array([bound, bound - 1, 0], pa.uint64())
    check_unique_ids(list_input(write(tmp_path / "a.parquet", {"id": ids})), "id")
