"""Dry run of a model too large for this machine: request, output, and Grok-1 on eight H100."""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.engine.config import EngineConfig
from actors.model.config import DEMO, GROK_1, ModelConfig
from actors.protocol.errors import ModelError
from jobs.benchmarks.models import GROK_1_SHARD
from jobs.run import full_size
from jobs.run.config import ScoreConfig
from jobs.run.execute import print_dry_run
from jobs.run.plan import make_plan
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[3]
AOT = ROOT / ".venv-aot" / "bin" / "python"
Dry = Callable[..., ScoreConfig]


@pytest.fixture
def dry(tmp_path: Path) -> Dry:
    """Returns the configuration of a dry run of two rows of token ids."""
    path = tmp_path / "ids.parquet"
    pq.write_table(
        pa.table({"prompt_token_ids": pa.array([[5, 6, 7], [8]], pa.list_(pa.int32()))}), path
    )

    def config(**flags: Any) -> ScoreConfig:
        return ScoreConfig(
            input=str(path), output=str(tmp_path / "out"), max_tokens=4, dry_run=True, **flags
        )

    return config


def asked(
    model: ModelConfig, mesh: tuple[int, int] = (1, 8), targets: tuple[str, ...] = ("h100", "h200")
) -> dict[str, Any]:
    engine = dataclasses.asdict(EngineConfig(max_len=model.sequence_len))
    return {
        "model": dataclasses.asdict(model),
        "engine": engine,
        "dtype": "bfloat16",
        "mesh": mesh,
        "targets": targets,
    }


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, True),
        ({"device": "gpu"}, True),
        ({"device": "cpu"}, False),
        ({"model": "demo"}, False),
        ({"model": "small"}, False),
    ],
)
def test_only_models_that_need_gpus_are_compiled(
    flags: dict[str, Any], expected: bool, dry: Dry
) -> None:
    assert full_size.is_full_size(make_plan(dry(**flags))) is expected


def test_request_has_the_sizes_of_the_flags(dry: Dry) -> None:
    request = full_size.request(
        make_plan(dry(max_len=4096, batch_tokens=512, mesh="2x4", dtype="float32", logprobs=3))
    )
    engine = request["engine"]
    assert (engine["max_len"], engine["prefill_tokens"], engine["logprobs"]) == (4096, 512, 3)
    assert (tuple(request["mesh"]), request["dtype"]) == ((2, 4), "float32")
    assert request["model"] == dataclasses.asdict(GROK_1)


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    """Returns what the compiler's own process says of the demo model, without the wheels."""
    return full_size.compile_plan(
        asked(replace(DEMO, num_layers=1, sequence_len=64)), Path(sys.executable)
    )


@pytest.mark.slow
def test_compiler_runs_in_its_own_process(answer: dict[str, Any]) -> None:
    assert [target["title"] for target in answer["targets"]] == ["H100", "H200"]
    assert answer["tensors"] == 14
    lines = list(full_size.show(answer | {"fallback": None}, (1, 8)))
    table = {
        re.split(r"  +", line.strip())[0]: re.split(r"  +", line.strip())[1:]
        for line in lines
        if "  " in line
    }
    assert table["8xH100"] == ["8xH200"]
    assert table["memory of the device"] == ["80.000 GB", "141.000 GB"]
    assert table["it fits"] == ["yes", "yes"]
    assert table["slots"] == ["64", "64"]
    assert table["limited by"] == ["slots", "slots"]
    assert {
        "weights, int8",
        "KV pages",
        "prefill",
        "decode",
        "score",
        "temporaries",
        "all-reduce",
        "launches",
        "launches of a layer",
        "compile seconds",
        "int8 weights copied or widened",
    } <= set(table)
    assert table["programs of all shapes"][0] == str(sum(answer["shapes"].values()))


@pytest.mark.slow
def test_fallback_and_misfit_are_one_line_each(
    answer: dict[str, Any],
) -> None:
    told = answer | {"fallback": "jax-cuda12-plugin is not installed"}
    first = next(full_size.show(told, (1, 8)))
    assert "not compiled for GPUs (jax-cuda12-plugin is not installed" in first
    assert "temporaries are not a GPU's" in first
    assert re.search(r"it fits +unknown +unknown", "\n".join(full_size.show(told, (1, 8))))
    small = [target | {"capacity_bytes": 1000} for target in answer["targets"]]
    shown = "\n".join(full_size.show(answer | {"targets": small, "fallback": None}, (1, 8)))
    assert re.search(r"it fits +NO +NO", shown)
    assert "not compiled for GPUs" not in shown


@pytest.mark.slow
def test_dry_run_of_grok_1_prints_both_plans(
    dry: Dry, answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[Any] = []

    def compiler(request: Mapping[str, Any]) -> dict[str, Any]:
        requests.append(request)
        return answer

    plan = make_plan(dry())
    print_dry_run(plan, compiler)

    assert requests == [full_size.request(plan)]
    output = capsys.readouterr().out
    assert "rows                     2" in output
    assert "for 8xH100 and 8xH200, with no weights and no GPU" in output
    assert "KV tokens that fit" in output


@pytest.mark.slow
def test_refusal_of_the_compiler_is_a_one_line_error() -> None:
    with pytest.raises(
        ConfigError, match=r"^full-size plan: mesh axis model = 3 does not divide .*$"
    ):
        full_size.compile_plan(asked(DEMO, mesh=(1, 3)), Path(sys.executable))


def test_death_of_the_compiler_is_reported_with_its_code(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho out of memory >&2\nexit 137\n")
    broken.chmod(0o755)
    with pytest.raises(ModelError, match=r"ended with code 137 \(out of memory\)"):
        full_size.compile_plan(asked(DEMO), broken)


def test_wheels_have_the_version_of_jax_and_hashes() -> None:
    entries = re.split(r"\n(?=[a-z])", (ROOT / "requirements-aot.lock").read_text())
    pinned = {
        match[1]: match[2]
        for entry in entries
        if (match := re.match(r"([\w.-]+)==(\S+)", entry)) and "--hash=" in entry
    }
    jax = re.search(r"^jax==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert jax is not None
    assert pinned.keys() == {"jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12"}
    assert {pinned["jax-cuda12-plugin"], pinned["jax-cuda12-pjrt"]} == {jax[1]}


@pytest.fixture(scope="module")
def compiler() -> Path:
    """Returns the Python that compiles for GPUs, where `make aot` has set it up."""
    if not (ROOT / ".venv-aot" / ".installed").exists():
        pytest.skip("the wheels that compile for GPUs are not installed: make aot")
    return AOT


# All sixty-four layers take minutes to compile; their number changes only a program's length.
LAYERS = [3, pytest.param(GROK_1.num_layers, marks=[pytest.mark.long, pytest.mark.timeout(900)])]


@pytest.fixture(scope="module", params=LAYERS)
def layers(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def plan(layers: int, compiler: Path) -> dict[str, Any]:
    """Returns the compiler's plan of Grok-1 with so many layers on eight H100."""
    model = replace(GROK_1, num_layers=layers)
    return full_size.compile_plan(asked(model, targets=("h100",)), compiler)


@pytest.mark.slow
def test_layer_needs_two_collectives(plan: dict[str, Any], layers: int) -> None:
    assert plan["fallback"] is None
    assert plan["tensors"] == 2 + 12 * layers
    (target,) = plan["targets"]
    assert target["compiled_for"] == "NVIDIA H100 80GB HBM3"
    prefill = target["programs"]["prefill"]
    assert prefill["rows"] * EngineConfig(max_len=1).chunk == EngineConfig(max_len=1).prefill_tokens
    assert prefill["width"] == 512
    # two for each layer, one for the embedding
    assert prefill["collectives"] == {"all-reduce": 2 * layers + 1}


@pytest.mark.slow
def test_grok_1_fits_eight_h100_with_a_quarter_of_a_million_tokens(
    plan: dict[str, Any], layers: int
) -> None:
    """With fewer layers, weights and cache are counted as if all were there."""
    (target,) = plan["targets"]
    missing_layers = GROK_1.num_layers / layers
    kept = sum(target["weights_bytes"].values()) + target["cache_bytes"]
    assert target["capacity_bytes"] == 80 * 10**9
    assert target["cache_tokens"] >= 250_000
    for name, program in target["programs"].items():
        # a program's inputs are the weights, the cache, the arrays of a call and nothing else
        call_bytes = program["input_bytes"] + program["temporary_bytes"] + program["output_bytes"]
        assert kept * missing_layers + call_bytes <= 80 * 10**9, name
    if layers == GROK_1.num_layers:
        assert plan["parameters"] == 315_684_820_992
        assert target["cache_tokens_fit"] >= 250_000


@pytest.mark.slow
def test_int8_weights_are_not_copied_or_widened(plan: dict[str, Any]) -> None:
    """What takes an int8 weight in the compiled text is a product or a kernel.

    No temporary could hold a copy of one.
    """
    # of the eight experts of a layer on one device, the smallest of its copies
    expert_weight_bytes = 8 * 6144 * 32768 // 8
    for name, program in plan["targets"][0]["programs"].items():
        assert program["weight_copies"] == [], name
        assert program["temporary_bytes"] < expert_weight_bytes, name


@pytest.mark.slow
def test_layer_of_decode_launches_few_kernels(plan: dict[str, Any]) -> None:
    """Each launch costs a few microseconds of the some 300 that a layer takes."""
    (target,) = plan["targets"]
    assert target["programs"]["decode"]["launches"]["layer"] <= 14
    assert target["programs"]["prefill"]["launches"]["layer"] <= 14


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_temporaries_do_not_grow_with_layers_nor_with_prompts(
    plan: dict[str, Any], compiler: Path
) -> None:
    """Two layers on H200, a prefill of 8,192 tokens, and log-probs of all of its tokens."""
    request = asked(replace(GROK_1, num_layers=2), targets=("h200",))
    request["engine"] |= {"prefill_tokens": 8192, "prompt_logprobs": 20}
    few = full_size.compile_plan(request, compiler)["targets"][0]["programs"]
    many = plan["targets"][0]["programs"]
    assert abs(few["decode"]["temporary_bytes"] - many["decode"]["temporary_bytes"]) < 5e6
    # four times the tokens
    assert few["prefill"]["temporary_bytes"] < 4.2 * many["prefill"]["temporary_bytes"]
    assert few["prefill"]["weight_copies"] == few["decode"]["weight_copies"] == []
    # float32 logits of one chunk of targets on one device, three times (they, their exponentials
    # and their order), and what is kept of each row
    assert few["score"]["width"] == 256
    assert few["score"]["temporary_bytes"] < 3 * 256 * 131072 // 8 * 4 + 100_000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_shard_of_grok_1_fits_one_h200(compiler: Path) -> None:
    """The model of jobs/benchmark.py: one layer of it compiles for a single GPU."""
    plan = full_size.compile_plan(
        asked(replace(GROK_1_SHARD, num_layers=1), mesh=(1, 1), targets=("h200",)), compiler
    )
    for name, program in plan["targets"][0]["programs"].items():
        assert program["collectives"] == {}, name
        # the attention's output projection has eight groups of scales here, on the mesh 1x8 one
        assert program["weight_copies"] == [], name
    # with what XLA computes once for all layers
    assert plan["targets"][0]["programs"]["decode"]["launches"]["layer"] <= 15
