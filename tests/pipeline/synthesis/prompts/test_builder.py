import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.synthesis.prompts.templates import TemplateSpec
from tests.pipeline.synthesis.built_prompts import STORY, SUM, built, rows, seeds


def test_builder_returns_request_or_rejection_of_every_row_in_order(tmp_path: Path) -> None:
    made = built(seeds(tmp_path / "s.parquet"), STORY)
    good, bad = rows(made), rows(made, "rejected")
    assert [row["id"] for row in good] == ["s0", "s2", "s3", "s5", "s6", "s8", "s9"]
    row = {"a": 0, "b": 1, "name": "Ana"}
    assert good[0] == {"id": "s0", "n": 2, "row": row, "template": "story", "prompt": "Ana has 0."}
    assert [row["id"] for row in bad] == ["s1", "s4", "s7"]
    assert {(row["stage"], row["reason"], row["template"]) for row in bad} == {
        ("template", "null_value", "story")
    }
    assert made[0].requests.schema.field("row").type.field("name").type == pa.string()


def test_builder_chooses_template_by_row_id_and_seed_alone(tmp_path: Path) -> None:
    path = seeds(tmp_path / "s.parquet", 60)
    one, other = rows(built(path, SUM, STORY)), rows(built(path, SUM, STORY, shard_rows=7))
    assert one == other
    chosen = {row["id"]: row["template"] for row in one}
    assert set(chosen.values()) == {"sum", "story"}
    pq.write_table(pq.read_table(path).slice(30), tmp_path / "half.parquet")
    assert all(
        chosen[row["id"]] == row["template"]
        for row in rows(built(tmp_path / "half.parquet", SUM, STORY))
    )
    assert chosen != {row["id"]: row["template"] for row in rows(built(path, SUM, STORY, seed=1))}


def test_builder_renders_columns_that_do_not_pass_through(tmp_path: Path) -> None:
    made = built(seeds(tmp_path / "s.parquet", 1), STORY, keep=("b",))
    assert rows(made) == [
        {"id": "s0", "row": {"b": 1}, "template": "story", "prompt": "Ana has 0."}
    ]


def test_builder_names_rows_without_ids_by_file_and_row(tmp_path: Path) -> None:
    for number in range(2):
        pq.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), tmp_path / f"f{number}.parquet")
    assert [row["id"] for row in rows(built(tmp_path, SUM))] == [
        f"f{file}.parquet#{row}" for file in (0, 1) for row in (0, 1)
    ]


def test_builder_rejects_unreadable_row_without_its_bytes(
    tmp_path: Path,
) -> None:
    # Parquet of other writers holds such strings
    bad = pa.array([b"\xff\xfe", b"ok"]).view(pa.string())
    pq.write_table(
        pa.table({"id": [1, 2], "a": [1, 2], "b": [1, 2], "text": bad}), tmp_path / "s.parquet"
    )
    made = built(tmp_path / "s.parquet", SUM)
    assert [row["id"] for row in rows(made)] == [2]
    (row,) = rows(made, "rejected")
    assert (row["id"], row["reason"], row["text"], row["a"]) == (1, "unreadable_row", None, None)
    assert "column 'text' is not valid UTF-8" in row["detail"]
    assert row["detail"].startswith("s.parquet#0: ")
    (tmp_path / "s.jsonl").write_text('{"id": 1, "a": 1, "b": 2}\nnonsense\n')
    made = built(tmp_path / "s.jsonl", SUM)
    (row,) = rows(made, "rejected")
    assert (row["id"], row["reason"]) == (None, "unreadable_row")
    assert row["detail"].startswith("s.jsonl#1: line 2 of s.jsonl is not JSON: "), (
        "names no folder: rejected rows are published"
    )


@pytest.mark.parametrize("name", ["completion", "prompt", "template", "stage", "sample_index"])
def test_builder_refuses_reserved_column_names_unless_not_kept(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2], name: ["x"]}), tmp_path / "s.parquet")
    with pytest.raises(DatasetError, match=f"column '{name}' would pass through"):
        built(tmp_path / "s.parquet", SUM)
    assert (
        rows(built(tmp_path / "s.parquet", TemplateSpec("t", f"{{{{ {name} }}}}"), keep=("a",)))[0][
            "prompt"
        ]
        == "x"
    )


@pytest.mark.parametrize(
    "name", ["text", "status", "prompt_token_ids", "choices", "error_code", "row", "shots"]
)
def test_builder_accepts_column_names_of_the_run(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2], name: ["x"]}), tmp_path / "s.parquet")
    assert rows(built(tmp_path / "s.parquet", SUM))[0]["row"] == {"a": 1, "b": 2, name: "x"}


def test_builder_chooses_pinned_templates(tmp_path: Path) -> None:
    """Pinned: prompts of another release must be the same."""
    requests = rows(built(seeds(tmp_path / "s.parquet", 12), SUM, STORY))
    assert [row["id"] for row in requests if row["template"] == "sum"] == ["s1", "s5"]


def test_builder_names_fault_by_row_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    lines = [json.dumps({"a": row, "b": 1}) for row in range(9)]
    path.write_text("\n".join([*lines, "not json"]) + "\n")
    (row,) = rows(built(path, SUM, shard_rows=4), "rejected")
    assert row["detail"].startswith("s.jsonl#9: line 10 of s.jsonl is not JSON")
