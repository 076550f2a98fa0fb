"""jobs/generate_dataset.py, whole but for Ray and JAX: replicas are fakes that answer sums."""

import contextlib
import dataclasses
import functools
import json
import os
import random
import re
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from actors.protocol.messages import Request
from jobs import generate_dataset
from jobs.cli.exit_codes import ExitCode
from jobs.run.backend import Backend
from jobs.synthesis.early_stopping import StoredStop
from pipeline import storage
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs import sums
from tests.jobs.synthesis.immediate import Immediate

Main = Callable[..., int]
# Plots of the report take longer than the run of fakes.
SUMS = FakeBackend(answer=sums.answer, draws_plots=False)
IN_ORDER = dataclasses.replace(SUMS, batches_in_flight=1)  # shards finish one after the other
ROWS, N = 40, 3
SAMPLES = ROWS * N
RULES = (
    "--parse-regex",
    r"(?P<answer>\d+)",
    "--fields.answer",
    "int64",
    "--where",
    "answer == a + b",
    "--dedup",
    "none",
)
FLAGS = (
    "--model",
    "demo",
    "--templates.sum",
    sums.TEMPLATE,
    "--templates.words",
    "What is {{ a }} + {{ b }}?",
    "--max-tokens",
    "4",
    "--n",
    str(N),
    "--temperature",
    "1",
    "--shard-rows",
    "6",
)


@pytest.fixture
def main(tmp_path: Path) -> Main:
    source = sums.seeds(tmp_path / "seeds.parquet", ROWS)

    def call(*words: object, backend: Backend = SUMS, executor: Executor | None = None) -> int:
        step = [str(words[0])] if words and words[0] in (*generate_dataset.STEPS, "prompt") else []
        flags = [*step, "-i", str(source), *FLAGS, *map(str, words[len(step) :])]
        return generate_dataset.main(flags, backend, executor)

    return call


@pytest.fixture
def main_in_order(main: Main) -> Main:
    """Commits one shard after the other, and selects from each before the next one."""
    return functools.partial(main, backend=IN_ORDER, executor=Immediate())


SMALL_BATCHES = ("--batch-tokens", 64)


def rows(folder: Path | str, kind: str = "data") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        ds.dataset(f"{folder}/{kind}", partitioning="hive").to_table().to_pylist()
    )
    return found


def statistics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "statistics.json").read_text())
    return found


def tables(folder: Path) -> dict[str, bytes]:
    """The files of a data set that do not tell where and when it was made."""
    names = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"run.json", "sources.json"}
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def test_job_runs_all_steps_and_does_nothing_when_complete(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-o", tmp_path / "out", *RULES) == 0
    accepted, rejected = (
        rows(tmp_path / "out" / "dataset"),
        rows(tmp_path / "out" / "dataset", "rejected"),
    )
    assert all(
        row["answer"] == row["a"] + row["b"] and row["completion"] == f" {row['answer']}"
        for row in accepted
    )
    assert {row["template"] for row in accepted} == {"sum", "words"}
    assert {(row["stage"], row["reason"]) for row in rejected} == {
        ("template", "null_value"),
        ("where", "answer == a + b"),
    }
    assert len(accepted) + sum(row["samples"] for row in rejected) == SAMPLES
    assert {
        (row["id"], row["sample_index"])
        for row in accepted + rejected
        if row["sample_index"] is not None
    } == {(f"s{row}", sample) for row in range(ROWS) if row % 13 != 5 for sample in range(N)}
    said = capsys.readouterr().out
    assert f"{SAMPLES} samples of {ROWS} seed rows" in said
    assert "README.md" in said
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert main("-o", tmp_path / "out", *RULES) == 0
    assert capsys.readouterr().out.count("nothing to do: ") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_separate_steps_give_the_same_dataset(main: Main, tmp_path: Path) -> None:
    prompts, run, apart = tmp_path / "p", tmp_path / "r", tmp_path / "d"
    assert main("-o", tmp_path / "out", *RULES) == 0
    assert main("prompts", "-o", prompts) == 0
    assert main("run", "--prompts", prompts, "-o", run) == 0
    assert main("select", "--prompts", prompts, "--completions", run, "-o", apart, *RULES) == 0
    assert tables(apart) == tables(tmp_path / "out" / "dataset")
    assert "_SUCCESS" in tables(apart)


def test_another_selection_of_a_run_needs_another_dataset(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main("-o", out, *RULES) == 0
    assert main("-o", out, *RULES, "--choose", "best") == 2, "before anything is run"
    assert (
        'rules.choose was "all", is "best"; repeat the command it was started with, or choose '
        "another --dataset" in (capsys.readouterr().err)
    )
    parts = {path: path.stat().st_mtime_ns for path in (out / "completions").rglob("*")}
    assert main("-o", out, *RULES, "--choose", "best", "--dataset", "best") == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "completions").rglob("*")} == parts
    kept = rows(out / "best")
    assert len({row["id"] for row in kept}) == len(kept) < len(rows(out / "dataset"))


def test_target_ends_run_early_and_higher_target_continues(
    main_in_order: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main_in_order("-o", out, *RULES, *SMALL_BATCHES, "--target-rows", 5) == 0
    said = capsys.readouterr()
    # The first shard is enough; how many others are complete when that is noticed, the machine
    # decides.
    [committed] = re.findall(
        r"ended early, with enough rows: (\d) of 7 shards are committed", said.out
    )
    assert int(committed) in range(1, 7)
    assert "| accepted 5/5" in said.err
    assert json.loads((out / "completions" / "report.json").read_text())["status"] == "enough"
    assert not (out / "completions" / "_SUCCESS").exists()
    few = rows(out / "dataset")
    assert len(few) == 5
    found = statistics(out / "dataset")
    assert (found["stopped_by"], found["seed_rows"] + found["seed_rows_not_needed"]) == (
        "target_rows",
        ROWS,
    )
    assert (
        found["samples"]
        == found["accepted"] + found["rejected"] + found["failed"]
        == found["seed_rows"] * N
    )
    assert main_in_order("-o", out, *RULES, "--target-rows", 5) == 0
    assert main_in_order("-o", out, *RULES, "--target-rows", 20, "--dataset", "more") == 0
    more = rows(out / "more")
    assert len(more) == 20
    assert more[:5] == few
    assert main_in_order("-o", tmp_path / "whole", *RULES, "--target-rows", 20) == 0
    assert tables(tmp_path / "whole" / "dataset") == tables(out / "more")


def test_missed_target_sets_exit_code(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-o", tmp_path / "out", *RULES, "--target-rows", 5000) == 6
    accepted = len(rows(tmp_path / "out" / "dataset"))
    assert (
        f"{accepted} rows were accepted, fewer than --target-rows 5,000: all seed rows were used;"
        in capsys.readouterr().err
    )
    assert statistics(tmp_path / "out" / "dataset")["stopped_by"] is None
    assert main("-o", tmp_path / "out", *RULES, "--target-rows", 5000) == 6
    assert (tmp_path / "out" / "dataset" / "_SUCCESS").exists()


def test_token_budget_ends_the_run(main: Main, tmp_path: Path) -> None:
    assert main("-o", tmp_path / "out", *RULES, "--max-total-tokens", 200) == 0
    found = statistics(tmp_path / "out" / "dataset")
    assert found["stopped_by"] == "max_total_tokens"
    assert 200 <= sum(found["tokens"].values()) < 230
    assert found["reasons"]["stop"] == {"max_total_tokens": sum(found["reasons"]["stop"].values())}


def test_replica_hours_budget_stores_where_the_run_ended(
    main_in_order: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The budget is used up when the first shard is committed."""
    hours = "1e-12"
    out = tmp_path / "out"
    # many small shards: few of them are in flight when the first one is committed
    words = (*RULES, *SMALL_BATCHES, "--shard-rows", 1)
    assert main_in_order("-o", out, *words, "--max-replica-hours", hours) == 75
    assert "a higher --max-replica-hours and another --dataset" in capsys.readouterr().err
    found = statistics(out / "dataset")
    assert found["stopped_by"] == "max_replica_hours"
    assert 0 < found["seed_rows"] < ROWS
    assert StoredStop(str(out / "completions"), float(hours)).blocks() is not None
    (out / "dataset" / "_SUCCESS").unlink()
    before = tables(out / "dataset")
    # more of the run may be committed by now: it does not count
    assert main_in_order("-o", out, *words, "--max-replica-hours", hours) == 75
    assert {
        name: data for name, data in tables(out / "dataset").items() if name != "_SUCCESS"
    } == before
    assert main_in_order("-o", out, *words, "--max-replica-hours", 100, "--dataset", "all") == 0
    assert statistics(out / "all")["seed_rows"] == ROWS
    assert main_in_order("-o", tmp_path / "none", *RULES, "--max-replica-hours", 0) == 75
    assert "--max-replica-hours 0 were used up before the first shard" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules",
    [("--target-rows", "20", "--choose", "best"), ("--dedup", "near", "--dedup-on", "completion")],
)
def test_run_killed_repeatedly_gives_the_same_bytes(
    rules: tuple[str, ...], main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver dies at random objects that it creates, from the first prompt to the data card.

    Other replicas each time.
    """
    words = [*RULES, *rules]
    assert main("-o", tmp_path / "whole", *words) == 0
    link, draw = os.link, random.Random(len(rules))

    def dying(temporary: Any, target: Any) -> None:
        if draw.random() < 0.15:
            raise KeyboardInterrupt
        link(temporary, target)

    lives, code = 0, None
    while code in (None, ExitCode.INTERRUPTED) and lives < 60:
        lives += 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", dying)
            backend = dataclasses.replace(SUMS, seed=lives)
            with contextlib.suppress(KeyboardInterrupt):
                code = main("-o", tmp_path / "out", *words, backend=backend)
    assert code == 0
    assert lives > 3
    assert tables(tmp_path / "out" / "dataset") == tables(tmp_path / "whole" / "dataset")


def test_failed_rows_are_rejected_and_can_be_retried(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def poison(request: Request) -> bool:
        return request.ref.shard == 1 and request.ref.row == 2

    poisoned = dataclasses.replace(SUMS, poison=poison)
    out = tmp_path / "out"
    assert main("-o", out, *RULES, "--max-error-rate", 0.5, backend=poisoned) == 3
    found = statistics(out / "dataset")
    assert (found["failed"], found["reasons"]["generation"]) == (N, {"engine_crash": N})
    assert found["samples"] == found["accepted"] + found["rejected"] + found["failed"] == SAMPLES
    assert [
        row["detail"] is not None
        for row in rows(out / "dataset", "rejected")
        if row["stage"] == "generation"
    ] == [True] * N
    strict = ("-o", tmp_path / "strict", *RULES, "--max-error-rate", 0)
    assert main(*strict, backend=poisoned) == 4
    assert not (tmp_path / "strict" / "dataset").exists()
    capsys.readouterr()
    assert main("-o", out, *RULES, "--retry-failed") == 1
    assert "rows were run again since; choose another --dataset" in capsys.readouterr().err
    assert main("-o", out, *RULES, "--dataset", "mended") == 0
    assert main("-o", tmp_path / "whole", *RULES) == 0
    assert tables(out / "mended") == tables(tmp_path / "whole" / "dataset")


def test_retry_of_ended_run_runs_failed_rows_only(main: Main, tmp_path: Path) -> None:
    def poison(request: Request) -> bool:
        return request.ref.shard == 0 and request.ref.row == 0

    poisoned = dataclasses.replace(SUMS, poison=poison)
    out, words = tmp_path / "out", (*RULES, "--target-rows", 5)
    assert main("-o", out, *words, "--max-error-rate", 0.5, backend=poisoned) == 3
    parts = sorted((out / "completions" / "data").iterdir())
    assert main("-o", out, *words, "--retry-failed", "--dataset", "mended") == 0
    assert sorted((out / "completions" / "data").iterdir()) == parts
    assert main("-o", tmp_path / "whole", *words) == 0
    assert tables(out / "mended") == tables(tmp_path / "whole" / "dataset")


def test_too_long_rows_fail_with_all_their_samples(main: Main, tmp_path: Path) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text("".join(json.dumps({"q": f"{n} + {n} = {2 * n}"}) + "\n" for n in range(9)))
    long = (
        "{% for shot in shots %}{{ shot.q }}\n{% endfor %}"
        "{% if a == 7 %}{{ 'word ' * 500 }}{% endif %}{{ a }} + {{ b }} ="
    )
    words = (
        "--templates",
        json.dumps({"t": long}),
        "--shots",
        shots,
        "--shots-per-row",
        2,
        "--max-len",
        64,
        "--max-error-rate",
        0.9,
    )
    assert main("-o", tmp_path / "out", *RULES, *words) == 3
    found = statistics(tmp_path / "out" / "dataset")
    assert (found["failed"], found["reasons"]["generation"]) == (N, {"prompt_too_long": N})
    assert all(row["prompt"].count("\n") == 2 for row in rows(tmp_path / "out" / "dataset"))


def test_rows_set_their_own_number_of_samples(
    tmp_path: Path,
) -> None:
    source = sums.seeds(tmp_path / "s.parquet", 20, n=pa.array([None, 1, 5, 9999] * 5))
    words = [
        "-i",
        str(source),
        "-o",
        str(tmp_path / "out"),
        *FLAGS,
        *RULES,
        "--max-error-rate",
        "1",
    ]
    assert generate_dataset.main(words, SUMS) == 3
    found = statistics(tmp_path / "out" / "dataset")
    assert found["samples"] == 5 * (N + 1 + 5 + 1)
    assert found["reasons"]["generation"] == {"invalid_parameter": 5}
    assert "n" not in rows(tmp_path / "out" / "dataset")[0]


def test_dataset_is_partitioned_by_columns(main: Main, tmp_path: Path) -> None:
    assert (
        main(
            "-o", tmp_path / "out", *RULES, "--partition-by", "template", "--partition-by", "answer"
        )
        == 0
    )
    folders = sorted(path.name for path in (tmp_path / "out" / "dataset" / "data").iterdir())
    assert folders == ["template=sum", "template=words"]
    assert all(row["answer"] == row["a"] + row["b"] for row in rows(tmp_path / "out" / "dataset"))


def test_majority_vote_is_set_by_flags(main: Main, tmp_path: Path) -> None:
    vote = (
        "--parse-regex",
        r"(?P<answer>\d+)",
        "--choose",
        "majority",
        "--vote-on",
        "answer",
        "--min-agreement",
        "0.6",
    )
    assert main("-o", tmp_path / "out", *vote) == 0
    kept = rows(tmp_path / "out" / "dataset")
    assert all(row["votes"] >= 2 and row["voters"] == N for row in kept)
    reasons = statistics(tmp_path / "out" / "dataset")["reasons"]["choose"]
    assert set(reasons) <= {"not the best of the majority", "outvoted", "too little agreement"}


def test_dry_run_prints_prompts_and_writes_nothing(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-o", tmp_path / "out", *RULES, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "0 + 0" in said
    assert "rejected s5: null_value: null, of the columns that it uses: b" in said
    assert f"samples                  {(ROWS - 3) * N} (--n {N})" in said
    assert "prompt_tokens" in said
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_json(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-o", tmp_path / "out", *RULES, "--dry-run", "--json") == 0

    output = json.loads(capsys.readouterr().out)
    assert output["samples"] == (ROWS - 3) * N
    assert output["estimate"]["rows"] == ROWS - 3
    assert len(output["prompts"]) == 3
    assert output["rejected"][0]["reason"] == "null_value"


def test_seeds_without_any_prompt_are_refused_with_an_example(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-o", tmp_path / "out", "--templates", '{t: "{{ a.b.c }}"}') == 2
    assert (
        "none of 40 seed rows gave a prompt; the first: undefined_value ('int object' has no "
        "attribute 'b')" in (capsys.readouterr().err)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--output is missing"),
        (("run", "-o", "x"), "--prompts is missing"),
        (("select", "-o", "x", "--prompts", "y"), "--completions is missing"),
        (
            ("-o", "{0}", "--templates.sum", "{{{{ c }}}} + {{{{ b }}}}"),
            "sum: the seeds have no column 'c'",
        ),
        (("-o", "{0}", "--templates.sum", "{{{{ a }} + {{{{ b }}}}"), "sum: line 1"),
        (("-o", "{0}", "--templates", "{{t: {{file: {0}/no.j2}}}}"), "no.j2: it does not exist"),
        (
            ("-o", "{0}", "--templates", "{{t: {{txt: x}}}}"),
            "t: unknown key 'txt', expected text, file, weight",
        ),
        (
            ("-o", "{0}", "--templates", "{{t: {{text: x, file: y}}}}"),
            "expected either text or file",
        ),
        (
            ("-o", "{0}", "--templates", "{{t: {{text: x, weight: heavy}}}}"),
            "weight: expected a number, got 'heavy'",
        ),
        (("-o", "{0}", "--templates", "[1]"), "--templates: Expected a dict"),
        (("-o", "{0}", "--templates.t", "3"), "t: expected a text"),
        (("-o", "{0}", "--shots", "x.jsonl"), "--shots and --shots-per-row belong together"),
        (("-o", "{0}", "--temperature", "0"), "--n: 3 greedy samples are all the same"),
        (
            ("-o", "{0}", "--n", "1", "--choose", "best"),
            "there is one sample of each prompt to choose from",
        ),
        (("-o", "{0}", "--dataset", "../up"), "--dataset: expected the name of a folder"),
        (("-o", "{0}", "--where", "answr == 1"), "no column 'answr'"),
        (("-o", "{0}", "--must-match", "a(b"), "missing ): a(b (position 1)"),
        (
            ("-o", "{0}", "--partition-by", "mean_logprob"),
            "expected a column of strings, integers or booleans",
        ),
        (("-o", "{0}", "--file-mb", "0"), "--file-mb: expected from 1 to 4096, got 0"),
        (
            ("-o", "{0}", "--max-tokens", "0"),
            "--max-tokens: expected an integer of at least 1, got 0",
        ),
        (("-o", "{0}", "--keep", "z"), "--keep: the seeds have no column 'z'"),
        (("prompt", "-o", "{0}"), "prompt"),
        (("-o", "{0}", "--resume", "require"), "holds no run to resume"),
        (("run", "--prompts", "{0}/nowhere", "-o", "{0}"), "holds no complete prompts"),
        (("select", "--prompts", "{0}", "--completions", "{0}", "-o", "{0}/x"), "run.json"),
    ],
)
def test_invalid_flags_are_refused_before_the_run(
    words: tuple[str, ...],
    message: str,
    main: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(*(word.format(tmp_path) for word in words)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_folder_refuses_other_prompts_and_sampling(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main("-o", out, *RULES) == 0
    assert main("-o", out, *RULES, "--templates.sum", "{{ b }} + {{ a }} =") == 2
    assert (
        "prompts holds a run of another configuration: templates was"
        in capsys.readouterr().err.replace(str(out) + "/", "")
    )
    assert main("-o", out, *RULES, "--top-k", 5) == 2
    assert (
        "completions holds a run of another configuration: sampling.top_k was 0, is 5"
        in capsys.readouterr().err
    )
    assert main("-o", out, *RULES, "--resume", "never") == 2


def test_json_log_format_writes_events_to_stderr_only(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def events(code: int, *words: object) -> list[dict[str, Any]]:
        assert main("-o", tmp_path / "out", *RULES, "--log-format", "json", *words) == code
        said = capsys.readouterr()
        assert said.out == ""
        return [json.loads(line) for line in said.err.splitlines()]

    first = events(6, "--target-rows", 5000)
    told = {each["event"]: each for each in first}
    assert {"prompts", "started", "results", "finished", "dataset", "short"} <= set(told)
    assert (told["prompts"]["rows"], told["prompts"]["rejected"]) == (ROWS - 3, 3)
    assert (
        told["dataset"]["accepted"]
        == told["short"]["accepted"]
        == len(rows(tmp_path / "out" / "dataset"))
    )
    assert told["dataset"]["run"] == told["prompts"]["run"] != told["finished"]["run"]
    assert [each["event"] for each in events(6, "--target-rows", 5000)].count("complete") == 2
    (refused,) = events(2, "--where", "answr == 1")
    assert (refused["event"], refused["level"], refused["exit_code"], refused["error"]) == (
        "error",
        "error",
        2,
        "ConfigError",
    )
    assert events(2, "--target-rows", 5000, "--choose", "best")[-1]["exit_code"] == 2


@pytest.mark.slow
@pytest.mark.s3
def test_dataset_on_s3_is_the_same(main: Main, s3_url: str, tmp_path: Path) -> None:
    words = (*RULES, "--target-rows", "20", "--partition-by", "template")
    assert main("-o", tmp_path / "out", *words) == 0
    storage.put_if_absent(
        f"{s3_url}/seeds/part-0.parquet", (tmp_path / "seeds.parquet").read_bytes()
    )
    stored_words = ["-i", f"{s3_url}/seeds", "-o", f"{s3_url}/out", *FLAGS, *words]
    assert generate_dataset.main(stored_words, SUMS) == 0
    prefix = f"{s3_url}/out/dataset/"
    stored = {
        each.url.removeprefix(prefix): storage.read(each.url)[0]
        for each in storage.list_objects(prefix)
    }
    local = tables(tmp_path / "out" / "dataset")
    assert {name: stored[name] for name in local if name != "README.md"} == {
        name: data for name, data in local.items() if name != "README.md"
    }
    assert generate_dataset.main(stored_words, SUMS) == 0
