"""jobs/evaluate.py, whole but for Ray and JAX: replicas are fakes that answer by arithmetic.

And what MMLU costs an engine.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.messages import Request
from jobs import evaluate
from jobs.cli.parser import parse
from jobs.evaluation.config import EvaluateConfig
from jobs.run.backend import Backend
from pipeline import storage
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests, read_requests
from pipeline.evals.suite import PromptOptions
from pipeline.requests.tokenizer import Tokenizer
from tests.actors.engine.engines import make_engine, model_config, run, score
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import DEMO, ROOT, environment, table
from tests.pipeline.evals import own_data

TASKS = "mmlu,gsm8k_cot,humaneval"
LETTERS = (" A", " B", " C", " D")
Main = Callable[..., int]
FAKE = FakeBackend()
FAILED_ROWS = 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return own_data.write(tmp_path / "data")


@pytest.fixture
def main(data: Path) -> Main:
    model = ["--model", "demo", "--data", str(data)]

    def call(*words: object, backend: Backend = FAKE) -> int:
        return evaluate.main([*map(str, words), *model], backend)

    return call


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def answer_file(path: Path, requests: Path, *, right: bool) -> Path:
    """Writes output rows as another engine might: the columns of the contract that matter."""
    rows = []
    for request in read_requests(str(requests)):
        good = list(request.choices or ()).index(request.target) if request.choices else 0
        scores = (
            [-1.0 if right and n == good else -2.0 - n for n in range(4)]
            if request.choices
            else None
        )
        text = None if request.choices else f" The answer is {request.target if right else 5}."
        rows.append(
            {
                "id": request.id,
                "sample_index": 0,
                "status": "ok",
                "text": text,
                "loglikelihood": scores,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.slow
def test_evaluation_of_all_steps_can_be_repeated(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "--tasks",
        TASKS,
        "-o",
        tmp_path / "run",
        "--history",
        tmp_path / "history",
        "--name",
        "v1",
    )
    assert main(*words) == 0
    content = metrics(tmp_path / "run")
    assert set(content["results"]) == {
        *(f"mmlu_{subject}" for subject in own_data.SUBJECTS),
        "mmlu_stem",
        "mmlu_social_sciences",
        "mmlu",
        "gsm8k_cot",
        "humaneval",
    }
    assert content["results"]["mmlu"]["sample_len"] == 9
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!DOCTYPE html>")
    before = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "run").rglob("*")
        if path.suffix == ".parquet"
    }
    capsys.readouterr()
    assert main(*words) == 0
    assert capsys.readouterr().out.count("nothing to do: the run in") == 2
    assert metrics(tmp_path / "run") == content
    assert {path: path.stat().st_mtime_ns for path in before if path.name != "samples.parquet"} == {
        path: at for path, at in before.items() if path.name != "samples.parquet"
    }
    assert len(list((tmp_path / "history" / "runs").iterdir())) == 1


def test_evaluation_after_its_deadline_starts_nothing(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("--tasks", "gsm8k_cot", "-o", tmp_path / "run", "--deadline", "0s") == 75
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("interrupted: --deadline 20")
    assert message.endswith("to go on, repeat the command with a later --deadline")


@pytest.mark.slow
def test_separate_steps_give_the_same_results(main: Main, tmp_path: Path) -> None:
    requests, out = tmp_path / "requests.parquet", tmp_path / "apart"
    assert main("--tasks", TASKS, "-o", tmp_path / "run") == 0
    assert main("prompts", "--tasks", "mmlu", "--tasks", "gsm8k_cot,humaneval", "-o", requests) == 0
    assert requests.read_bytes() == (tmp_path / "run" / "requests.parquet").read_bytes()
    assert main("run", "--requests", requests, "-o", out) == 0
    assert main("report", "--requests", requests, "--outputs", out, "-o", tmp_path / "report") == 0
    one, other = metrics(tmp_path / "run"), metrics(tmp_path / "report")
    assert one.pop("run") != other.pop("run")
    assert one == other


@pytest.mark.slow
def test_regression_exits_5_and_equal_run_exits_0(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = tmp_path / "requests.parquet"
    assert main("prompts", "--tasks", "mmlu,gsm8k_cot", "-o", requests) == 0
    codes = []
    for name, right in (("first", True), ("same", True), ("worse", False)):
        outputs = answer_file(tmp_path / f"{name}.parquet", requests, right=right)
        flags = (
            "--requests",
            requests,
            "--outputs",
            outputs,
            "--history",
            tmp_path / "history",
            "--name",
            name,
            # p of mmlu's 6 lost documents of 9 is 0.03, and 0.09 as one of three comparisons
            "--confidence",
            0.9,
        )
        codes.append(main("report", *flags, "-o", tmp_path / name))
    assert codes == [0, 0, 5]
    assert metrics(tmp_path / "first")["results"]["mmlu"]["acc,none"] == 1.0
    worse = metrics(tmp_path / "worse")
    assert {each["task"]: each["regression"] for each in worse["comparisons"]} == {
        "mmlu": True,
        "gsm8k_cot": False,
    }  # 5 documents
    assert "against the last and best run same: REGRESSION" in capsys.readouterr().out
    lenient = (
        "--requests",
        requests,
        "--outputs",
        outputs,
        "--history",
        tmp_path / "history",
        "--name",
        "worse",
        "--margin",
        1,
    )
    assert main("report", *lenient, "-o", tmp_path / "lenient") == 0


def test_bundled_evaluation_needs_no_data(tmp_path: Path) -> None:
    words = ["--tasks", "demo", "--model", "demo", "-o", str(tmp_path / "run"), "--limit", "6"]
    assert evaluate.main(words, FAKE) == 0
    results = metrics(tmp_path / "run")["results"]
    assert set(results) == {"demo", "demo_choice", "demo_answer"}
    assert results["demo_choice"]["sample_len"] == 6
    assert {"acc,none", "exact_match,none"} <= set(results["demo"])


def test_demo_compares_two_runs_and_names_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--demo", "-o", str(tmp_path), "--limit", "4"], FAKE) == 0

    for name in ("bfloat16", "float32"):
        results = metrics(tmp_path / name)["results"]
        assert set(results) == {"demo_mmlu", "demo_gsm8k", "demo_answer"}
    assert len(list((tmp_path / "history" / "runs").iterdir())) == 2
    printed = capsys.readouterr().out
    assert "evaluation 2 of 2: the demo model in float32" in printed
    assert "demo_mmlu" in printed
    assert "next" not in printed
    assert "grok_batch show" not in printed, "no summary of the single jobs"
    assert "requests " not in printed
    report = tmp_path / "float32" / "report.html"
    assert printed.splitlines()[-1].startswith(f"open {report}: ")
    assert "bfloat16" in report.read_text()


def test_demo_runs_all_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["run", "--demo"], FAKE) == 2
    assert "--demo runs all steps; leave out run" in capsys.readouterr().err


def test_failed_rows_count_as_wrong_and_exit_3(main: Main, tmp_path: Path) -> None:
    assert (
        main("--tasks", "mmlu", "-o", tmp_path / "run", "--max-len", 500, "--max-error-rate", 0.9)
        == 3
    )
    content = metrics(tmp_path / "run")
    assert content["failed"] == 6  # the prompts of two subjects are longer
    assert content["results"]["mmlu_abstract_algebra"]["acc,none"] == 0.0


@pytest.mark.parametrize("fails", ["score", "generate"])
def test_stopped_run_is_scored_as_far_as_it_went_and_continues(
    fails: str, main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = tmp_path / "history"
    words = ("--tasks", "mmlu,gsm8k_cot", "-o", tmp_path / "run", "--history", history)
    is_generated = fails == "generate"

    def is_poison(request: Request) -> bool:
        return (request.sampling is not None) == is_generated and request.ref.row < FAILED_ROWS

    poisoned = FakeBackend(poison=is_poison)
    assert main(*words, "--max-error-rate", 0, backend=poisoned) == 4

    works = "score" if is_generated else "generate"
    assert (tmp_path / "run" / works / "_SUCCESS").exists()
    content = metrics(tmp_path / "run")
    assert content["failed"] == FAILED_ROWS
    assert "missing" not in content
    assert {"mmlu", "gsm8k_cot"} <= set(content["results"])
    printed = capsys.readouterr()
    message = f"the run is not complete: {FAILED_ROWS} of 14 requests failed"
    assert message in printed.out + printed.err
    assert not history.exists()

    assert main(*words, "--retry-failed") == 0
    assert metrics(tmp_path / "run")["failed"] == 0
    assert metrics(tmp_path / "run")["results"]["gsm8k_cot"]["sample_len"] == own_data.PROBLEMS
    assert history.exists()


def test_rows_that_cannot_run_stop_the_job_before_it_starts(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("--tasks", "mmlu,gsm8k_cot", "-o", tmp_path / "run", "--max-len", 500) == 2
    message = capsys.readouterr().err
    assert "6 of 9 requests in" in message
    assert "cannot run, the first one (id mmlu_" in message
    assert "(--max-len 500" in message
    assert "--max-error-rate allows 4, so nothing was started" in message
    assert not (tmp_path / "run" / "score").exists()
    assert not (tmp_path / "run" / "generate").exists()


def test_missing_output_rows_count_as_wrong_on_request(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = tmp_path / "requests.parquet"
    assert main("prompts", "--tasks", "mmlu", "-o", requests) == 0
    outputs = answer_file(tmp_path / "outputs.parquet", requests, right=True)
    pq.write_table(pq.read_table(outputs).slice(0, 6), outputs)
    flags = ("report", "--requests", requests, "--outputs", outputs, "-o", tmp_path / "report")
    assert main(*flags) == 2
    assert "3 of 9 requests have no output row" in capsys.readouterr().err

    history = tmp_path / "history"
    assert main(*flags, "--allow-missing", "true", "--history", history) == 3
    content = metrics(tmp_path / "report")
    assert (content["failed"], content["missing"]) == (3, 3)
    assert content["results"]["mmlu"]["acc,none"] == pytest.approx(6 / 9)
    assert "3 of these have no output row" in (tmp_path / "report" / "report.html").read_text()
    assert not history.exists()


def test_programs_are_executed_on_request(main: Main, tmp_path: Path) -> None:
    requests = tmp_path / "requests.parquet"
    main("prompts", "--tasks", "humaneval", "-o", requests)
    bodies = {
        "humaneval/0": "    return a + b\n",
        "humaneval/1": "    return 2 * a\n",
        "humaneval/2": "    return a\n",
    }
    pq.write_table(
        pa.table({"id": list(bodies), "text": list(bodies.values())}), tmp_path / "o.parquet"
    )
    flags = (
        "report",
        "--requests",
        requests,
        "--outputs",
        tmp_path / "o.parquet",
        "-o",
        tmp_path,
        "--program-timeout-s",
        30,
    )
    assert main(*flags) == 0
    assert "pass@1,create_test" not in metrics(tmp_path)["results"]["humaneval"]
    assert main(*flags, "--execute-programs") == 0
    assert metrics(tmp_path)["results"]["humaneval"]["pass@1,create_test"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "x"), "--tasks is missing"),
        (("--tasks", "mmlu"), "--output is missing"),
        (("run", "-o", "x"), "--requests is missing"),
        (("report", "--requests", "x", "-o", "y"), "--outputs is missing"),
        (("--tasks", "mmmlu", "-o", "{0}"), "got 'mmmlu'"),
        (("--tasks", "mmlu", "-o", "{0}", "--mesh", "x"), "--mesh: expected DATAxMODEL"),
        (("--tasks", "mmlu", "-o", "{0}", "--samples", "4"), "--samples: 4 greedy completions"),
        (
            ("--tasks", "mmlu", "-o", "{0}", "--margin", "2"),
            "--margin: expected from 0 to 1, got 2",
        ),
        (("prompt", "--tasks", "mmlu", "-o", "{0}"), "prompt"),
        (("run", "--requests", "/nowhere.parquet", "-o", "{0}"), "/nowhere.parquet"),
        (("--tasks", "mmlu", "-o", "{0}", "--history", "{0}/data/mmlu"), "{0}"),
    ],
)
def test_invalid_flags_are_refused(
    words: tuple[str, ...],
    message: str,
    main: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data" / "mmlu" / "runs").symlink_to(tmp_path / "data" / "mmlu" / "all")
    assert main(*(word.format(tmp_path) for word in words)) == 2
    assert message.format(tmp_path) in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.s3
def test_data_run_and_history_on_object_storage(s3_url: str, data: Path) -> None:
    for file in own_data.files(data):
        storage.put_if_absent(f"{s3_url}/data/{file.relative_to(data)}", file.read_bytes())
    words = [
        "--tasks",
        "mmlu,gsm8k_cot",
        "--data",
        f"{s3_url}/data",
        "-o",
        f"{s3_url}/run",
        "--model",
        "demo",
    ]
    assert evaluate.main([*words, "--history", f"{s3_url}/history"], FAKE) == 0
    assert read_requests(f"{s3_url}/run/requests.parquet") == tuple(
        build_requests(["mmlu", "gsm8k_cot"], DataFolder(str(data)), PromptOptions())
    )
    before = storage.list_objects(f"{s3_url}/history")
    assert len(before) == 2
    assert evaluate.main([*words, "--history", f"{s3_url}/history"], FAKE) == 0
    assert storage.list_objects(f"{s3_url}/history") == before


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_both_kinds_of_rows_run_on_real_replicas_of_one_job(data: Path, tmp_path: Path) -> None:
    flags = ["--model", "demo", "--dtype", "float32", "--mesh", "1x1"]
    words = [
        "--tasks",
        "mmlu_anatomy,gsm8k_cot",
        "--data",
        data,
        "-o",
        tmp_path / "run",
        "--limit",
        2,
        *flags,
    ]
    command = [sys.executable, "jobs/evaluate.py", *map(str, words)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scored, completed = table(tmp_path / "run" / "score"), table(tmp_path / "run" / "generate")
    assert [len(each) for each in scored["loglikelihood"].to_pylist()] == [4, 4]
    assert max(scored["cached_tokens"].to_pylist()) > 400  # the shots, which the other row computed
    assert [0 < count <= 256 for count in completed["completion_tokens"].to_pylist()] == [
        True,
        True,
    ]
    assert metrics(tmp_path / "run")["results"]["gsm8k_cot"]["sample_len"] == 2


def test_other_requests_are_not_put_into_the_same_folder(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = tmp_path / "requests.parquet"
    assert main("prompts", "--tasks", "mmlu", "-o", requests) == 0
    assert main("prompts", "--tasks", "mmlu", "-o", requests) == 0
    assert main("prompts", "--tasks", "mmlu", "-o", requests, "--limit", 1) == 2
    assert "holds other requests" in capsys.readouterr().err


def test_sample_configuration_is_valid() -> None:
    config = parse(
        EvaluateConfig,
        ["-C", str(ROOT / "jobs" / "configs" / "nightly.yaml")],
        program="x",
        description="",
    )
    config.require("all")
    assert set(config.task_names()) == {"mmlu", "gsm8k_cot"}


def test_mmlu_prefills_shots_once_per_subject(data: Path) -> None:
    """Real prompts, with shots and questions shortened to what a small engine holds."""
    requests = build_requests(["mmlu"], DataFolder(str(data)), PromptOptions())
    tokenizer = Tokenizer((DEMO / "tokenizer.model").read_bytes())
    encoded = tokenizer.encode([request.prompt for request in requests])
    with_letters = tokenizer.encode([requests[0].prompt + letter for letter in LETTERS])
    assert [len(ids) - len(encoded[0]) for ids in with_letters] == [1] * 4

    prefix_lengths = _prefix_lengths([request.task for request in requests], encoded)
    vocab_size = model_config("mha").vocab_size
    prompts = []
    question_tokens = 0
    for request, ids in zip(requests, encoded, strict=True):
        prefix_length = prefix_lengths[request.task]
        shots = ids[prefix_length - 50 : prefix_length]
        question = ids[prefix_length:][:30]
        question_tokens += len(question)
        prompts.append([token % vocab_size for token in shots + question])

    page_size = 8
    engine = make_engine(page_size=page_size)
    choices = [[number] for number in range(4)]
    rows = [score(number, prompt, *choices) for number, prompt in enumerate(prompts)]
    completions = run(engine, rows)
    assert [len(completion.scores) for completion in completions] == [4] * len(prompts)

    distinct_tokens = 50 * len(prefix_lengths) + question_tokens
    # only full pages are shared: the shots at the beginning of a question's page are repeated
    most_tokens = distinct_tokens + len(prompts) * page_size
    assert engine.stats().prefill_tokens < most_tokens < 0.7 * sum(map(len, prompts))


def _prefix_lengths(tasks: list[str], ids: list[list[int]]) -> dict[str, int]:
    """Returns the number of tokens that all prompts of a task begin with."""
    prompts: dict[str, list[list[int]]] = {}
    for task, prompt in zip(tasks, ids, strict=True):
        prompts.setdefault(task, []).append(prompt)

    lengths = {}
    for task, task_prompts in prompts.items():
        columns = enumerate(zip(*task_prompts, strict=False))
        lengths[task] = next(position for position, column in columns if len(set(column)) > 1)
    return lengths
