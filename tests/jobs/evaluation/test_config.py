from typing import Any

import pytest

from jobs.evaluation.config import (
    BUNDLED_DATA,
    BUNDLED_TASKS,
    DEMO_TASKS,
    EvaluateConfig,
    Step,
)
from pipeline.errors import ConfigError
from pipeline.evals.tasks import suite_of


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"limit": 0}, "--limit: expected at least 1, got 0"),
        ({"samples": 4097}, "--samples: expected from 1 to 4096, got 4097"),
        ({"sample_temperature": -0.1}, "--sample-temperature: expected from 0"),
        ({"program_timeout_s": 0.0}, r"--program-timeout-s: expected from 0\.01 to 3600, got 0"),
        ({"margin": 1.5}, "--margin: expected from 0 to 1"),
        ({"confidence": 1.0}, r"--confidence: expected from 0\.5 to 0\.9999, got 1"),
        ({"margins": ("mmlu",)}, "--margins: expected TASK=LOSS .* got 'mmlu'"),
        ({"margins": ("mmlu=1.5",)}, "--margins: expected TASK=LOSS .* got 'mmlu=1.5'"),
        ({"margins": ("mmmlu=0.1",)}, "--margins: expected some of .* got 'mmmlu'"),
        ({"samples": 2}, "--samples: 2 greedy completions are all the same"),
    ],
)
def test_config_refuses_values_out_of_range(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig(**flags)


@pytest.mark.parametrize(
    ("step", "names"),
    [
        ("prompts", ("tasks", "data", "output")),
        ("run", ("requests", "output")),
        ("report", ("requests", "outputs", "output")),
        ("all", ("tasks", "data", "output")),
    ],
)
def test_each_step_requires_its_own_flags(step: Step, names: tuple[str, ...]) -> None:
    values: dict[str, Any] = {
        "tasks": ("mmlu",),
        "data": "data",
        "requests": "requests.parquet",
        "outputs": ("run",),
        "output": "out",
    }
    sufficient = {name: values[name] for name in names}

    EvaluateConfig(model="demo", **sufficient).require(step)
    for name in names:
        without = {key: value for key, value in sufficient.items() if key != name}
        with pytest.raises(ConfigError, match=f"--{name} is missing"):
            EvaluateConfig(model="demo", **without).require(step)


def test_steps_that_run_check_the_flags_of_the_main_job() -> None:
    config = EvaluateConfig(requests="requests.parquet", output="out", outputs=("run",))

    config.require("report")
    with pytest.raises(ConfigError, match="--checkpoint is missing"):
        config.require("run")


def test_task_names_are_split_at_commas_and_empty_ones_left_out() -> None:
    config = EvaluateConfig(tasks=("mmlu, gsm8k_cot", "", "humaneval,"))

    assert config.task_names() == ("mmlu", "gsm8k_cot", "humaneval")


def test_config_passes_its_flags_to_prompts_and_rules() -> None:
    config = EvaluateConfig(
        limit=7,
        samples=4,
        sample_temperature=0.8,
        margin=0.02,
        margins=("mmlu=0.005, gsm8k_cot=0.03", "mmlu_stem=0"),
        confidence=0.9,
    )

    options = config.prompt_options()
    rules = config.rules()

    assert (options.limit, options.samples, options.sample_temperature) == (7, 4, 0.8)
    assert (rules.margin, rules.confidence) == (0.02, 0.9)
    assert rules.margins == {"mmlu": 0.005, "gsm8k_cot": 0.03, "mmlu_stem": 0.0}


def test_bundled_data_is_used_for_bundled_tasks_only() -> None:
    bundled = EvaluateConfig(tasks=("demo_choice,demo_answer",), model="demo", output="run")
    bundled.require("all")
    assert bundled.data_url() == str(BUNDLED_DATA)
    assert EvaluateConfig(tasks=("demo",), data="own").data_url() == "own"
    mixed = EvaluateConfig(tasks=("demo", "mmlu"), model="demo", output="run")
    assert mixed.data_url() is None
    with pytest.raises(ConfigError, match="--data is missing"):
        mixed.require("all")


def test_bundled_tasks_are_those_of_the_demo_suites() -> None:
    names: set[str] = set()
    for suite in ("demo", "demo_mmlu", "demo_gsm8k"):
        names.update(suite_of(suite).names)
    assert names == BUNDLED_TASKS
    assert set(DEMO_TASKS) <= BUNDLED_TASKS


def test_demo_is_two_runs_that_share_a_history() -> None:
    first, second = EvaluateConfig(demo=True, limit=5).demo_runs("folder")

    assert (first.output, second.output) == ("folder/bfloat16", "folder/float32")
    assert (first.dtype, second.dtype) == (first.name, second.name) == ("bfloat16", "float32")
    assert first.history == second.history == "folder/history"
    for run in (first, second):
        run.require("all")
        assert (run.model, run.limit, run.data_url()) == ("demo", 5, str(BUNDLED_DATA))


def test_demo_refuses_flags_that_it_sets() -> None:
    with pytest.raises(ConfigError, match="--demo sets --tasks; leave one of them out"):
        EvaluateConfig(demo=True, tasks=("mmlu",)).demo_runs("folder")
