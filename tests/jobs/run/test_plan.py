import json
from pathlib import Path
from typing import Any

import pytest

from jobs.run.config import ScoreConfig
from jobs.run.plan import Plan, make_plan
from pipeline.errors import ConfigError


def plan_of(folder: Path, columns: dict[str, Any], **flags: Any) -> Plan:
    source = folder / "rows.jsonl"
    source.write_text(json.dumps({"prompt": "One", **columns}) + "\n")
    base = {"input": str(source), "output": str(folder / "out"), "model": "demo", "max_tokens": 4}
    return make_plan(ScoreConfig(**{**base, **flags}))


@pytest.mark.parametrize(
    ("columns", "flags", "parameters"),
    [
        ({}, {}, {"max_tokens"}),
        ({}, {"presence_penalty": 0.5}, {"max_tokens", "presence_penalty"}),
        ({"logit_bias": {"5": 1.0}}, {}, {"max_tokens", "logit_bias"}),
        ({"logit_bias": {"5": 1.0}}, {"task": "perplexity"}, set()),
    ],
)
def test_decode_is_compiled_with_parameters_of_flags_and_columns(
    columns: dict[str, Any], flags: dict[str, Any], parameters: set[str], tmp_path: Path
) -> None:
    config = plan_of(tmp_path, columns, **flags).engine_config()
    assert set(config.sampling_parameters) == parameters


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"allowed_token_ids": (768,)}, "--allowed-token-ids: expected token ids below 768"),
        ({"logit_bias": {"no such word": 1}}, "--logit-bias: expected token ids or text of one"),
        ({"stop_token_ids": (5000,)}, "--stop-token-ids: expected token ids below 768, got 5000"),
    ],
)
def test_parameters_that_do_not_fit_the_vocabulary_are_refused(
    flags: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, {}, **flags)


@pytest.mark.parametrize(
    ("partition", "shards", "rows"), [("0/1", [0, 1, 2], 5), ("0/2", [0, 2], 3), ("1/2", [1], 2)]
)
def test_plan_counts_the_rows_of_its_own_partition(
    partition: str, shards: list[int], rows: int, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "One"}\n' * 5)
    config = ScoreConfig(
        input=str(source),
        output=str(tmp_path / "out"),
        model="demo",
        max_tokens=4,
        shard_rows=2,
        partition=partition,
    )

    plan = make_plan(config)

    assert [shard.number for shard in plan.own_shards] == shards
    assert plan.own_row_count == rows


def grok_plan(tmp_path: Path, rows: int, prompt_tokens: int, **flags: Any) -> Plan:
    source = tmp_path / "ids.jsonl"
    line = json.dumps({"prompt_token_ids": [5] * prompt_tokens}) + "\n"
    source.write_text(line * rows)
    base = {"input": str(source), "output": str(tmp_path / "out"), "dry_run": True}
    return make_plan(ScoreConfig(**{**base, "max_tokens": 100, **flags}))


def test_plan_for_gpus_has_slots_for_the_lengths_of_the_input(tmp_path: Path) -> None:
    short = grok_plan(tmp_path, rows=40, prompt_tokens=500)
    long = grok_plan(tmp_path, rows=40, prompt_tokens=3000, n=2, temperature=1.0)

    assert (short.config.slots, short.engine_config().slots) == (512, 512)
    assert (long.config.slots, long.engine_config().slots) == (256, 256)
    assert short.engine_config().prefill_tokens == 8192
    assert short.bucket_config().batch_tokens == short.config.batch_tokens
    # two requests for each slot, of 612 tokens at most
    assert short.sizes.batches_in_flight * short.sizes.batch_tokens > 2 * 512 * 600


def test_slots_are_those_of_each_data_shard(tmp_path: Path) -> None:
    plan = grok_plan(tmp_path, rows=4, prompt_tokens=50, slots=40, mesh="2x4")
    assert (plan.config.slots, plan.engine_config().slots) == (40, 80)


def test_partitions_of_a_run_have_equal_sizes(tmp_path: Path) -> None:
    plans = [
        grok_plan(tmp_path, rows=40, prompt_tokens=500, shard_rows=4, partition=f"{index}/3")
        for index in range(3)
    ]
    assert plans[0].sizes == plans[1].sizes == plans[2].sizes


@pytest.mark.parametrize(
    ("flags", "on_gpus"),
    [({}, True), ({"device": "cpu"}, False), ({"device": "gpu", "model": "demo"}, True)],
)
def test_plan_assumes_gpus_by_device_or_for_large_models(
    flags: dict[str, Any], on_gpus: bool, tmp_path: Path
) -> None:
    assert grok_plan(tmp_path, rows=1, prompt_tokens=9, **flags).devices.on_gpus is on_gpus


def test_rows_that_cannot_run_leave_the_sizes_to_memory(tmp_path: Path) -> None:
    assert grok_plan(tmp_path, rows=2, prompt_tokens=9000).config.slots == 256
