"""The real lm-evaluation-harness over fake replicas, on tasks of our own.

Run by test_evaluate_lm_eval.py in .venv-lm-eval.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("lm_eval", reason="runs in an environment of its own: make lm-eval")

from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from jobs import evaluate_lm_eval
from jobs.evaluate_lm_eval import GrokBatchLM, HarnessConfig
from pipeline.errors import ConfigError, DatasetError
from pipeline.requests.tokenizer import Tokenizer
from pipeline.requests.windows import text_windows
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import DEMO

pytestmark = pytest.mark.filterwarnings("default")  # the harness's libraries warn
EOS = 2
TASKS = {
    "own_choice": (
        "output_type: multiple_choice\ndoc_to_choice: '{{choices}}'\ndoc_to_target: answer\n"
        "metric_list:\n- metric: acc\n"
    ),
    "own_answer": (
        "output_type: generate_until\ndoc_to_target: '{{choices[0]}}'\n"
        "generation_kwargs: {until: ['Q:'], max_gen_toks: 3}\n"
        "metric_list:\n- metric: exact_match\n"
    ),
    "own_text": (
        "output_type: loglikelihood_rolling\ndoc_to_target: '{{question}}'\n"
        "metric_list:\n- metric: word_perplexity\n"
    ),
}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer((DEMO / "tokenizer.model").read_bytes())


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., GrokBatchLM]:
    return lambda **flags: GrokBatchLM(
        HarnessConfig(model="demo", output=str(tmp_path / "run"), **flags), FakeBackend()
    )


def instances(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each) for each in arguments]


def loglikelihood(ids: list[int]) -> float:
    """What the fake replicas say of a continuation."""
    return -sum(ids) / 7


def test_contexts_and_continuations_split_like_the_harness(
    model: Callable[..., GrokBatchLM], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    pairs = [("2 + 3 =", " 5"), ("2 + 3 = ", "5"), ("", "five apples"), ("\n", "five")]
    found = model().loglikelihood(instances(*pairs))
    joined, alone, after_line = tokenizer.encode(["2 + 3 = 5", "five apples", "\nfive"])
    first = joined[len(tokenizer.encode(["2 + 3 ="])[0]) :]
    assert [value for value, _ in found] == pytest.approx(
        [loglikelihood(ids) for ids in (first, first, alone, after_line)]
    )
    [file] = (tmp_path / "run").glob("score-*.parquet")
    assert pq.read_table(file)["prompt_token_ids"].to_pylist()[2:] == [[EOS], [EOS]]


def test_long_texts_are_scored_in_windows_each_token_once(
    model: Callable[..., GrokBatchLM], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    text = "Ana has 12 apples and Ben has 7. " * 9
    [ids] = tokenizer.encode([text])
    assert len(ids) > 3 * 32
    [value, nothing] = model(max_len=32).loglikelihood_rolling(instances((text,), ("",)))
    assert value == pytest.approx(loglikelihood(ids))
    assert nothing == 0.0
    [file] = (tmp_path / "run").glob("score-*.parquet")
    rows = pq.read_table(file).to_pylist()
    assert [token for row in rows for token in row["continuation_token_ids"]] == ids
    assert all(
        len(row["prompt_token_ids"]) + len(row["continuation_token_ids"]) <= 32 for row in rows
    )


@pytest.mark.parametrize("stride", [1, 7, 16, 31])
@pytest.mark.parametrize("tokens", [2, 31, 32, 33, 200])
def test_windows_of_perplexity_are_those_of_the_harness(tokens: int, stride: int) -> None:
    """The first token of the text is the prefix token."""
    pairs = get_rolling_token_windows(list(range(1, tokens)), 0, 31, 32 - stride)
    expected = [make_disjoint_window(pair) for pair in pairs]
    windows = text_windows(tokens, 32, stride)
    ids = list(range(tokens))
    assert expected == [
        (ids[window.start : window.scored], ids[window.scored : window.end]) for window in windows
    ]


def test_completions_follow_the_options_of_the_task(
    model: Callable[..., GrokBatchLM], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    options = {"until": ["\n"], "max_gen_toks": 4, "do_sample": False, "temperature": 0.7}
    lm = model()
    prompts = ("2 + 3 =", "")
    found = lm.generate_until(instances(*((prompt, options) for prompt in prompts)))
    [file] = (tmp_path / "run").glob("generate-*.parquet")
    rows = pq.read_table(file).to_pylist()
    assert [(row["stop"], row["max_tokens"], row["temperature"]) for row in rows] == [
        (["\n"], 4, 0.0)
    ] * 2
    assert rows[1]["prompt_token_ids"] == [EOS]
    assert len(found) == 2
    assert all(isinstance(text, str) for text in found)
    # the run is there
    assert lm.generate_until(instances(*((prompt, options) for prompt in prompts))) == found
    with pytest.raises(ConfigError, match="penalty"):
        lm.generate_until(instances(("x", {"penalty": 1})))


def test_failed_row_raises_instead_of_a_number(model: Callable[..., GrokBatchLM]) -> None:
    with pytest.raises(DatasetError, match=r"row 1 .*prompt_too_long|exit code 4"):
        model(max_len=16, max_error_rate=0.9).loglikelihood(
            instances(("a", " b"), ("word " * 40, " b"))
        )


def test_harness_runs_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {
            "question": f"Q: {n} and {n}?",
            "choices": [f"{n} apples", "many plums", "eggs"],
            "answer": n % 3,
        }
        for n in range(6)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        data_file = tmp_path / "own.jsonl"
        data = (
            f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data_file}}}}}\n"
            "test_split: test\n"
        )
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {name}\n{data}doc_to_text: '{{{{question}}}}'\n{text}"
        )
    flags = [
        "--tasks",
        ",".join(TASKS),
        "--include-path",
        tmp_path,
        "--model",
        "demo",
        "-o",
        tmp_path / "run",
    ]
    assert evaluate_lm_eval.main(list(map(str, flags)), FakeBackend()) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert {name: results[name]["sample_len"] for name in TASKS} == dict.fromkeys(TASKS, 6)
    chosen = [max(range(3), key=lambda n: continuation_score(row, n, tokenizer)) for row in rows]
    assert (
        results["own_choice"]["acc,none"]
        == sum(one == row["answer"] for one, row in zip(chosen, rows, strict=True)) / 6
    )
    assert results["own_answer"]["exact_match,none"] == 0.0
    ids = tokenizer.encode([row["question"] for row in rows])
    words = sum(len(row["question"].split()) for row in rows)
    assert results["own_text"]["word_perplexity,none"] == pytest.approx(
        math.exp(-sum(map(loglikelihood, ids)) / words)
    )


def continuation_score(row: dict[str, Any], choice: int, tokenizer: Tokenizer) -> float:
    context, whole = tokenizer.encode(
        [row["question"], f"{row['question']} {row['choices'][choice]}"]
    )
    return loglikelihood(whole[len(context) :])
