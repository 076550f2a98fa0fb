import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from jobs.inspection.verification import (
    SampledRows,
    environment_text,
    values_equal,
    vectors_equal,
    verification_config,
)
from pipeline.input.shards import RowSample, plan_shards
from pipeline.output.run_folder import RunFolder
from pipeline.records import InputFile


def test_sampled_rows_are_those_of_committed_shards() -> None:
    shards = plan_shards([InputFile("a", 1, "v", 10), InputFile("b", 1, "v", 7)], 4)
    committed = frozenset({0, 2, 3, 4})  # all but the rows 4 to 7 of the first file
    rows = [(shard.number, shard.file_row(row)) for shard in shards for row in range(shard.rows)]
    present = [row for row in rows if row[0] in committed]

    sampled = SampledRows(0.5, 3, committed).select_shards(shards)
    chosen = [(shard.number, shard.file_row(row)) for shard in sampled for row in range(shard.rows)]
    assert chosen == [present[position] for position in RowSample(7, 3).positions(13)]
    assert SampledRows(0.001, 0, committed).select_shards(shards)[0].rows == 1


def test_sampled_rows_may_be_of_a_sample() -> None:
    shards = plan_shards([InputFile("a", 1, "v", 100)], 5, None, RowSample(20, 1))
    everything = SampledRows(1.0, 0, frozenset(range(4))).select_shards(shards)
    assert [list(shard.ranges()) for shard in everything] == [
        list(shard.ranges()) for shard in shards
    ]


@pytest.mark.parametrize(
    ("value", "expected", "is_equal"),
    [
        (1.0, 1.05, True),
        (1.0, 1.2, False),
        (-100.0, -109.0, True),
        (float("-inf"), float("-inf"), True),
        (float("nan"), float("nan"), True),
        (None, 0.0, False),
        ("a", "a", True),
        (array("f", [0.5, 1.0]), [0.5, 1.0], True),
        ([0.5], [0.5, 1.0], False),
        ([[None, 1.0]], [[None, 1.05]], True),
        ({"a": [1.0]}, {"a": [1.05]}, True),
        ({"a": 1}, {"b": 1}, False),
        (3, 4, False),
    ],
)
def test_values_are_equal_within_a_tolerance(
    value: object, expected: object, is_equal: bool
) -> None:
    assert values_equal(value, expected, 0.1) is is_equal


def test_environment_is_one_line() -> None:
    versions = '{"jax": "0.10.2", "numpy": "2.4.6"}'
    environment = {"device_kind": "cpu", "mesh": "1x1", "dtype": "float32", "versions": versions}
    assert environment_text(environment) == "cpu, 1x1, float32, jax 0.10.2, numpy 2.4.6"
    assert environment_text({}) == "not recorded"


def test_rows_that_a_run_copied_are_computed_again(tmp_path: Path) -> None:
    config = {"input": "in", "model": "demo", "task": "generate", "reuse": ["older"]}
    run_json = {"config": config, "fingerprint_keys": {}}
    (tmp_path / "run.json").write_text(json.dumps(run_json))
    assert verification_config(RunFolder(str(tmp_path)), "computed", {}).reuse == ()


@pytest.mark.parametrize(
    ("value", "expected", "is_equal"),
    [
        ([0.01, 0.02], [0.01, 0.02], True),
        ([0.01, 0.02], [0.01, 0.03], False),  # small numbers, a large part of the vector
        ([100.0, 0.0], [100.0, 0.5], True),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0], [0.0, 0.0], False),
        (None, [1.0], False),
        (None, None, True),
    ],
)
def test_vectors_are_compared_by_the_length_of_their_difference(
    value: Any, expected: Any, is_equal: bool
) -> None:
    assert vectors_equal(value, expected, 0.05) is is_equal
