from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.model.config import DEMO
from jobs.benchmarks.pipeline_config import PipelineBenchmarkConfig
from jobs.benchmarks.pipeline_prompts import (
    FIRST_TOKEN,
    input_requests,
    pass_table,
    plan_pass,
    plan_requests,
)
from jobs.cli.parser import parse
from pipeline.errors import ConfigError
from tests.jobs.benchmarks.pipeline_inputs import arguments


def config(folder: Path, rows: int, *more: str) -> PipelineBenchmarkConfig:
    words = arguments(folder, rows, *more)
    return parse(PipelineBenchmarkConfig, words, program="", description="")


def test_passes_have_equal_lengths_and_different_ids(tmp_path: Path) -> None:
    benchmark = config(tmp_path, 3, "--copies", "2")
    requests = input_requests(benchmark)

    first, second = (
        pass_table(benchmark, requests, number)["prompt_token_ids"].to_pylist()
        for number in range(2)
    )

    lengths = [len(request.prompt_ids) for request in requests]
    assert [len(ids) for ids in first] == [len(ids) for ids in second] == 2 * lengths
    assert first[0][:20] == first[1][:20] != second[0][:20]
    first_tokens = {ids[0] for ids in (first[0], first[3], second[0], second[3])}
    assert len(first_tokens) == 4, "no copy of any pass has a prefix in common with another"


def test_pass_has_ordinary_tokens_and_completions_around_the_mean(tmp_path: Path) -> None:
    benchmark = config(tmp_path, 20, "--max-tokens", "10")

    table = pass_table(benchmark, input_requests(benchmark), 1)

    assert table.schema.names == ["prompt_token_ids", "max_tokens"]
    for ids in table["prompt_token_ids"].to_pylist():
        assert FIRST_TOKEN <= min(ids) <= max(ids) < DEMO.vocab_size
    lengths = table["max_tokens"].to_pylist()
    assert 5 <= min(lengths) < 10 < max(lengths) <= 15


def test_pass_of_score_has_choices_in_place_of_max_tokens(tmp_path: Path) -> None:
    benchmark = config(tmp_path, 2, "--task", "score")
    requests = input_requests(benchmark)

    table = pass_table(benchmark, requests, 0)

    assert table.schema.names == ["prompt_token_ids", "choices_token_ids"]
    lengths = [[len(ids) for ids in choices] for choices in table["choices_token_ids"].to_pylist()]
    assert lengths == [[len(ids) for ids in request.continuations] for request in requests]


def test_plan_of_a_pass_reads_its_prompts(tmp_path: Path) -> None:
    benchmark = config(tmp_path, 3, "--batch-tokens", "256")
    requests = input_requests(benchmark)
    benchmark.root.mkdir()

    plan = plan_pass(benchmark, requests, 2)

    written = pq.read_table(benchmark.root / "prompts-2.parquet")["prompt_token_ids"].to_pylist()
    assert [list(request.prompt_ids) for request in plan_requests(plan)] == written
    assert plan.config.output == str(benchmark.root / "run-2")
    assert plan.config.ignore_eos
    assert plan.config.batch_tokens == 256


def test_prompts_longer_than_the_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model demo holds \d+ tokens, the longest prompt"):
        input_requests(config(tmp_path, 1, "--max-tokens", "4000"))


def test_rows_that_cannot_run_are_refused(tmp_path: Path) -> None:
    benchmark = config(tmp_path, 2)
    table = pq.read_table(tmp_path / "prompts.parquet")
    prompts = table["prompt"].to_pylist()
    column = [[prompts[0], None]]
    pq.write_table(table.set_column(0, "prompt", column), tmp_path / "prompts.parquet")

    with pytest.raises(ConfigError, match="--input: row 1 of shard 0 cannot run"):
        input_requests(benchmark)
