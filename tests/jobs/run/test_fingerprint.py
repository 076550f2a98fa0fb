import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from actors.protocol.sampling import PARAMETERS
from jobs.run.config import ScoreConfig
from jobs.run.fingerprint import fingerprint_keys
from jobs.run.plan import DEMO, make_plan
from tests.actors.protocol.test_sampling import NOT_DEFAULT
from tests.jobs.runs import CONFORMANCE

ROWS = [
    {"name": f"b{row}", "prompt": f"One {row}", "question": f"Two {row}"}
    | {"continuation": " three", "solution": " four"}
    for row in range(4)
]
# Flags that results depend on: another value than the default, and the flags that it needs.
# Paths are relative to the folder of the test.
AFFECTS_RESULTS: dict[str, dict[str, Any]] = {
    **{name: {name: value} for name, value in NOT_DEFAULT.items()},
    "repetition_min_count": {"repetition_min_count": 4, "repetition_max_pattern": 9},
    "min_tokens": {"min_tokens": 3},
    "input": {"input": Path("other/rows.jsonl")},
    "model": {
        "model": "small",
        "checkpoint": DEMO / "ckpt-0",
        "tokenizer": DEMO / "tokenizer.model",
    },
    "checkpoint": {"checkpoint": CONFORMANCE / "mha" / "ckpt-0"},
    "tokenizer": {"tokenizer": Path("other/tokenizer.model")},
    "task": {"task": "perplexity"},
    "prompt_column": {"prompt_column": "question"},
    "continuation_column": {"task": "score", "continuation_column": "solution"},
    "id_column": {"id_column": "name"},
    "logprobs": {"logprobs": 2},
    "prompt_logprobs": {"prompt_logprobs": 0},
    "boundary_chars": {"task": "score", "boundary_chars": True},
    "bits_per_byte": {"task": "perplexity", "bits_per_byte": True},
    "token_logprobs": {"task": "score", "token_logprobs": True},
    "pool": {"task": "embed", "pool": "mean"},
    "normalize": {"task": "embed", "normalize": True},
    "embedding_dtype": {"task": "embed", "embedding_dtype": "float16"},
    "top_k_logprobs": {"task": "teach", "top_k_logprobs": 8},
    "deterministic": {"deterministic": True},
    "dtype": {"dtype": "float32"},
    "max_len": {"max_len": 60},
    "shard_rows": {"shard_rows": 2},
    "on_overflow": {"on_overflow": "truncate-left"},
    "window_stride": {"task": "perplexity", "on_overflow": "window", "window_stride": 7},
    "limit": {"limit": 2},
    "template": {"template": "{{ prompt }} {{ question }}"},
    "keep_prompt": {"keep_prompt": True},
    "sample": {"sample": 2},
    "sample_seed": {"sample": 2, "sample_seed": 1},
}
# Flags that change where, when or how a run is computed, watched and paid for, not what it writes.
WITHOUT_EFFECT: dict[str, Any] = {
    "output": "elsewhere",
    "replicas": "2:8",
    "mesh": "2x1",
    "shard_activations": True,
    "device": "cpu",
    "batch_tokens": 512,
    "slots": 16,
    "prefill_tokens": 256,
    "partition": "1/2",
    "dry_run": True,
    "json": True,
    "resume": "never",
    "retry_failed": True,
    "reuse": ("other",),
    "max_error_rate": 0.5,
    "max_attempts": 9,
    "step_timeout_s": 60.0,
    "cost_per_replica_hour": 3.0,
    "cost_budget": 40.0,
    "max_cost": 50.0,
    "max_replica_hours": 12.0,
    "deadline": "8h",
    "log_format": "json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds two inputs and a tokenizer."""
    made: Path = tmp_path_factory.mktemp("plan")
    for name in ("rows.jsonl", "other/rows.jsonl"):
        path = made / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (made / "other" / "tokenizer.model").write_bytes(other_tokenizer())
    return made


def other_tokenizer() -> bytes:
    """Returns the demo model's tokenizer with a field that changes its bytes only."""
    model = (DEMO / "tokenizer.model").read_bytes()
    unknown_field = b"\xca\x3e\x01x"  # number 1001, one byte
    return model + unknown_field


def keys_of(folder: Path, **flags: Any) -> dict[str, Any]:
    located = {
        name: str(folder / value) if isinstance(value, Path) else value
        for name, value in flags.items()
    }
    base = {"input": str(folder / "rows.jsonl"), "output": str(folder / "out"), "model": "demo"}
    config = ScoreConfig(**{**base, "max_tokens": 8, **located})
    return fingerprint_keys(make_plan(config))


def test_fingerprint_test_covers_all_flags() -> None:
    names = {field.name for field in dataclasses.fields(ScoreConfig)}
    assert names == set(AFFECTS_RESULTS) | set(WITHOUT_EFFECT)
    assert not set(AFFECTS_RESULTS) & set(WITHOUT_EFFECT)
    assert set(PARAMETERS) <= set(AFFECTS_RESULTS)


@pytest.mark.parametrize("name", AFFECTS_RESULTS)
def test_flag_that_affects_results_changes_the_fingerprint(name: str, folder: Path) -> None:
    flags = AFFECTS_RESULTS[name]
    without = {other: value for other, value in flags.items() if other != name}
    assert keys_of(folder, **flags) != keys_of(folder, **without)


# Flags without which another flag is refused.
NEEDED_BY: dict[str, dict[str, Any]] = {
    "cost_budget": {"cost_per_replica_hour": 3.0},
    "max_cost": {"cost_per_replica_hour": 3.0},
    "json": {"dry_run": True},
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_flag_without_effect_leaves_the_fingerprint(name: str, folder: Path) -> None:
    changed = keys_of(folder, **NEEDED_BY.get(name, {}), **{name: WITHOUT_EFFECT[name]})
    assert changed == keys_of(folder)
