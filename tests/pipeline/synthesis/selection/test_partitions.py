from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.partitions import (
    MAX_VALUE_BYTES,
    Partitions,
    check_partitions,
    segment,
)
from tests.pipeline.synthesis.sample_tables import KEPT, samples


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("x", pa.float64(), "expected a column of strings, integers or booleans, got double"),
        ("x", pa.list_(pa.string()), "got list<item: string>"),
        ("a b", pa.string(), "a folder's name holds letters, digits and _ only"),
        ("y", pa.string(), "the data set has no column 'x'; it has y"),
    ],
)
def test_check_partitions_refuses_columns_without_folder_names(
    name: str, kind: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        check_partitions(["x" if name == "y" else name], pa.schema([pa.field(name, kind)]))
    assert message in str(raised.value)
    check_partitions(["id", "a", "topic"], KEPT)


def test_partitions_reject_values_without_folder_name() -> None:
    judged = Partitions(("topic", "a"))(
        samples([{"topic": "ok"}, {"topic": ""}, {"topic": "ü" * 40}, {"topic": None, "a": None}])
    )
    assert [
        None if each is None else (each.stage, each.reason, each.detail) for each in judged.verdicts
    ] == [
        None,
        ("partition", "no folder name: topic", "empty"),
        ("partition", "no folder name: topic", "too long"),
        None,
    ]


def test_segment_is_the_value_in_a_path() -> None:
    assert [segment(value) for value in (True, False, None, 7, "a b")] == [
        "true",
        "false",
        "__HIVE_DEFAULT_PARTITION__",
        "7",
        "a%20b",
    ]


def test_partitions_accept_values_up_to_the_longest() -> None:
    rows = samples([{"topic": "x" * MAX_VALUE_BYTES}, {"topic": "x" * (MAX_VALUE_BYTES + 1)}])
    assert Partitions(("topic",))(rows).passed.tolist() == [True, False]
