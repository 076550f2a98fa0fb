import json
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.synthesis.config import GenerateConfig
from jobs.synthesis.prompts import _estimate, plan_seeds, write_prompts
from pipeline.errors import ConfigError, DatasetError
from pipeline.monitoring.run_log import RunLog

TEMPLATES = {"sum": "{{ a }} + {{ b }} ="}


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    rows = [{"id": f"s{row}", "a": row, "b": 1 if row else None} for row in range(9)]
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(seeds: Path, **flags: object) -> GenerateConfig:
    flags = {"templates": TEMPLATES, "shard_rows": 4, "max_tokens": 4, "model": "demo"} | flags
    return GenerateConfig(input=str(seeds), **flags)  # type: ignore[arg-type]


def test_estimate_scales_the_work_of_a_sample_to_all_prompts(seeds: Path) -> None:
    requests = pa.table({"id": ["a", "b"], "prompt": ["1 + 1 =", "2 + 2 ="]})
    sample = _estimate(config(seeds), requests, 2).figures()
    scaled = _estimate(config(seeds), requests, 20).figures()
    assert sample.keys() == scaled.keys()
    for name in ("rows", "prompt_tokens", "new_tokens_at_most", "batches"):
        assert scaled[name] == 10 * sample[name]
    for name in ("rows_sampled", "padding", "slots", "device_bytes", "replicas", "start_up_s"):
        assert scaled[name] == sample[name]
    work_h = [figures["hours"][0] - figures["start_up_s"][0] / 3600 for figures in (sample, scaled)]
    assert work_h[1] > 8 * work_h[0]


def test_write_prompts_continues_and_refuses_other_prompts(seeds: Path, tmp_path: Path) -> None:
    url = str(tmp_path / "prompts")
    plan = plan_seeds(config(seeds))
    prompts = write_prompts(config(seeds), plan, url, RunLog())
    assert [part.rejected_rows for part in prompts.parts()] == [1, 0, 0]
    (tmp_path / "prompts" / "_SUCCESS").unlink()
    (tmp_path / "prompts" / "data" / "part-00001.parquet").unlink()
    assert write_prompts(config(seeds), plan, url, RunLog()).parts() != ()

    other = config(seeds, seed=1)
    with pytest.raises(ConfigError, match="seed was 0, is 1"):
        write_prompts(other, plan_seeds(other), url, RunLog())


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({"seed": 3}, "seed"),
        ({"templates": {"sum": "{{ a }}"}}, "templates"),
        ({"templates": {"sum": {"text": TEMPLATES["sum"], "weight": 2}}}, "templates"),
        ({"keep": ("a",)}, "columns"),
        ({"id_column": "a", "keep": ("b",)}, "columns"),
        ({"shard_rows": 5}, "shards"),
        ({"limit": 9}, "shards"),
    ],
)
def test_prompt_keys_depend_on_every_flag(seeds: Path, flags: dict[str, object], key: str) -> None:
    plain = plan_seeds(config(seeds)).keys(config(seeds))
    changed_config = config(seeds, **flags)
    changed = plan_seeds(changed_config).keys(changed_config)
    assert {name for name in plain if plain[name] != changed[name]} == {key}


def test_prompts_of_other_seeds_have_other_keys(seeds: Path) -> None:
    before = plan_seeds(config(seeds)).keys(config(seeds))
    seeds.write_text(seeds.read_text() + '{"id": "x", "a": 1, "b": 1}\n')
    assert plan_seeds(config(seeds)).keys(config(seeds))["input"] != before["input"]


def test_write_prompts_refuses_seeds_without_any_prompt(seeds: Path, tmp_path: Path) -> None:
    flags = config(seeds, templates={"sum": "{{ a.b.c }}"})
    with pytest.raises(DatasetError, match="none of 9 seed rows gave a prompt"):
        write_prompts(flags, plan_seeds(flags), str(tmp_path / "prompts"), RunLog())
