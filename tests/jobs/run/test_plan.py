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
