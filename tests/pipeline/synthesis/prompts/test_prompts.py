import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DatasetError
from pipeline.input.shards import list_input, plan_shards
from pipeline.records import Shard
from pipeline.synthesis.prompts.builder import PromptBuilder, Prompts
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.seed_rows import SeedSchema, inspect_seeds, read_seeds
from pipeline.synthesis.prompts.shots import Shots
from pipeline.synthesis.prompts.templates import PromptTemplate, TemplateSpec

SUM, STORY = (
    TemplateSpec("sum", "{{ a }} + {{ b }} ="),
    TemplateSpec("story", "{{ name }} has {{ a }}.", 2),
)


def built(
    path: Path, *specs: TemplateSpec, shard_rows: int = 4, keep: tuple[str, ...] = (), seed: int = 0
) -> list[Prompts]:
    files = list_input(str(path))
    schema = inspect_seeds(files, "id", keep)
    builder = PromptBuilder([PromptTemplate(spec) for spec in specs], Shots(), seed, schema)
    return [builder.build(block) for block in read_seeds(plan_shards(files, shard_rows), schema)]


def rows(prompts: list[Prompts], kind: str = "requests") -> list[dict[str, Any]]:
    return [row for each in prompts for row in getattr(each, kind).to_pylist()]


def seeds(path: Path, count: int = 10) -> Path:
    names = ["Ana", None, "Ben"]
    table = {
        "id": [f"s{n}" for n in range(count)], "a": list(range(count)), "b": [1] * count,
        "name": pa.array([names[n % 3] for n in range(count)]).dictionary_encode(), "n": [2] * count,
    }  # fmt: skip
    pq.write_table(pa.table(table), path)
    return path


def test_every_row_is_a_request_or_a_rejection_in_order(tmp_path: Path) -> None:
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


def test_a_rows_template_depends_on_its_id_and_the_seed_alone(tmp_path: Path) -> None:
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


def test_columns_that_are_not_kept_can_be_used_and_do_not_pass_through(tmp_path: Path) -> None:
    made = built(seeds(tmp_path / "s.parquet", 1), STORY, keep=("b",))
    assert rows(made) == [
        {"id": "s0", "row": {"b": 1}, "template": "story", "prompt": "Ana has 0."}
    ]


def test_rows_without_ids_are_named_by_file_and_row(tmp_path: Path) -> None:
    for number in range(2):
        pq.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), tmp_path / f"f{number}.parquet")
    assert [row["id"] for row in rows(built(tmp_path, SUM))] == [
        f"f{file}.parquet#{row}" for file in (0, 1) for row in (0, 1)
    ]


def test_a_row_that_cannot_be_read_is_rejected_and_its_bytes_are_not_passed_on(
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
def test_a_column_with_a_name_that_is_taken_is_refused_unless_it_stays_behind(
    name: str, tmp_path: Path
) -> None:
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
def test_a_column_may_have_a_name_that_only_the_run_uses(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2], name: ["x"]}), tmp_path / "s.parquet")
    assert rows(built(tmp_path / "s.parquet", SUM))[0]["row"] == {"a": 1, "b": 2, name: "x"}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = seeds(tmp_path / "s.parquet")
    with pytest.raises(
        ConfigError, match="--keep: the seeds have no column 'z'; they have a, b, name, n"
    ):
        inspect_seeds(list_input(str(path)), "id", ("z",))
    pq.write_table(pa.table({"temperature": ["hot"]}), tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match="column 'temperature' is string, expected a number"):
        inspect_seeds(list_input(str(tmp_path / "t.parquet")), "id")
    pq.write_table(pa.table({"id": [0.5]}), tmp_path / "u.parquet")
    with pytest.raises(DatasetError, match="column 'id' is double"):
        inspect_seeds(list_input(str(tmp_path / "u.parquet")), "id")


def test_sampling_columns_go_with_the_request_and_not_to_the_data_set(tmp_path: Path) -> None:
    schema: SeedSchema = inspect_seeds(list_input(str(seeds(tmp_path / "s.parquet"))), "id")
    assert schema.kept.names == ["a", "b", "name", "n"]
    assert schema.passed_on.names == ["id", "a", "b", "name"]


# -- the folder -----------------------------------------------------------------------------------------------------------------


def write(folder: PromptsFolder, path: Path, *, only: int | None = None) -> tuple[Shard, ...]:
    shards = plan_shards(list_input(str(path)), 4)
    made = built(path, STORY)
    count = len(shards) if only is None else only
    folder.write(shards[:count], shards, iter(made[:count]), "mark", lambda _: None)
    return shards


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path)
    parts = folder.parts()
    assert [(part.number, part.file.rows, part.rejected_rows) for part in parts] == [
        (0, 3, 1),
        (1, 2, 2),
        (2, 2, 0),
    ]
    assert [row["id"] for row in folder.rejected(parts[1]).to_pylist()] == ["s4", "s7"]
    assert sorted(name.name for name in (tmp_path / "out" / "rejected").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_prompts_that_are_not_complete_are_not_read(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path, only=2)
    with pytest.raises(DatasetError, match="holds no complete prompts"):
        folder.parts()
    write(folder, path)  # the parts that are there are found as they would be
    assert len(folder.parts()) == 3


def test_rejected_rows_written_before_a_kill_are_written_once(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path)
    part = tmp_path / "out" / "data" / "part-00001.parquet"
    before = {
        file: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in (tmp_path / "out").rglob("part-*")
        if file != part
    }
    part.unlink()
    write(folder, path)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before
    assert len(folder.parts()) == 3


def test_other_prompts_are_not_put_into_the_same_folder(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path)
    other = pa.Table.from_pylist(
        [json.loads(json.dumps(row)) | {"a": 99} for row in pq.read_table(path).to_pylist()]
    )
    pq.write_table(other, tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="is there and holds other prompts"):
        write(folder, tmp_path / "t.parquet")
