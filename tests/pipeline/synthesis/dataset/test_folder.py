import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.synthesis.dataset.card import CardTexts
from pipeline.synthesis.dataset.files import GroupSize
from pipeline.synthesis.dataset.folder import DatasetFolder, Layout
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Selection
from tests.memory_s3 import MemoryS3, serve
from tests.pipeline.synthesis.written_run import WrittenRun, run_on_storage, seeds, write_prompts

TEXTS = CardTexts(
    "Ours", "cc0-1.0", (("model", "demo"),), (("n", 2),), (TemplateSpec("t", "{{ a }}"),), (), ()
)


RULES = SelectionRules(dedup_memory_mb=1)


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    made = WrittenRun(
        str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet"))
    )
    made.commit(range(len(made.shards)))
    return made


def write(
    run: WrittenRun,
    url: Path | str,
    rules: SelectionRules = RULES,
    by: tuple[str, ...] = (),
    group_rows: int = 10_000,
) -> dict[str, Any]:
    completions = run.completions()
    selection = Selection(rules, completions.kept, logprobs=True, partition_by=by)
    return DatasetFolder(str(url)).write(
        completions,
        selection,
        Layout(10**9, by, GroupSize(rows=group_rows)),
        replace(TEXTS, partition_by=by),
        None,
    )


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_dataset_has_all_files_and_consistent_counts(run: WrittenRun, tmp_path: Path) -> None:
    report = write(run, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == [
        "README.md",
        "_SUCCESS",
        "data/train-00000.parquet",
        "rejected/rejected-00000.parquet",
        "sources.json",
        "statistics.json",
    ]
    accepted, rejected = (pq.read_table(tmp_path / "out" / name) for name in ("data", "rejected"))
    assert accepted.num_rows == report["accepted"]
    assert pc.sum(rejected["samples"]).as_py() == report["rejected"] + report["failed"]
    assert report["samples"] == report["accepted"] + report["rejected"] + report["failed"] == 2 * 20
    assert json.loads((tmp_path / "out" / "statistics.json").read_text()) == json.loads(
        json.dumps(report, default=str)
    )
    assert sum(each["rows"] for each in report["files"]) == accepted.num_rows + rejected.num_rows


def test_dataset_has_same_bytes_after_kill_at_any_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules, by, store = SelectionRules(dedup_memory_mb=1, target_rows=20), ("a",), MemoryS3()
    root = serve(store, monkeypatch)
    run = run_on_storage(root)
    run.commit(range(len(run.shards)))
    write(run, f"{root}/whole", rules, by, group_rows=4)
    expected = below(store, "bucket/run/whole/")
    for last in range(len(expected)):
        puts = [last]

        def dying(operation: str, when: str, puts: list[int] = puts) -> None:
            if (operation, when) == ("put", "before"):
                if not puts[0]:
                    raise KeyboardInterrupt
                puts[0] -= 1

        store.at = dying
        with pytest.raises(KeyboardInterrupt):
            write(run, f"{root}/again-{last}", rules, by, group_rows=4)
        store.at = lambda operation, when: None
        write(run, f"{root}/again-{last}", rules, by, group_rows=4)
        assert below(store, f"bucket/run/again-{last}/") == expected


def below(store: MemoryS3, folder: str) -> dict[str, bytes]:
    return {
        name.removeprefix(folder): data
        for name, data in store.objects.items()
        if name.startswith(folder)
    }


@pytest.mark.s3
def test_dataset_on_s3_has_same_bytes(run: WrittenRun, tmp_path: Path, s3_url: str) -> None:
    write(run, tmp_path / "out")
    write(run, f"{s3_url}/out")
    stored = {
        each.url.removeprefix(f"{s3_url}/out/"): storage.read(each.url)[0]
        for each in storage.list_objects(f"{s3_url}/out")
    }
    assert stored == contents(tmp_path / "out")


def test_dataset_refuses_incomplete_run(tmp_path: Path) -> None:
    run = WrittenRun(str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet")))
    run.commit([0, 2])
    with pytest.raises(
        DatasetError,
        match=r"part-00001.parquet is not there yet, and there are not enough rows without it",
    ):
        write(run, tmp_path / "out")
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    report = write(run, tmp_path / "less", SelectionRules(dedup_memory_mb=1, target_rows=3))
    assert (report["accepted"], report["stopped_by"]) == (3, "target_rows")
    assert report["seed_rows_not_needed"] == 20 - report["seed_rows"] > 0


def test_dataset_refuses_budget_without_any_shard(run: WrittenRun, tmp_path: Path) -> None:
    completions = run.completions()
    with pytest.raises(DatasetError, match="there is nothing to select from"):
        DatasetFolder(str(tmp_path / "out")).write(
            completions, Selection(RULES, completions.kept, logprobs=True), Layout(10**9), TEXTS, 0
        )


def test_check_sources_refuses_changed_completions(run: WrittenRun, tmp_path: Path) -> None:
    write(run, tmp_path / "out")
    DatasetFolder(str(tmp_path / "out")).check_sources(run.completions())
    (part, *_) = sorted((tmp_path / "completions" / "data").iterdir())
    data = part.read_bytes()
    part.unlink()
    part.write_bytes(data)
    with pytest.raises(
        ConfigError, match="was made of other completions: rows were run again since"
    ):
        DatasetFolder(str(tmp_path / "out")).check_sources(run.completions())


@pytest.mark.parametrize(("missing_blocks", "stopped_by"), [(0, None), (1, "max_replica_hours")])
def test_dataset_names_budget_only_if_blocks_remain(
    run: WrittenRun, tmp_path: Path, missing_blocks: int, stopped_by: str | None
) -> None:
    completions = run.completions()
    until = len(completions.blocks) - missing_blocks
    selection = Selection(RULES, completions.kept, logprobs=True)
    folder = DatasetFolder(str(tmp_path / "out"))
    report = folder.write(completions, selection, Layout(10**9), TEXTS, until)
    assert report["stopped_by"] == stopped_by


def test_check_sources_ignores_parts_that_were_not_needed(run: WrittenRun, tmp_path: Path) -> None:
    write(run, tmp_path / "out", SelectionRules(dedup_memory_mb=1, target_rows=3))
    parts = sorted((tmp_path / "completions" / "data").iterdir())
    sources = json.loads((tmp_path / "out" / "sources.json").read_text())
    assert 0 < len(sources) < len(parts)
    parts[-1].unlink()
    DatasetFolder(str(tmp_path / "out")).check_sources(run.completions())
    parts[0].unlink()
    with pytest.raises(ConfigError, match="was made of other completions"):
        DatasetFolder(str(tmp_path / "out")).check_sources(run.completions())
