"""jobs/benchmark.py on a shard of a tiny model: the way of grok-1-shard, on the CPU."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actors.model.config import DEMO
from jobs import benchmark
from jobs.benchmarks import models as benchmark_model

TINY_SHARD = replace(DEMO, num_q_heads=2, num_kv_heads=1, vocab_size=64, num_layers=1)


@pytest.mark.slow
def test_shard_is_measured_with_int8_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmark_model.MODELS, "grok-1-shard", TINY_SHARD)
    out = tmp_path / "figures.json"
    sizes = [
        "--slots",
        "2",
        "--prefill-rows",
        "1",
        "--prefill-length",
        "16",
        "--context",
        "4",
        "--new-tokens",
        "2",
    ]
    assert (
        benchmark.main(["--model", "grok-1-shard", "--weights", "int8", *sizes, "--json", str(out)])
        == 0
    )
    figures = json.loads(out.read_text())
    assert figures["prefill"]["tokens_per_s"] > 0
    assert [row["slots"] for row in figures["decode"]] == [2]
    assert 0 < figures["decode"][0]["mbu"] < 1
