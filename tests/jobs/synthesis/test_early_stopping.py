from pathlib import Path
from typing import Any

import pytest

from jobs.synthesis.config import GenerateConfig
from jobs.synthesis.early_stopping import SelectionStopping, StoredStop, check_rules
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.run_folder import RunFolder
from tests.jobs.synthesis.immediate import Immediate
from tests.pipeline.synthesis.written_run import WrittenRun, seeds, write_prompts


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    prompts = write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet"))
    return WrittenRun(str(tmp_path), prompts)


def stopping(run: WrittenRun, **rules: Any) -> SelectionStopping:
    config = GenerateConfig(model="demo", dedup_memory_mb=1, **rules)
    return SelectionStopping(config, run.prompts, run.url, Immediate())


def settled(early_stopping: SelectionStopping, replica_hours: float = 0.0) -> bool:
    """Returns the decision after all committed shards are read."""
    early_stopping.should_stop(replica_hours)
    return early_stopping.should_stop(replica_hours)


def test_stopping_counts_first_shards_only(run: WrittenRun) -> None:
    early_stopping = stopping(run, target_rows=4)
    assert early_stopping.status() == ""
    run.commit([1, 2, 3])
    assert not settled(early_stopping)
    assert early_stopping.status() == "accepted 0/4"
    run.commit([0])
    assert settled(early_stopping)
    assert early_stopping.status() == "accepted 4/4"
    early_stopping.close()


def test_stopping_without_target_has_status_and_never_stops_early(run: WrittenRun) -> None:
    run.commit(range(len(run.shards)))
    early_stopping = stopping(run, max_total_tokens=10**9)
    assert not settled(early_stopping)
    assert early_stopping.status().startswith("accepted ")
    assert "/" not in early_stopping.status()
    early_stopping.close()


def test_stopping_stores_block_at_which_hours_are_used_up(run: WrittenRun) -> None:
    early_stopping = stopping(run, max_replica_hours=2.0)
    assert not settled(early_stopping, 1.9)
    assert settled(early_stopping, 2.0)
    early_stopping.close()
    stored = StoredStop(run.url, 2.0)
    assert stored.blocks() is None, "no shard is committed: the run goes on in the next call"

    run.commit([0, 1])
    assert settled(stopping(run, max_replica_hours=2.0), 2.0)
    blocks = stored.blocks()
    assert blocks is not None
    run.commit(range(2, len(run.shards)))
    assert stopping(run, max_replica_hours=2.0).should_stop(0.0), "decided in an earlier call"
    assert stored.blocks() == blocks


def test_stored_stop_keeps_the_first_block_of_a_budget(tmp_path: Path) -> None:
    assert StoredStop(str(tmp_path), 10).blocks() is None

    StoredStop(str(tmp_path), 10).store(7)
    StoredStop(str(tmp_path), 10).store(9)

    assert StoredStop(str(tmp_path), 10).blocks() == 7
    assert StoredStop(str(tmp_path), 20).blocks() is None


def test_stopping_raises_errors_of_its_thread(run: WrittenRun) -> None:
    early_stopping = stopping(run, target_rows=30)
    assert not settled(early_stopping)
    run.commit([0, 1])
    part = Path(RunFolder(run.url).part_url(0))
    part.write_bytes(Path(RunFolder(run.url).part_url(1)).read_bytes())
    with pytest.raises(DatasetError, match="has other rows than"):
        settled(early_stopping)
    early_stopping.close()


def test_check_rules_refuses_unknown_columns_of_prompts(run: WrittenRun) -> None:
    check_rules(GenerateConfig(model="demo", where=("a > 1",)), run.prompts)
    with pytest.raises(ConfigError, match="no column 'z'"):
        check_rules(GenerateConfig(model="demo", where=("z > 1",)), run.prompts)
