import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DatasetError
from pipeline.synthesis.prompts import shots
from pipeline.synthesis.prompts.random_choice import distinct_indices, row_random, weighted_index
from pipeline.synthesis.prompts.shots import Shots, read_shots


@settings(deadline=None)
@given(st.integers(1, 50), st.data())
def test_indices_are_distinct_and_in_range(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, size))
    chosen = distinct_indices(size, count, random.Random(data.draw(st.integers())))
    assert len(set(chosen)) == count
    assert set(chosen) <= set(range(size))


def test_every_order_is_as_likely() -> None:
    draw = random.Random(1)
    found = Counter(tuple(distinct_indices(3, 2, draw)) for _ in range(6000))
    assert len(found) == 6
    assert max(found.values()) - min(found.values()) < 200


def test_templates_are_chosen_as_often_as_their_weights_say() -> None:
    found = Counter(
        weighted_index([1, 2, 0.5], row_random(0, row, "template")) for row in range(7000)
    )
    assert [round(found[index] / 1000) for index in range(3)] == [2, 4, 1]


def test_a_draw_depends_on_seed_id_its_type_and_purpose_and_on_nothing_else() -> None:
    def first(*address: object) -> float:
        return row_random(*address).random()  # type: ignore[arg-type]

    assert first(0, "7", "shots") == first(0, "7", "shots")
    assert (
        len(
            {
                first(0, "7", "shots"),
                first(1, "7", "shots"),
                first(0, 7, "shots"),
                first(0, "7", "template"),
            }
        )
        == 4
    )
    # pinned: a data set is made again after years
    assert first(0, "r1", "shots") == 0.26038576990009776


EXAMPLES = [{"id": f"r{n}", "q": f"{n} + {n}", "a": 2 * n} for n in range(6)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shots.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in EXAMPLES))
    return path


@settings(deadline=None)
@given(row=st.sampled_from([*range(6), 100]), per_row=st.integers(1, 5), seed=st.integers())
def test_examples_are_distinct_drawn_by_the_row_and_never_the_row_itself(
    row: int, per_row: int, seed: int
) -> None:
    positions = {each["id"]: place for place, each in enumerate(EXAMPLES)}
    drawn = Shots(tuple(EXAMPLES), per_row, "id", positions).draw(seed, f"r{row}")
    names = [str(each["id"]) for each in drawn]
    assert len(set(names)) == per_row
    assert f"r{row}" not in names


def test_examples_of_parquet_and_json_lines_are_the_same(file: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(EXAMPLES), tmp_path / "shots.parquet")
    one, other = read_shots(str(file), 3), read_shots(str(tmp_path / "shots.parquet"), 3)
    assert one.rows == other.rows == tuple(EXAMPLES)
    assert one.digest == other.digest != Shots(tuple(EXAMPLES[:-1])).digest
    assert one.draw(0, "x") == other.draw(0, "x")
    assert one.draw(0, "x") != one.draw(0, "y")


def test_too_few_or_too_many_examples_are_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError,
        match=r"--shots-per-row: expected at most the 5 of .* beside the row itself, got 6",
    ):
        read_shots(str(file), 6)
    monkeypatch.setattr(shots, "MAX_SHOTS", 5)
    with pytest.raises(DatasetError, match="expected at most 5 examples, got 6"):
        read_shots(str(file), 1)


def test_an_example_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"q": 1}\nnot json\n')
    with pytest.raises(DatasetError, match=r"row 1 of .*line 2 of .* is not JSON"):
        read_shots(str(tmp_path / "s.jsonl"), 1)
