"""Texts longer than the context, through the main job on replicas that answer by arithmetic."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.messages import Completion, Request, logprobs, token_ids
from jobs.score_dataset import main
from pipeline.requests.tokenizer import Tokenizer
from pipeline.requests.windows import window_count
from tests import fakes
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import DEMO, report, table

MAX_LEN = 32
STRIDE = 8
FAKE = FakeBackend(draws_plots=False)
SENTENCE = "Ana has 12 apples and Bén has 7. "
TEXTS = {"short": SENTENCE, "book": SENTENCE * 100, "long": SENTENCE * 9, "word": "a"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows: dict[str, list[Any]] = {"id": [*TEXTS, "none"], "prompt": [*TEXTS.values(), None]}
    pq.write_table(pa.table(rows), tmp_path / "texts.parquet")
    return tmp_path / "texts.parquet"


def flags(source: Path, output: Path, *more: object) -> list[str]:
    words = [
        "-i", source, "-o", output, "--model", "demo", "--task", "perplexity",
        "--max-len", MAX_LEN, "--on-overflow", "window", "--window-stride", STRIDE,
        "--shard-rows", 2, "--max-error-rate", 0.5,
    ]  # fmt: skip
    return [*map(str, [*words, *more])]


def encoded(text: str) -> list[int]:
    [ids] = Tokenizer((DEMO / "tokenizer.model").read_bytes()).encode([text])
    return ids


def with_top(request: Request) -> Completion:
    """Answers with the two most likely tokens beside each scored one."""
    completion = fakes.answer(request)
    [score] = completion.scores
    ids = score.token_ids or token_ids()
    pairs = token_ids()
    for token in ids:
        pairs.extend([token, token + 1])
    top = replace(score, top_token_ids=pairs, top_logprobs=logprobs([-1.0] * len(pairs)))
    return replace(completion, scores=(top,))


def test_long_texts_are_one_row_each_with_all_their_tokens(source: Path, tmp_path: Path) -> None:
    words = flags(source, tmp_path / "out", "--prompt-logprobs", 2, "--token-logprobs", "true")
    assert main(words, FakeBackend(answer=with_top, draws_plots=False)) == 3

    rows = table(tmp_path / "out").to_pylist()
    assert [(row["id"], row["status"]) for row in rows] == [
        *((name, "ok") for name in TEXTS),
        ("none", "error"),
    ]
    for row, text in zip(rows, TEXTS.values(), strict=False):
        ids = encoded(text)
        scored = ids[1:]
        assert row["scored_tokens"] == len(scored)
        assert row["loglikelihood"] == pytest.approx(-sum(scored) / 7)
        assert row["windows"] == window_count(len(ids), MAX_LEN, STRIDE)
        assert row["text_bytes"] == len(text.encode())
        bits = sum(scored) / 7 / math.log(2)
        assert row["bits_per_byte"] == pytest.approx(bits / len(text.encode()))
        assert row["scored_token_ids"] == scored
        assert row["prompt_logprobs"][:1] == [None]
        assert row["prompt_logprobs"][1:] == pytest.approx([-token / 7 for token in scored])
        most_likely = [[token, token + 1] for token in scored]
        assert row["prompt_top_token_ids"] == [None, *most_likely]
    failed = rows[-1]
    assert (failed["windows"], failed["bits_per_byte"], failed["text_bytes"]) == (None, None, None)

    windows = report(tmp_path / "out")["windows"]
    split = [row for row in rows if (row["windows"] or 0) > 1]
    assert windows == {
        "texts": 2,
        "windows": sum(row["windows"] for row in split),
        "tokens_computed": sum(row["windows"] for row in split) * MAX_LEN,
        "tokens_scored": sum(row["scored_tokens"] for row in split),
    }


def test_window_that_fails_is_the_error_of_its_row_and_is_retried(
    source: Path, tmp_path: Path
) -> None:
    def is_poison(request: Request) -> bool:
        return request.row_id == "book" and request.ref.window in (3, 40)

    words = flags(source, tmp_path / "out")
    assert main(words, FakeBackend(poison=is_poison, draws_plots=False)) == 3
    rows = {row["id"]: row for row in table(tmp_path / "out").to_pylist()}
    assert (rows["book"]["error_code"], rows["long"]["status"]) == ("engine_crash", "ok")
    assert report(tmp_path / "out")["errors_by_code"] == {"engine_crash": 1, "missing_prompt": 1}

    assert main([*words, "--retry-failed", "true"], FAKE) == 3
    again = {row["id"]: row for row in table(tmp_path / "out").to_pylist()}
    assert again["book"]["scored_tokens"] == len(encoded(TEXTS["book"])) - 1
    assert again["long"] == rows["long"]


def test_order_of_answers_does_not_change_a_bit(source: Path, tmp_path: Path) -> None:
    outputs: list[str] = []
    for seed in (1, 2):
        output = tmp_path / f"out-{seed}"
        words = flags(source, output, "--prompt-logprobs", 0, "--batch-tokens", 64)
        assert main(words, FakeBackend(seed=seed, draws_plots=False)) == 3
        outputs.append(json.dumps(table(output).to_pylist()))
    assert outputs[0] == outputs[1]


def test_prompt_logprobs_alone_cover_the_whole_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": [SENTENCE, "a"]}), tmp_path / "in.parquet")
    words = ["-i", tmp_path / "in.parquet", "-o", tmp_path / "out", "--model", "demo"]
    words += ["--task", "perplexity", "--prompt-logprobs", 0]
    assert main([*map(str, words)], FAKE) == 0
    [text, one] = table(tmp_path / "out").to_pylist()
    assert text["prompt_logprobs"][0] is None
    assert sum(text["prompt_logprobs"][1:]) == pytest.approx(text["loglikelihood"])
    assert len(text["prompt_logprobs"]) == text["scored_tokens"] + 1
    assert one["prompt_logprobs"] == [None]
    assert not {"windows", "text_bytes", "scored_logprobs"} & text.keys()


def test_dry_run_counts_windows_and_their_overlap(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = flags(source, source.parent / "out", "--dry-run", "true", "--json", "true")
    assert main(words, FAKE) == 0
    figures = json.loads(capsys.readouterr().out)
    scored = sum(len(encoded(text)) - 1 for text in TEXTS.values())
    assert figures["scored_tokens"] == scored
    assert figures["windows"] > 100
    assert figures["prompt_tokens"] > 3 * scored
