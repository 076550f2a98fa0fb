"""Fingerprints of runs of earlier versions: whoever began a run with one of them goes on with it.

tests/data/regression/fingerprints.json was written by these tests at commit ebe7258 (see pins.py);
questions.parquet beside it is input: its bytes are part of what is pinned, so it must not be
written again.
"""

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from jobs import evaluate, generate_dataset, score_dataset
from pipeline.errors import ConfigError
from pipeline.evals.history import run_identity
from pipeline.evals.requests import read_requests
from pipeline.evals.scoring import common_digest, document_digests
from pipeline.output.run_folder import RunFolder, check_run, fingerprint
from pipeline.storage import StoredObject
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs import sums
from tests.jobs.runs import CONFORMANCE, DEMO, conformance_flags
from tests.memory_s3 import MemoryS3
from tests.pipeline.evals import own_data
from tests.regression import pins

FAKE = FakeBackend(draws_plots=False)
FILE = "fingerprints.json"
QUESTIONS = "questions.parquet"
MANY_FILES = {
    "many/2025/a.jsonl": [{"id": "a0", "prompt": "One two"}, {"id": "a1", "prompt": "héllo"}],
    "many/2025/b.jsonl": [{"id": "b0", "prompt": "A dog is"}],
    "many/c.jsonl": [{"id": "c0", "prompt": "5 + 4 ="}],
}
OTHER_NAMES = [
    {"key": 7, "question": "12 + 7 =", "solution": " 19"},
    {"key": 8, "question": "A dog is an", "solution": " animal"},
]
TOKEN_IDS = [{"prompt_token_ids": [5, 6, 7]}, {"prompt_token_ids": [30, 4], "temperature": 0.5}]
DEMO_FLAGS = ["-i", "questions.parquet", "--model", "demo"]
GENERATE = [*DEMO_FLAGS, "--max-tokens", 8]
CASES: dict[str, list[object]] = {
    "greedy demo": GENERATE,
    "sampled": [
        *GENERATE, "--temperature", 0.8, "--top-p", 0.9, "--top-k", 40, "--min-p", 0.05,
        "--repetition-penalty", 1.1, "--seed", 7, "--stop", "Q:", "--stop", "\n", "--n", 3,
    ],
    "loops cut off": [*GENERATE, "--repetition-max-pattern", 16, "--repetition-min-count", 4],
    "loops cut off, standard count": [*GENERATE, "--repetition-max-pattern", 16],
    "no early end": [*GENERATE, "--min-tokens", 4, "--ignore-eos"],
    "no log-probs": [*GENERATE, "--logprobs", "null"],
    "top log-probs": [*GENERATE, "--logprobs", 2, "--prompt-logprobs", 1],
    "choices scored": [*DEMO_FLAGS, "--task", "score"],
    "perplexity with log-probs": [*DEMO_FLAGS, "--task", "perplexity", "--prompt-logprobs", 2],
    "float32, shorter": [*GENERATE, "--dtype", "float32", "--max-len", 96],
    "other shards": [*GENERATE, "--shard-rows", 2, "--limit", 3],
    "too long prompts cut": [*GENERATE, "--max-len", 12, "--on-overflow", "truncate-left"],
    "token ids, no tokenizer": ["-i", "ids.jsonl", *conformance_flags(), "--max-tokens", 4],
    "another model": [
        "-i", "ids.jsonl", *conformance_flags("gqa"), "--max-tokens", 4, "--max-len", 32,
    ],
    "Grok-1": [
        "-i", "questions.parquet", "--model", "grok-1",
        "--checkpoint", CONFORMANCE / "mha" / "ckpt-0",
        "--tokenizer", DEMO / "tokenizer.model", "--max-tokens", 8,
    ],
    "several files": ["-i", "many", "--model", "demo", "--max-tokens", 8],
    "other column names": [
        "-i", "names.jsonl", "--model", "demo", "--task", "score",
        "--prompt-column", "question", "--continuation-column", "solution", "--id-column", "key",
    ],
}  # fmt: skip
NO_PART = [
    "--replicas", "2:3", "--mesh", "1x2", "--batch-tokens", 64, "--max-attempts", 5,
    "--max-error-rate", 0.5, "--step-timeout-s", 60, "--cost-per-replica-hour", 3,
    "--log-format", "json", "--resume", "auto",
]  # fmt: skip


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    made = pins.memory(monkeypatch)
    pins.put(QUESTIONS, (pins.DATA / QUESTIONS).read_bytes())
    for name, rows in MANY_FILES.items():
        pins.put_lines(name, rows)
    pins.put_lines("names.jsonl", OTHER_NAMES)
    pins.put_lines("ids.jsonl", TOKEN_IDS)
    return made


def run(flags: list[object], output: str = "out") -> dict[str, Any]:
    """Runs the main job over an input of the store and returns run.json."""
    words = [str(word) for word in flags]
    source = words.index("-i") + 1
    words[source] = f"{pins.ROOT}/{words[source]}"
    assert score_dataset.main([*words, "-o", f"{pins.ROOT}/{output}"], FAKE) == 0
    return RunFolder(f"{pins.ROOT}/{output}").description()


def told(description: dict[str, Any]) -> dict[str, Any]:
    """What is pinned of run.json."""
    return {"fingerprint": description["fingerprint"], "keys": description["fingerprint_keys"]}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("case", CASES)
def test_fingerprint_of_a_run_is_that_of_earlier_versions(case: str) -> None:
    pins.check(FILE, case, told(run(CASES[case])))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("case", CASES)
def test_run_that_an_earlier_version_began_goes_on(case: str) -> None:
    """With the run.json that it left, and no part yet."""
    began = json.loads((pins.DATA / FILE).read_text())[case]
    left = json.dumps(
        {"fingerprint": began["fingerprint"], "fingerprint_keys": began["keys"]}
    ).encode()
    pins.put("out/run.json", left)
    run([*CASES[case], "--resume", "require"])
    folder = RunFolder(f"{pins.ROOT}/out")
    assert folder.finished()
    assert check_run(folder, began["keys"], {}, resume="require")
    with pytest.raises(ConfigError, match="dtype"):
        check_run(folder, {**began["keys"], "dtype": "float16"}, {})


def test_fingerprints_of_all_cases_differ() -> None:
    stored = json.loads((pins.DATA / FILE).read_text())
    found = [stored[case]["fingerprint"] for case in CASES]
    assert len(set(found)) == len(found)
    assert all(
        fingerprint(each["keys"]) == each["fingerprint"]
        for each in stored.values()
        if "keys" in each
    )


@pytest.mark.usefixtures("store")
def test_fingerprint_leaves_out_versions_and_how_a_run_is_spread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "99.9")
    monkeypatch.setenv("GROK_BATCH_COMMIT", "another")
    description = run([*GENERATE, *NO_PART])
    assert description["versions"]["pyarrow"] == "99.9"
    pins.check(FILE, "greedy demo", told(description))


@pytest.mark.usefixtures("store")
def test_fingerprint_of_files_on_disk_has_their_path_and_time(tmp_path: Path) -> None:
    source = tmp_path / "in" / QUESTIONS
    source.parent.mkdir()
    source.write_bytes((pins.DATA / QUESTIONS).read_bytes())
    os.utime(source, ns=(0, 1_700_000_000_123_456_789))
    words = ["--model", "demo", "--max-tokens", "8", "-o", str(tmp_path / "out")]
    assert score_dataset.main(["-i", str(source.parent), *words], FAKE) == 0
    description = RunFolder(str(tmp_path / "out")).description()
    keys = description["fingerprint_keys"]
    assert fingerprint(keys) == description["fingerprint"]
    keys["input"] = [
        [url.replace(str(tmp_path), "/folder"), *others] for url, *others in keys["input"]
    ]
    pins.check(FILE, "files on disk", {"fingerprint": fingerprint(keys), "keys": keys})


# -- data sets and evaluations ---------------------------------------------------------------------

RECIPE = (
    "--model", "demo", "--templates.sum", sums.TEMPLATE,
    "--templates.words", "What is {{ a }} + {{ b }}?", "--max-tokens", "4", "--n", "3",
    "--temperature", "1", "--shard-rows", "6", "--parse-regex", r"(?P<answer>\d+)",
    "--fields.answer", "int64",
)  # fmt: skip
SELECTIONS = {
    "plain": (),
    "best": (
        "--where",
        "answer == a + b",
        "--choose",
        "best",
        "--dedup",
        "near",
        "--dedup-on",
        "completion",
    ),
    "majority": (
        "--choose",
        "majority",
        "--vote-on",
        "answer",
        "--min-agreement",
        "0.6",
        "--partition-by",
        "template",
    ),
    "bounded": (
        "--target-rows",
        "5",
        "--max-chars",
        "9",
        "--must-match",
        "[0-9]",
        "--license",
        "cc0-1.0",
        "--title",
        "Sums",
    ),
}
SEEDS = [{"id": f"s{row}", "a": row, "b": row % 7} for row in range(12)]


@pytest.mark.usefixtures("store")
def test_fingerprints_of_a_data_set_are_those_of_earlier_versions() -> None:
    """Of its prompts, of the run over them, and of each selection."""
    backend = FakeBackend(draws_plots=False, answer=sums.answer)
    seeds = pins.put_lines("seeds.jsonl", SEEDS)
    shots = pins.put_lines("shots.jsonl", [{"q": "1 + 1 = 2"}, {"q": "2 + 1 = 3"}])
    out = f"{pins.ROOT}/data"
    words = ["-i", seeds, "-o", out, *RECIPE, "--shots", shots, "--shots-per-row", "1"]
    words += ["--keep", "a", "--keep", "b"]
    for name, rules in SELECTIONS.items():
        if name != "bounded":  # ends the run early, and this run is complete
            assert generate_dataset.main([*words, *rules, "--dataset", name], backend) == 0
    apart = [
        "select",
        "--prompts",
        f"{out}/prompts",
        "--completions",
        f"{out}/completions",
        "-o",
        f"{out}/bounded",
    ]
    assert generate_dataset.main([*apart, *RECIPE, *SELECTIONS["bounded"]]) == 0
    for folder in ("prompts", "completions", *SELECTIONS):
        pins.check(FILE, f"data set: {folder}", told(RunFolder(f"{out}/{folder}").description()))


def test_fingerprints_of_an_evaluation_are_those_of_earlier_versions(
    store: MemoryS3, tmp_path: Path
) -> None:
    for path in own_data.files(own_data.write(tmp_path)):
        pins.put(f"sets/{path.relative_to(tmp_path)}", path.read_bytes())
    out = f"{pins.ROOT}/eval"
    words = ["--tasks", "mmlu,gsm8k_cot,humaneval", "--data", f"{pins.ROOT}/sets", "-o", out]
    assert evaluate.main(["prompts", *words[:4], "-o", f"{out}/requests.parquet"]) == 0
    run_words = ["run", "--requests", f"{out}/requests.parquet", "-o", out, "--model", "demo"]
    assert evaluate.main(run_words, FAKE) == 0
    for kind in ("score", "generate"):
        pins.check(FILE, f"evaluation: {kind}", told(RunFolder(f"{out}/{kind}").description()))
    asked = read_requests(f"{out}/requests.parquet")
    documents = common_digest(document_digests(asked).values())
    judged = [StoredObject("s3://bucket/eval/score/data/part-00000.parquet", 1234, "etag")]
    found = {"documents": documents, "run": run_identity(documents, judged, "nightly")}
    pins.check(FILE, "evaluation: history", found)
