"""Prompts, filters and metrics against those of lm-evaluation-harness 0.4.13 on real data.

The samples of the data sets are texts of other authors and not part of this repository: tests are
skipped without ../shared/data/eval.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.evals.data_folder import DataFolder
from pipeline.evals.execution.sandbox import Sandbox
from pipeline.evals.metrics import mean_stderr, pooled_stderr, results, scores
from pipeline.evals.requests import build_requests
from pipeline.evals.scoring import score
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions
from pipeline.evals.tasks.gsm8k import EXTRACTIONS, IGNORED
from pipeline.evals.tasks.humaneval import pass_at_k, program
from pipeline.evals.text_match import cut_at_stops, exact_match
from pipeline.requests.tokenizer import Tokenizer

SHARED = Path(__file__).parents[4] / "shared" / "data"
GOLDEN, SAMPLE = SHARED / "eval" / "golden", SHARED / "eval" / "sample"
TASKS = ("mmlu", "gsm8k", "gsm8k_cot", "humaneval")


@pytest.fixture(autouse=True)
def _goldens_are_there() -> None:
    if not GOLDEN.is_dir():
        pytest.skip(
            "no ../shared/data/eval: the texts of the real data sets are not part of this "
            "repository"
        )


@cache
def requests() -> dict[tuple[str, int], EvalRequest]:
    return {
        (each.task, each.doc_id): each
        for each in build_requests(TASKS, DataFolder(str(SAMPLE)), PromptOptions())
    }


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]


def test_mmlu_prompts_match_the_harness() -> None:
    golden = lines("golden_mmlu.jsonl")
    assert len(golden) == sum(task.startswith("mmlu") for task, _ in requests()) == 120
    for line in golden:
        request = requests()[line["task"], line["doc_id"]]
        assert request.prompt == line["context"]
        assert list(request.choices or ()) == line["continuations"]
        assert request.target == line["gold_continuation"]


def test_gsm8k_prompts_match_the_harness() -> None:
    golden = [line for line in lines("golden_gsm8k.jsonl") if line["task"] in EXTRACTIONS]
    assert len(golden) == 80
    for line in golden:
        request = requests()[line["task"], line["doc_id"]]
        assert request.prompt == line["context"]
        assert list(request.stop or ()) == line["until"]
        assert request.target == line["target"]
        assert (request.max_tokens, request.temperature, request.n) == (256, 0.0, 1)


def test_humaneval_prompts_and_programs() -> None:
    data = DataFolder(str(SAMPLE)).rows(
        "humaneval/openai_humaneval", "test", ("prompt", "canonical_solution")
    )
    golden = lines("golden_humaneval.jsonl")
    assert len(golden) == 8
    for line in golden:
        request = requests()["humaneval", line["doc_id"]]
        assert (request.prompt, list(request.stop or ()), request.max_tokens) == (
            line["context"], line["until"], line["max_gen_toks"],
        )  # fmt: skip
        assert request.target == line["reference"]
        assert (
            program(request, data[line["doc_id"]]["canonical_solution"])
            == line["program_for_canonical"]
        )


def test_reference_solutions_pass_in_the_sandbox_and_empty_ones_fail() -> None:
    data = DataFolder(str(SAMPLE)).rows(
        "humaneval/openai_humaneval", "test", ("canonical_solution",)
    )
    problems = [request for (task, _), request in requests().items() if task == "humaneval"]
    right = [
        program(request, row["canonical_solution"])
        for request, row in zip(problems, data, strict=True)
    ]
    assert (
        Sandbox(timeout_s=60).run([*right, *(program(request, "    pass") for request in problems)])
        == [True] * 8 + [False] * 8
    )


def test_tokens_of_every_prompt() -> None:
    tokenizer = Tokenizer((SHARED / "tokenizer" / "tokenizer.model").read_bytes())
    golden = [
        line
        for line in lines("golden_tokens.jsonl")
        if (line["task"], line["doc_id"]) in requests()
    ]
    encoded = tokenizer.encode([requests()[line["task"], line["doc_id"]].prompt for line in golden])
    assert len(golden) >= 200
    for line, ids in zip(golden, encoded, strict=True):
        digest = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
        assert (len(ids), digest) == (line["n_tokens"], line["sha256_of_comma_joined_ids"])


def test_stop_strings_match_the_harness() -> None:
    for line in lines("golden_stop.jsonl"):
        assert cut_at_stops(line["raw"], line["until"]) == line["cut"]
        assert cut_at_stops(line["cut"], line["until"]) == line["cut"]


def test_filters_match_the_harness() -> None:
    golden = lines("golden_extract.jsonl")
    assert len(golden) == 64
    for line in golden:
        for name, expected in line["filters"].items():
            task, extraction_name = name.split("/")
            [extraction] = [each for each in EXTRACTIONS[task] if each.name == extraction_name]
            found = extraction.answer(line["text"])
            assert found == expected["extracted"], line
            assert float(exact_match(found, line["gold"], IGNORED)) == expected["exact_match"], line


def answers(run: str) -> dict[tuple[str, int], Answer]:
    """The fake model's answers of a run, as they are recorded."""
    if run == "gsm8k_sample":
        recorded = lines("golden_gsm8k_fake_outputs.jsonl")
        stops = {task: requests()[task, 0].stop or () for task in EXTRACTIONS}
        return {
            (line["task"], line["doc_id"]): Answer(
                text=cut_at_stops(line["raw_generation"], stops[line["task"]])
            )
            for line in recorded
            if line["task"] in EXTRACTIONS
        }
    recorded = [line for line in lines("golden_mmlu_fake_outputs.jsonl") if line["run"] == run]
    return {
        (line["task"], line["doc_id"]): Answer(loglikelihoods=tuple(line["ll"]))
        for line in recorded
    }


RUNS = (
    "mmlu_sample/fine", "mmlu_sample/coarse", "mmlu_sample/skilled", "mmlu_sample_uneq/skilled",
    "mmlu_sample_one_doc_subject/skilled", "gsm8k_sample",
)  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_metrics_match_the_harness(run: str) -> None:
    given = answers(run)
    asked = [request for key, request in requests().items() if key in given]
    assert len(asked) == len(given) > 0
    samples = score(
        asked, {request.id: (given[request.task, request.doc_id],) for request in asked}
    )
    mine = results(scores(samples, TASKS), asked)
    golden = json.loads((GOLDEN / "golden_metrics.json").read_text())["runs"][run]["results"]
    golden.pop("gsm8k_8shot_firstn", None)  # not a task of the harness
    assert set(mine) == set(golden)
    for name, expected in golden.items():
        assert mine[name] == {key: _approximately(value) for key, value in expected.items()}, name


def _approximately(value: Any) -> Any:
    return pytest.approx(value, rel=0, abs=1e-12) if isinstance(value, float) else value


def test_units_of_standard_errors_and_pass_at_k() -> None:
    golden = json.loads((GOLDEN / "golden_metrics.json").read_text())
    for unit in golden["pass_at_k_unit"]:
        assert pass_at_k(unit["n"], unit["c"], unit["k"]) == pytest.approx(
            unit["pass_at_k"], rel=0, abs=1e-12
        )
    for unit in golden["stderr_unit"]["mean_stderr"]:
        assert mean_stderr(unit["x"]) == pytest.approx(unit["stderr"], rel=0, abs=1e-12)
    for unit in golden["stderr_unit"]["pooled"]:
        assert pooled_stderr(unit["stderrs"], unit["sizes"]) == pytest.approx(
            unit["pooled"], rel=0, abs=1e-12
        )
