import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DatasetError
from pipeline.synthesis.prompts.shots import Shots, read_shots

EXAMPLES = [{"id": f"r{n}", "q": f"{n} + {n}", "a": 2 * n} for n in range(6)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shots.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in EXAMPLES))
    return path


@settings(deadline=None)
@given(row=st.sampled_from([*range(6), 100]), per_row=st.integers(1, 5), seed=st.integers())
def test_shots_of_a_row_are_distinct_and_exclude_the_row(row: int, per_row: int, seed: int) -> None:
    positions = {each["id"]: place for place, each in enumerate(EXAMPLES)}
    drawn = Shots(tuple(EXAMPLES), per_row, "id", positions).draw(seed, f"r{row}")
    names = [str(each["id"]) for each in drawn]
    assert len(set(names)) == per_row
    assert f"r{row}" not in names


def test_read_shots_returns_same_examples_from_parquet_and_jsonl(
    file: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.Table.from_pylist(EXAMPLES), tmp_path / "shots.parquet")
    one, other = read_shots(str(file), 3), read_shots(str(tmp_path / "shots.parquet"), 3)
    assert one.rows == other.rows == tuple(EXAMPLES)
    assert one.digest == other.digest != Shots(tuple(EXAMPLES[:-1])).digest
    assert one.draw(0, "x") == other.draw(0, "x")
    assert one.draw(0, "x") != one.draw(0, "y")


def test_read_shots_refuses_too_few_or_too_many_examples(
    file: Path,
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"--shots-per-row: expected at most the 5 of .* beside the row itself, got 6",
    ):
        read_shots(str(file), 6)
    with pytest.raises(DatasetError, match="expected at most 5 examples, got 6"):
        read_shots(str(file), 1, max_shots=5)


def test_read_shots_names_an_unreadable_example(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"q": 1}\nnot json\n')
    with pytest.raises(DatasetError, match=r"row 1 of .*line 2 of .* is not JSON"):
        read_shots(str(tmp_path / "s.jsonl"), 1)


def test_digest_does_not_depend_on_the_order_of_columns() -> None:
    shots = Shots(({"q": "1 + 1", "a": 2},))
    assert shots.digest == Shots(({"a": 2, "q": "1 + 1"},)).digest
    # pinned: the digest is part of the fingerprint of prompts
    assert shots.digest == hashlib.sha256(b'[{"a": 2, "q": "1 + 1"}]').hexdigest()
    assert Shots().digest is None


def test_read_shots_has_the_columns_of_folders(tmp_path: Path) -> None:
    for topic in ("law", "sums"):
        (tmp_path / f"topic={topic}").mkdir()
        (tmp_path / f"topic={topic}" / "s.csv").write_text("question\nwhy?\n")
    shots = read_shots(str(tmp_path), 1)
    assert [dict(row) for row in shots.rows] == [
        {"question": "why?", "topic": "law"},
        {"question": "why?", "topic": "sums"},
    ]
