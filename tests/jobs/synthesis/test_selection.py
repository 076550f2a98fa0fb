import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from jobs.synthesis.config import GenerateConfig
from jobs.synthesis.selection import check_dataset, select, selection_keys
from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog
from pipeline.synthesis.selection.duplicates import FIRST_HASHING
from tests.pipeline.synthesis.written_run import WrittenRun, seeds, write_prompts


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    prompts = write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet"))
    written = WrittenRun(str(tmp_path), prompts)
    written.commit(range(len(written.shards)))
    return written


def near_config(**flags: Any) -> GenerateConfig:
    return GenerateConfig(
        model="demo", dedup="near", dedup_on=("completion",), dedup_memory_mb=1, **flags
    )


def select_into(run: WrittenRun, dataset: Path, config: GenerateConfig) -> int:
    return select(config, run.prompts.url, run.url, str(dataset), RunLog())


def stored_keys(dataset: Path) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads((dataset / "run.json").read_text())["fingerprint_keys"]
    return keys


def test_selection_with_first_hashing_keeps_the_keys_of_earlier_releases(
    run: WrittenRun, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    assert select_into(run, dataset, near_config()) == 0
    assert set(stored_keys(dataset)) == {
        "prompts", "completions", "blocks", "rules", "files", "card",
    }  # fmt: skip
    assert select_into(run, dataset, near_config()) == 0, "it continues"
    check_dataset(near_config(), str(dataset))


def test_selection_refuses_another_version_of_the_hashing(
    run: WrittenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tmp_path / "dataset"
    select_into(run, dataset, near_config())
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "9.9")
        refusal = r'near_duplicates was null, is \{.*"version":"9.9"'
        with pytest.raises(ConfigError, match=refusal):
            check_dataset(near_config(), str(dataset))
        with pytest.raises(ConfigError, match=refusal):
            select_into(run, dataset, near_config())
        select_into(run, tmp_path / "later", near_config())

    assert stored_keys(tmp_path / "later")["near_duplicates"] == {
        **FIRST_HASHING,
        "version": "9.9",
    }
    with pytest.raises(ConfigError, match=r"near_duplicates was \{.*\}, is null"):
        check_dataset(near_config(), str(tmp_path / "later"))


def test_check_dataset_refuses_other_rules_and_accepts_no_dataset(
    run: WrittenRun, tmp_path: Path
) -> None:
    check_dataset(near_config(), str(tmp_path / "nothing"))
    dataset = tmp_path / "dataset"
    select_into(run, dataset, near_config())
    with pytest.raises(ConfigError, match=r"rules\.dedup_threshold was 0\.8, is 0\.9"):
        check_dataset(near_config(dedup_threshold=0.9), str(dataset))


RULE_FLAGS: dict[str, Any] = {
    "min_chars": 1,
    "max_chars": 9,
    "min_completion_tokens": 1,
    "max_completion_tokens": 9,
    "min_mean_logprob": -1.0,
    "max_mean_logprob": -0.5,
    "finish_reasons": ("stop",),
    "must_match": ("a",),
    "must_not_match": ("b",),
    "where": ("completion_tokens > 1",),
    "dedup": "none",
    "dedup_on": ("prompt",),
    "dedup_threshold": 0.7,
    "dedup_memory_mb": 2,
    "target_rows": 3,
    "max_total_tokens": 7,
    "file_mb": 3,
    "partition_by": ("template",),
    "title": "Sums",
    "license": "cc0-1.0",
    "examples": 2,
}


@pytest.mark.parametrize("flag", RULE_FLAGS)
def test_every_flag_of_the_selection_changes_its_keys(flag: str) -> None:
    changed = GenerateConfig(model="demo", **{flag: RULE_FLAGS[flag]})
    assert selection_keys(changed) != selection_keys(GenerateConfig(model="demo"))


def test_parsing_and_choice_change_the_keys() -> None:
    plain = selection_keys(GenerateConfig(model="demo"))
    sampled: dict[str, Any] = {"n": 2, "temperature": 1.0}
    parsed = GenerateConfig(model="demo", parse_regex="(?P<x>.)")
    typed = GenerateConfig(model="demo", parse_regex="(?P<x>.)", fields={"x": "int64"})
    json_fields = GenerateConfig(model="demo", parse_json=True, fields={"x": "int64"})
    best = GenerateConfig(model="demo", choose="best", **sampled)
    vote = GenerateConfig(model="demo", choose="majority", vote_on="prompt", **sampled)
    agreed = GenerateConfig(
        model="demo", choose="majority", vote_on="prompt", min_agreement=0.5, **sampled
    )
    configs = (parsed, typed, json_fields, best, vote, agreed)
    keys = [json.dumps(selection_keys(config)) for config in configs]
    assert len({json.dumps(plain), *keys}) == len(configs) + 1
