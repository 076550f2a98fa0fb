"""What jobs of earlier versions wrote, byte by byte where no CPU and no model has a part in it.

tests/data/regression/files.json (bytes) and rows.json (rows of real replicas) were written by these
tests at commit ebe7258 (see pins.py). Bytes are those of the pinned pyarrow: another one may pack
equal rows otherwise. Messages of errors are for people and may be reworded: they are left out,
their codes are not.
"""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.messages import Completion, Request, RowRef, Score, logprobs, token_ids
from jobs import evaluate, generate_dataset, score_dataset
from pipeline import storage
from pipeline.evals.requests import read_requests
from pipeline.input.columns import InputSchema
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import RunFolder
from pipeline.output.schema import output_schema
from pipeline.output.writer import CommittedShard, Writer
from pipeline.records import OutputRow, Shard, ShardOpened
from pipeline.tasks import TASKS
from tests import fakes
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs import sums
from tests.jobs.runs import ROOT, environment, table
from tests.memory_s3 import MemoryS3
from tests.pipeline.evals import own_data, own_runs
from tests.regression import pins

FAKE = FakeBackend(draws_plots=False)
FILES, ROWS = "files.json", "rows.json"
CLOSE = 1e-4  # of log-probs: other CPUs round otherwise
UNSTABLE = ["error_message", "cached_tokens"]  # reworded at times; what a replica computed before
MESSAGES = ("detail", "error_message")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    return pins.memory(monkeypatch)


# -- the writer ------------------------------------------------------------------------------------

PASSED_ON = pa.table(
    {
        "id": ["r0", "r1", "r2", "r3"],
        "count": pa.array([1, None, 3, -4], pa.int64()),
        "share": [0.5, None, -0.0, 1e300],
        "category": pa.array(["sums", "words", None, "sums"]).dictionary_encode(),
        "tags": [["a", "b"], [], None, [None]],
        "source": [
            {"book": "Ö", "page": 1},
            None,
            {"book": None, "page": 2},
            {"book": "é", "page": None},
        ],
        "at": pa.array(
            [datetime(2026, 3, 1, 2, tzinfo=UTC), None, None, None], pa.timestamp("us", "UTC")
        ),
        "raw": [b"\x00\xff", b"", None, b"raw"],
    }
)
TEXTS = ("hello", "héllo\nwörld", "")


def completed(ref: RowRef, tokens: int = 3, prompt: int = 4, top: int = 2) -> Completion:
    """A completion whose every value depends on its address."""
    base = ref.row * 10 + ref.sample
    return Completion(
        ref=ref,
        token_ids=token_ids(range(base, base + tokens)),
        finish_reason=("length", "stop", "repetition")[base % 3],
        stop_reason=(None, "eos", "Q:")[base % 3],
        prompt_tokens=prompt,
        cached_tokens=base % 2,
        token_logprobs=logprobs([-0.25 * base - place for place in range(tokens)]),
        top_token_ids=token_ids(range(tokens * top)),
        top_logprobs=logprobs([-0.5 * place for place in range(tokens * top)]),
        prompt_logprobs=logprobs([-0.125 * place for place in range(prompt - 1)]),
        prompt_top_token_ids=token_ids(range((prompt - 1) * top)),
        prompt_top_logprobs=logprobs([-1.0] * ((prompt - 1) * top)),
        seed=2**62 + base,
    )


def scored(ref: RowRef, choices: int) -> Completion:
    """Log-likelihoods that depend on the address."""
    scores = tuple(Score(-1.5 * ref.row - place, place == 0, place + 1) for place in range(choices))
    prompted = logprobs([-0.5, -1.0])
    return Completion(
        ref=ref,
        attempts=2,
        prompt_tokens=3,
        cached_tokens=0,
        scores=scores,
        prompt_logprobs=prompted,
    )


def failed(ref: RowRef) -> Completion:
    return Completion.failed(ref, "engine_crash", "a fixed text", attempts=3)


def generated_rows() -> list[OutputRow]:
    """Rows of two samples, of one, of none that worked, and an empty completion; not in order."""
    twice = [OutputRow(completed(RowRef(7, 0, sample, 2)), TEXTS[sample]) for sample in (1, 0)]
    once = OutputRow(completed(RowRef(7, 1)), TEXTS[2])
    return [
        once,
        *twice,
        OutputRow(failed(RowRef(7, 2)), None),
        OutputRow(completed(RowRef(7, 3), tokens=0), ""),
    ]


def scored_rows(choices: int) -> list[OutputRow]:
    good = [OutputRow(scored(RowRef(7, row), choices), None) for row in (3, 0, 1)]
    return [*good, OutputRow(failed(RowRef(7, 2)), None)]


WRITTEN: dict[str, tuple[str, dict[str, Any], list[OutputRow]]] = {
    "generate": (
        "generate",
        {"logprobs": 0, "prompt_logprobs": None, "choices": False},
        generated_rows(),
    ),
    "generate, top log-probs": (
        "generate",
        {"logprobs": 2, "prompt_logprobs": 2, "choices": False},
        generated_rows(),
    ),
    "generate, no log-probs": (
        "generate",
        {"logprobs": None, "prompt_logprobs": None, "choices": False},
        generated_rows(),
    ),
    "score": ("score", {"logprobs": 0, "prompt_logprobs": None, "choices": False}, scored_rows(1)),
    "score, choices": (
        "score",
        {"logprobs": 0, "prompt_logprobs": 0, "choices": True},
        scored_rows(3),
    ),
    "perplexity": (
        "perplexity",
        {"logprobs": 0, "prompt_logprobs": 0, "choices": False},
        scored_rows(1),
    ),
}


def inputs() -> InputSchema:
    """An input with the columns of PASSED_ON."""
    return InputSchema(
        root="", role_columns=(), parameters=(), id_column="id", passthrough=PASSED_ON.schema
    )


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("case", WRITTEN)
def test_part_that_the_writer_makes_of_fixed_rows_keeps_its_bytes(case: str) -> None:
    task, options, rows = WRITTEN[case]
    folder = RunFolder(f"{pins.ROOT}/out")
    writer = Writer(
        folder, output_schema(inputs(), task=TASKS[task], **options), "0123456789abcdef" * 2
    )
    opened = ShardOpened(Shard(7, "f", 0, PASSED_ON.num_rows), PASSED_ON)
    (commit,) = writer.write([opened, *rows])
    assert isinstance(commit, CommittedShard)
    assert (commit.samples, commit.errors) == (len(rows), {"engine_crash": 1})
    data = storage.read(folder.part_url(7))[0]
    pins.check(
        FILES,
        f"writer: {case}",
        {**pins.schema(pins.read_table(data)), "sha256": pins.sha256(data)},
    )


@pytest.mark.usefixtures("store")
def test_part_whose_failed_row_ran_again_keeps_its_bytes() -> None:
    folder = RunFolder(f"{pins.ROOT}/out")
    task, options, rows = WRITTEN["generate"]
    schema = output_schema(inputs(), task=TASKS[task], **options)
    for only, some in ((None, rows), ((2,), [OutputRow(completed(RowRef(7, 2)), "again")])):
        writer = Writer(folder, schema, "0123456789abcdef" * 2)
        passed_on = PASSED_ON if only is None else PASSED_ON.take(pa.array(only))
        opened = ShardOpened(Shard(7, "f", 0, PASSED_ON.num_rows, only), passed_on)
        (commit,) = writer.write([opened, *some])
        assert isinstance(commit, CommittedShard)
        assert commit.published
    pins.check(
        FILES, "writer: merged", {"sha256": pins.sha256(storage.read(folder.part_url(7))[0])}
    )


# -- the main job on replicas that answer by arithmetic --------------------------------------------

PROMPTS = [
    {
        "id": f"p{row}",
        "prompt": text,
        "choices": [" yes", " no"],
        "continuation": " yes",
        "category": row % 3,
        "note": {"n": row},
    }
    for row, text in enumerate(
        [
            "12 + 7 =",
            "A dog is an",
            "héllo wörld",
            "One two three",
            "The opposite of cold is",
            "x" * 40,
        ]
    )
]
RUNS: dict[str, list[object]] = {
    "generate": ["--max-tokens", 6, "--n", 3, "--temperature", 0.7, "--seed", 11],
    "score": ["--task", "score"],
    "perplexity": ["--task", "perplexity"],
}


@pytest.mark.parametrize("case", RUNS)
def test_parts_of_a_run_keep_their_bytes(case: str, store: MemoryS3) -> None:
    """From reader to writer: columns that pass through, ids, seeds, tokens, texts."""
    rows = [
        {name: value for name, value in row.items() if name != "continuation"} for row in PROMPTS
    ]
    source = pins.put_lines("prompts.jsonl", rows)
    words = [
        "-i",
        source,
        "-o",
        f"{pins.ROOT}/out",
        "--model",
        "demo",
        "--shard-rows",
        4,
        *RUNS[case],
    ]
    assert score_dataset.main([*map(str, words)], FAKE) == 0
    parts = pins.objects(store, "out/data")
    assert list(parts) == ["part-00000.parquet", "part-00001.parquet"]
    found = {name: pins.sha256(data) for name, data in parts.items()}
    pins.check(
        FILES,
        f"run: {case}",
        {**pins.schema(pins.read_table(parts["part-00000.parquet"])), "sha256": found},
    )


def test_requests_that_reach_a_replica_keep_their_content(
    store: MemoryS3,
) -> None:
    """Parameters of a row before those of the run, seeds, stops, and tokens of prompts."""
    asked: list[Request] = []

    def noted(request: Request) -> Completion:
        asked.append(request)
        return fakes.answer(request)

    own: list[dict[str, Any]] = [
        {"n": 2, "temperature": 0.5, "seed": 3, "max_tokens": 2},
        {"top_p": 0.5, "top_k": 3, "min_p": 0.25, "stop": ["Q:", "\n"]},
        {
            "repetition_penalty": 1.5,
            "repetition_max_pattern": 4,
            "repetition_min_count": 3,
            "min_tokens": 1,
            "ignore_eos": True,
        },
        {},
    ]
    source = pins.put_lines(
        "own.jsonl",
        [{"id": f"o{row}", "prompt": "A dog is", **each} for row, each in enumerate(own)],
    )
    words = [
        "-i",
        source,
        "-o",
        f"{pins.ROOT}/out",
        "--model",
        "demo",
        "--max-tokens",
        5,
        "--seed",
        9,
        "--top-k",
        7,
    ]
    assert score_dataset.main([*map(str, words)], FakeBackend(draws_plots=False, answer=noted)) == 0
    found = []
    for request in sorted(asked, key=lambda each: each.ref):
        drawn = request.sampling
        assert drawn is not None
        names = (
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "seed",
            "stop",
            "min_tokens",
        )
        more = ("ignore_eos", "repetition_max_pattern", "repetition_min_count")
        sampling = {name: getattr(drawn, name) for name in (*names, *more)}
        at = [request.ref.row, request.ref.sample, request.ref.samples]
        found.append({"at": at, "prompt_ids": list(request.prompt_ids), "sampling": sampling})
    pins.check(ROWS, "requests of a run", found)


# -- synthetic data --------------------------------------------------------------------------------

RECIPE = (
    "--model", "demo", "--templates.sum", sums.TEMPLATE,
    "--templates.words", "What is {{ a }} + {{ b }}?", "--max-tokens", "4", "--n", "3",
    "--temperature", "1", "--shard-rows", "6", "--parse-regex", r"(?P<answer>\d+)",
    "--fields.answer", "int64",
)  # fmt: skip
SELECTIONS = {
    "plain": ("--where", "answer == a + b", "--dedup", "none"),
    "best": (
        "--choose",
        "best",
        "--dedup",
        "near",
        "--dedup-on",
        "completion",
        "--partition-by",
        "template",
    ),
    "majority": (
        "--choose",
        "majority",
        "--vote-on",
        "answer",
        "--min-agreement",
        "0.6",
        "--must-not-match",
        "^ 1[0-9]$",
    ),
}
SEEDS = [{"id": f"s{row}", "a": row, "b": None if row % 13 == 5 else row % 7} for row in range(40)]


def test_files_of_a_data_set_keep_their_bytes(store: MemoryS3) -> None:
    """Of prompts, completions, accepted rows, card, figures; of rejected rows all but the why."""
    backend = FakeBackend(draws_plots=False, answer=sums.answer)
    shots = pins.put_lines("shots.jsonl", [{"q": f"{n} + {n} = {2 * n}"} for n in range(9)])
    examples = "{% for shot in shots %}{{ shot.q }}\n{% endfor %}{{ a }} + {{ b }} ="
    words = ["-i", pins.put_lines("seeds.jsonl", SEEDS), "-o", f"{pins.ROOT}/made", *RECIPE]
    words += ["--templates.shown", examples, "--shots", shots, "--shots-per-row", "2"]
    for name, rules in SELECTIONS.items():
        assert generate_dataset.main([*words, *rules, "--dataset", name], backend) == 0
        pins.check(FILES, f"data set: {name}", made_files(pins.objects(store, f"made/{name}")))
    for folder in ("prompts", "completions"):
        pins.check(FILES, f"data set: {folder}", made_files(pins.objects(store, f"made/{folder}")))


def made_files(found: dict[str, bytes]) -> dict[str, Any]:
    """Returns what is pinned of each file, except those that tell when it was made."""
    told: dict[str, Any] = {}
    for name, data in found.items():
        if name.startswith("rejected/"):
            told[name] = without_messages(data)
        elif name == "statistics.json":
            told[name] = figures(json.loads(data))
        elif name == "README.md":
            told[name] = pins.sha256(card(data.decode()).encode())
        elif name.split(".")[0] not in {"run", "report", "sources"} and not is_usage(name):
            told[name] = pins.sha256(data)
    return told


def is_usage(name: str) -> bool:
    """Returns whether a file has the hours of one call: a random name, and measured times."""
    return name.startswith("replica-hours/")


def without_messages(data: bytes) -> dict[str, Any]:
    """Returns the schema of rejected rows, and a digest of them without the words for people."""
    found = pins.read_table(data)
    left = found.drop_columns([name for name in MESSAGES if name in found.column_names])
    return {**pins.schema(found), "rows": found.num_rows, "sha256": pins.sha256(to_parquet(left))}


def figures(told: dict[str, Any]) -> dict[str, Any]:
    for example in told["rejected_examples"]:
        example.pop("detail", None)
    for file in told["files"]:
        if file["path"].startswith("rejected/"):
            file.pop("size")  # the words have a part in it
    return told


def card(text: str) -> str:
    """Returns a data card without commit, versions, and why rows have no prompt."""
    lines = [
        line for line in text.splitlines() if not re.search(r"git commit|versions|null_value", line)
    ]
    return "\n".join(lines)


# -- evaluations -----------------------------------------------------------------------------------

EVALUATIONS = "mmlu,gsm8k_cot,gsm8k,humaneval"


@pytest.fixture
def sets(store: MemoryS3, tmp_path: Path) -> str:
    for path in own_data.files(own_data.write(tmp_path)):
        pins.put(f"sets/{path.relative_to(tmp_path)}", path.read_bytes())
    return f"{pins.ROOT}/sets"


def test_requests_of_an_evaluation_keep_their_bytes(store: MemoryS3, sets: str) -> None:
    cases = {
        "plain": (),
        "samples": ("--samples", "2", "--sample-temperature", "0.8", "--limit", "2"),
    }
    for name, more in cases.items():
        words = [
            "prompts",
            "--tasks",
            EVALUATIONS,
            "--data",
            sets,
            "-o",
            f"{pins.ROOT}/{name}/requests.parquet",
            *more,
        ]
        assert evaluate.main(words) == 0
        (data,) = pins.objects(store, name).values()
        pins.check(
            FILES,
            f"evaluation: {name}",
            {**pins.schema(pins.read_table(data)), "sha256": pins.sha256(data)},
        )


def test_parts_and_figures_of_an_evaluation_are_kept(store: MemoryS3, sets: str) -> None:
    words = ["--tasks", EVALUATIONS, "--data", sets, "-o", f"{pins.ROOT}/eval", "--model", "demo"]
    assert evaluate.main(words, FAKE) == 0
    found = pins.objects(store, "eval")
    parquet = {name: pins.sha256(data) for name, data in found.items() if name.endswith(".parquet")}
    assert {
        "requests-score.parquet",
        "score/data/part-00000.parquet",
        "generate/data/part-00000.parquet",
    } <= set(parquet)
    pins.check(FILES, "evaluation: parts", parquet)
    pins.check(FILES, "evaluation: metrics of a run", json.loads(found["metrics.json"]), 1e-12)


def test_figures_of_fixed_outputs_are_kept(store: MemoryS3, sets: str) -> None:
    """Of two nights, so that the second is compared with the first."""
    requests = f"{pins.ROOT}/fixed/requests.parquet"
    assert evaluate.main(["prompts", "--tasks", EVALUATIONS, "--data", sets, "-o", requests]) == 0
    for name, skill in (("first", 0.9), ("second", 0.4)):
        outputs = pins.put(f"fixed/{name}.parquet", to_parquet(answered(requests, skill)))
        words = [
            "report",
            "--requests",
            requests,
            "--outputs",
            outputs,
            "-o",
            f"{pins.ROOT}/{name}",
            "--name",
            name,
        ]
        assert evaluate.main([*words, "--history", f"{pins.ROOT}/history"]) in {0, 5}
        found = pins.objects(store, name)
        pins.check(
            FILES, f"evaluation: metrics of {name}", json.loads(found["metrics.json"]), 1e-12
        )
        pins.check(
            FILES,
            f"evaluation: samples of {name}",
            {"sha256": pins.sha256(found["samples.parquet"])},
        )


def answered(requests: str, skill: float) -> pa.Table:
    """Output rows that a model of this skill might have left."""
    rows = []
    for request in read_requests(requests):
        given = own_runs.answer(request, skill)
        scores = list(given.loglikelihoods) if request.choices else None
        text = None if request.choices else given.text
        rows.append(
            {
                "id": request.id,
                "sample_index": 0,
                "status": "ok",
                "text": text,
                "loglikelihood": scores,
            }
        )
    return pa.Table.from_pylist(rows)


# -- real replicas ---------------------------------------------------------------------------------

ONE_CLUSTER = """
import contextlib, json, sys
from jobs import score_dataset
from jobs.run.backend import RayBackend
from jobs.cluster.connection import ray_cluster
with ray_cluster(1) as cluster:
    backend = RayBackend(cluster=lambda replicas, log: contextlib.nullcontext(cluster))
    codes = [int(score_dataset.main(words, backend)) for words in json.loads(sys.argv[1])]
assert "jax" not in sys.modules, "the driver imported jax"
print("codes", codes)
"""
ASKED = [
    {"id": "sum", "prompt": "12 + 7 =", "choices": [" nineteen", " 19"], "temperature": 0.0},
    {"id": "null", "prompt": None, "choices": [" a", " b"], "temperature": 0.0},
    {
        "id": "words",
        "prompt": "The opposite of cold is",
        "choices": [" hot", " cold"],
        "temperature": 0.9,
    },
    {
        "id": "long",
        "prompt": "One two three " * 40,
        "choices": [" four", "five"],
        "temperature": 0.0,
    },
    {"id": "accents", "prompt": "héllo wörld", "choices": [" !", " ?"], "temperature": 0.9},
]
REAL = {
    "generate": [
        "--max-tokens",
        6,
        "--n",
        2,
        "--seed",
        5,
        "--top-p",
        0.95,
        "--logprobs",
        2,
        "--prompt-logprobs",
        1,
    ],
    "score": ["--task", "score"],
    "perplexity": ["--task", "perplexity", "--prompt-logprobs", 0],
}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_rows_of_the_demo_model_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """All three tasks in one Ray. Rows that fail are in their places, with their codes."""
    source = tmp_path / "in.parquet"
    pq.write_table(
        pa.Table.from_pylist([{**row, "category": place % 2} for place, row in enumerate(ASKED)]),
        source,
    )
    common = [
        "-i",
        source,
        "--model",
        "demo",
        "--dtype",
        "float32",
        "--max-len",
        64,
        "--max-error-rate",
        0.9,
        "--shard-rows",
        3,
    ]
    commands = [[*map(str, [*common, *more, "-o", tmp_path / task])] for task, more in REAL.items()]
    program = [sys.executable, "-c", ONE_CLUSTER, json.dumps(commands)]
    done = subprocess.run(
        program,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "codes [3, 3, 3]" in done.stdout, done.stderr
    for task in REAL:
        found = table(tmp_path / task)
        rows = found.drop_columns(
            [name for name in UNSTABLE if name in found.column_names]
        ).to_pylist()
        pins.check(ROWS, f"demo model: {task}", {**pins.schema(found), "rows": rows}, CLOSE)
