"""The main job from Parquet to Parquet, in processes of its own, against independent numbers."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.model.config import DEMO as DEMO_MODEL
from actors.model.config import ModelConfig
from actors.weights import checkpoint
from pipeline.requests.tokenizer import Tokenizer
from tests import reference
from tests.jobs.runs import (
    CONFORMANCE,
    DEMO,
    ROOT,
    conformance_flags,
    job,
    report,
    same_tables,
    table,
)

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
SHARED = ROOT.parent / "shared" / "data"
GSM8K_ROWS = 6

TEXTS = [
    "12 + 7 =",
    "The opposite of cold is",
    "A dog is an",
    "Which is larger, 5 or 9? Answer:",
    "héllo wörld",
    "One two three",
]


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_output_equals_an_independent_forward_pass(tmp_path: Path) -> None:
    """All tasks of the demo model in float32 equal NumPy's numbers.

    NumPy recomputes each number from text to log-prob.
    """
    params = reference.parameters(DEMO / "ckpt-0", DEMO_MODEL)
    tokenizer = Tokenizer((DEMO / "tokenizer.model").read_bytes())
    choices = [
        [" nineteen", " 19"],
        [" hot", " cold"],
        [" animal", " engine"],
        [" 9", " 5"],
        [" !", " ?"],
        [" four", "five"],
    ]
    prompts = write(
        tmp_path / "in.parquet", id=list(range(len(TEXTS))), prompt=TEXTS, choices=choices
    )
    common = ["-i", prompts, "--model", "demo", "--dtype", "float32", "--max-len", 64]
    for task, more in (
        ("generate", ["--max-tokens", 6, "--logprobs", 2, "--prompt-logprobs", 1]),
        ("score", []),
        ("perplexity", []),
        ("embed", ["--pool", "mean", "--normalize", "true"]),
        ("teach", ["--top-k-logprobs", 5]),
    ):
        done = job(*common, "-o", tmp_path / task, "--task", task, *more)
        assert done.returncode == 0, done.stderr
    for text, row in zip(TEXTS, table(tmp_path / "generate").to_pylist(), strict=True):
        prompt = tokenizer.encode([text])[0]
        ids, _ = reference.generate(params, DEMO_MODEL, prompt, 6)
        ids = ids[: ids.index(2) + 1] if 2 in ids else ids
        assert row["token_ids"] == ids
        logprobs = reference.log_probs(reference.logits(params, DEMO_MODEL, [*prompt, *ids]))
        written = logprobs[len(prompt) - 1 : -1]
        np.testing.assert_allclose(
            row["token_logprobs"], written[np.arange(len(ids)), ids], atol=1e-4
        )
        assert row["cumulative_logprob"] == pytest.approx(sum(row["token_logprobs"]), abs=1e-4)
        np.testing.assert_array_equal(
            row["top_token_ids"], np.argsort(-written, axis=-1, kind="stable")[:, :2]
        )
        assert row["prompt_logprobs"][0] is None
        np.testing.assert_allclose(
            row["prompt_logprobs"][1:], logprobs[np.arange(len(prompt) - 1), prompt[1:]], atol=1e-4
        )
        whole = tokenizer.text([*prompt, *ids])
        assert tokenizer.text(prompt) + row["text"] == whole, (
            "the text continues the prompt's, leading space and all"
        )
    for text, options, row in zip(
        TEXTS, choices, table(tmp_path / "score").to_pylist(), strict=True
    ):
        for option, found in zip(options, row["loglikelihood"], strict=True):
            context, both = tokenizer.encode([text, text + option])
            expected = reference.log_probs(reference.logits(params, DEMO_MODEL, both))
            wanted = both[len(context) :]
            at = np.arange(len(context) - 1, len(both) - 1)
            assert found == pytest.approx(float(expected[at, wanted].sum()), abs=1e-3)
    for text, row in zip(TEXTS, table(tmp_path / "perplexity").to_pylist(), strict=True):
        ids = tokenizer.encode([text])[0]
        expected = reference.log_probs(reference.logits(params, DEMO_MODEL, ids))
        assert row["loglikelihood"] == pytest.approx(
            float(expected[np.arange(len(ids) - 1), ids[1:]].sum()), abs=1e-3
        )
        assert row["scored_tokens"] == len(ids) - 1
    for text, row in zip(TEXTS, table(tmp_path / "embed").to_pylist(), strict=True):
        ids = tokenizer.encode([text])[0]
        mean = reference.hidden_states(params, DEMO_MODEL, ids).mean(axis=0)
        np.testing.assert_allclose(row["embedding"], mean / np.linalg.norm(mean), atol=1e-5)
    for text, row in zip(TEXTS, table(tmp_path / "teach").to_pylist(), strict=True):
        assert row["input_ids"] == tokenizer.encode([text])[0]
        logprobs = reference.log_probs(reference.logits(params, DEMO_MODEL, row["input_ids"]))[:-1]
        top = np.argsort(-logprobs, axis=-1, kind="stable")[:, :5]
        np.testing.assert_array_equal(row["target_token_ids"], top)
        top_logprobs = np.take_along_axis(logprobs, top, axis=-1)
        np.testing.assert_allclose(row["target_logprobs"], top_logprobs, rtol=1e-3, atol=1e-3)
        tail = np.log1p(-np.exp(top_logprobs).sum(axis=-1))
        np.testing.assert_allclose(row["target_tail_logprobs"], tail, atol=1e-3)


def random_prompts(path: Path, rows: int, vocabulary: int = 512) -> Path:
    rng = np.random.default_rng(11)
    beginning = rng.integers(3, vocabulary, 20).tolist()
    prompts = [
        [
            *beginning[: rng.integers(0, 20)],
            *rng.integers(3, vocabulary, rng.integers(1, 25)).tolist(),
        ]
        for _ in range(rows)
    ]
    temperatures = [0.0 if row % 2 else 0.9 for row in range(rows)]
    return write(
        path,
        id=[f"row {i}" for i in range(rows)],
        prompt_token_ids=prompts,
        temperature=temperatures,
    )


def test_two_replicas_of_eight_devices_match_one_device(tmp_path: Path) -> None:
    """Greedy and sampled rows, two samples each."""
    prompts = random_prompts(tmp_path / "in.parquet", 20)
    flags = [
        "-i",
        prompts,
        *conformance_flags(),
        "--max-tokens",
        6,
        "--max-len",
        64,
        "--n",
        2,
        "--logprobs",
        2,
        "--shard-rows",
        4,
    ]
    one = job(*flags, "-o", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    many = job(*flags, "-o", tmp_path / "many", "--mesh", "1x8", "--replicas", "2")
    assert many.returncode == 0, many.stderr
    assert table(tmp_path / "one").num_rows == 40
    same_tables(table(tmp_path / "one"), table(tmp_path / "many"))
    assert len(report(tmp_path / "many")["replicas"]) == 2


def test_invalid_rows_become_error_rows_alone(tmp_path: Path) -> None:
    good = [[5, 6, 7], [300, 4], [9] * 20]
    bad = [[], None, [7, 512], [8] * 100_000]
    prompts = write(
        tmp_path / "in.parquet",
        prompt_token_ids=pa.array([good[0], *bad, *good[1:]], pa.list_(pa.int32())),
    )
    done = job(
        "-i",
        prompts,
        *conformance_flags(),
        "-o",
        tmp_path / "out",
        "--max-tokens",
        4,
        "--max-len",
        64,
        "--max-error-rate",
        0.7,
    )
    assert done.returncode == 3, done.stderr
    rows = table(tmp_path / "out").to_pylist()
    assert [row["error_code"] for row in rows] == [
        None,
        "empty_prompt",
        "missing_prompt",
        "invalid_token",
        "prompt_too_long",
        None,
        None,
    ]
    for row, words in zip(rows[1:5], ("at least one", "null", "512", "100000"), strict=True):
        assert words in row["error_message"]
        assert (row["status"], row["token_ids"], row["finish_reason"]) == ("error", None, "error")
    params = reference.parameters(CONFORMANCE / "mha" / "ckpt-0", config := mha())
    for prompt, row in zip(good, [rows[0], *rows[5:]], strict=True):
        assert row["token_ids"] == reference.generate(params, config, prompt, 4)[0]


def mha() -> ModelConfig:
    return ModelConfig.from_json((CONFORMANCE / "mha" / "config.json").read_text())


@pytest.fixture(scope="module")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with Grok-1's vocabulary: config.json and ckpt-0."""
    folder = tmp_path_factory.mktemp("wide")
    config = replace(DEMO_MODEL, vocab_size=131072, num_layers=1)
    checkpoint.write(checkpoint.random_parameters(config, seed=1), str(folder / "ckpt-0"))
    outer = (
        "vocab_size",
        "pad_token",
        "eos_token",
        "sequence_len",
        "embedding_multiplier_scale",
        "output_multiplier_scale",
    )
    fields = asdict(config)
    (folder / "config.json").write_text(
        json.dumps({**{name: fields.pop(name) for name in outer}, "model": fields}),
        encoding="utf-8",
    )
    return folder


@pytest.mark.s3
@pytest.mark.parametrize("place", ["disk", "s3"])
def test_gsm8k_with_the_published_tokenizer(
    place: str, tmp_path: Path, wide_checkpoint: Path, s3_url: str
) -> None:
    """Real questions: both tasks from a folder, score from an S3 endpoint.

    The last rows fit one batch, and a token of one of them spans question and answer.
    """
    questions = SHARED / "eval" / "sample" / "gsm8k" / "main"
    if not questions.exists():
        pytest.skip(
            "the GSM8K sample and the published tokenizer are other people's texts; they lie "
            "beside the project"
        )
    sample = pq.read_table(next(questions.glob("test-*.parquet")))
    last_rows = sample.slice(sample.num_rows - GSM8K_ROWS)
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    pq.write_table(last_rows, folder / "test-00000.parquet")
    source = f"{folder}/test-*.parquet"
    output = str(tmp_path)
    if place == "s3":
        fsspec.filesystem("s3").put(f"{folder}/", f"{s3_url}/gsm8k/", recursive=True)
        source = f"{s3_url}/gsm8k/test-*.parquet"
        output = f"{s3_url}/runs"
    model = [
        "--model",
        wide_checkpoint / "config.json",
        "--checkpoint",
        wide_checkpoint / "ckpt-0",
        "--mesh",
        "1x2",
    ]
    flags = [
        "-i",
        source,
        *model,
        "--tokenizer",
        SHARED / "tokenizer" / "tokenizer.model",
        "--prompt-column",
        "question",
    ]
    runs = {
        "generate": ["--max-tokens", 4, "--stop", "Q:"],
        "score": ["--continuation-column", "answer"],
    }
    if place == "s3":
        del runs["generate"]
    for task, more in runs.items():
        done = job(*flags, "-o", f"{output}/{task}", "--task", task, "--max-len", 1024, *more)
        assert done.returncode == 0, done.stderr
    if place == "s3":
        fsspec.filesystem("s3", skip_instance_cache=True).get(
            f"{s3_url}/runs/", f"{tmp_path}/", recursive=True
        )
    tokenizer = Tokenizer((SHARED / "tokenizer" / "tokenizer.model").read_bytes())
    rows = last_rows.to_pylist()
    if place == "disk":
        generated = table(tmp_path / "generate").to_pylist()
        for row, completion in zip(rows, generated, strict=True):
            assert completion["prompt_tokens"] == len(tokenizer.encode([row["question"]])[0])
            assert completion["answer"] == row["answer"], "other columns pass through"
            assert len(completion["token_ids"]) == 4 or completion["stop_reason"]
    scored = table(tmp_path / "score").to_pylist()
    assert len(scored) == len(rows) == GSM8K_ROWS
    for row, score in zip(rows, scored, strict=True):
        prompt, whole = tokenizer.encode(
            [row["question"].rstrip(), row["question"] + row["answer"]]
        )
        # a token of the whole text that overlaps both is scored
        shared_tokens = 0
        while shared_tokens < len(prompt) and prompt[shared_tokens] == whole[shared_tokens]:
            shared_tokens += 1
        assert score["scored_tokens"] == len(whole) - shared_tokens
        assert -25 * score["scored_tokens"] < score["loglikelihood"] < 0
