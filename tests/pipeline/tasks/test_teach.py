"""Task teach: what a student reads of the distributions that a teacher has."""

from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.engine.scheduling.sequence import Targets
from actors.engine.scoring import score_completion, score_sequences
from actors.protocol.messages import Completion, Request, RowRef, token_ids
from pipeline.output.publication import to_parquet
from pipeline.output.schema import OutputSchema
from pipeline.records import OutputRow
from pipeline.requests.join_windows import join_windows
from pipeline.requests.tokenize import to_requests
from pipeline.requests.windows import text_windows
from pipeline.tasks import TEACH, LogprobOptions, OutputOptions
from tests import reference
from tests.jobs.runs import CONFORMANCE
from tests.pipeline.tasks.rows import RULES, only_item, prompt_row


@lru_cache
def golden() -> tuple[list[int], np.ndarray]:
    """Returns a text, and xAI's log-probs [T, V] after each of its tokens."""
    with np.load(CONFORMANCE / "mha" / "golden.npz") as arrays:
        tokens = arrays["p3_tokens"].tolist()
        return tokens, reference.log_probs(arrays["p3_logits"].astype(np.float64))


def fill(targets: Targets, logprobs_TV: np.ndarray, top_k: int) -> None:
    """Fills targets as an engine does that has these log-probs."""
    rows_NV = logprobs_TV[targets.positions].astype(np.float32)
    top_ids = np.argsort(-rows_NV, axis=1, kind="stable")[:, :top_k].astype(np.int32)
    top_logprobs = np.take_along_axis(rows_NV, top_ids, axis=1)
    index = np.arange(len(targets.positions))
    chosen = rows_NV[index, targets.tokens]
    tail_N1 = np.log1p(-np.exp(top_logprobs.astype(np.float64)).sum(axis=1, keepdims=True))
    is_greedy = targets.tokens == top_ids[:, 0]
    targets.fill(index, chosen, is_greedy, top_ids, top_logprobs, tail_N1.astype(np.float32))


def completed(top_k: int) -> Completion:
    tokens, logprobs_TV = golden()
    rules = replace(RULES, vocab_size=logprobs_TV.shape[1])
    request = only_item(prompt_row(prompt_token_ids=tokens), None, TEACH, rules)
    assert isinstance(request, Request)
    return answered(request, logprobs_TV, top_k)


def answered(request: Request, logprobs_TV: np.ndarray, top_k: int) -> Completion:
    """Returns the completion of an engine that has these log-probs after the request's tokens."""
    [sequence], readings = score_sequences(request, with_prompt=False)
    fill(sequence.targets, logprobs_TV, top_k)
    return score_completion(
        request, readings, 0, prompt_top_k=None, score_top_k=top_k, with_tail=True
    )


def written(completions: list[Completion], top_k: int) -> tuple[pa.Table, bytes]:
    """Returns the table of completions as a reader of their Parquet file gets it, and the file."""
    options = OutputOptions(LogprobOptions(None, None, top_k=top_k), choices=False)
    schema = OutputSchema(pa.schema([]), TEACH.output_columns(options))
    table = schema.table([OutputRow(completion, None) for completion in completions], pa.table({}))
    data = to_parquet(table, encodings=schema.encodings)
    return pq.read_table(BytesIO(data)), data


def divergence(row: dict[str, Any], logprobs_TV: np.ndarray) -> float:
    """Returns the mean of KL(full || stored), the tail spread evenly over all other tokens."""
    vocabulary = logprobs_TV.shape[1]
    total = 0.0
    for position, ids in enumerate(row["target_token_ids"]):
        others = max(vocabulary - len(ids), 1)
        stored_V = np.full(vocabulary, row["target_tail_logprobs"][position] - np.log(others))
        stored_V[ids] = np.asarray(row["target_logprobs"][position], np.float64)
        full_V = logprobs_TV[position]
        total += float((np.exp(full_V) * (full_V - stored_V)).sum())
    return total / len(row["target_token_ids"])


def test_divergence_of_stored_targets_shrinks_with_k() -> None:
    tokens, logprobs_TV = golden()
    divergences: list[float] = []
    for top_k in (1, 8, 64, 256):
        [row] = written([completed(top_k)], top_k)[0].to_pylist()
        assert row["input_ids"] == tokens
        assert len(row["target_logprobs"]) == len(tokens) - 1
        divergences.append(divergence(row, logprobs_TV))

    assert divergences == sorted(divergences, reverse=True)
    # the model of the golden logits is nearly untrained: its tail is longer than that of a teacher
    assert divergences[2] < 0.2
    assert 0 <= divergences[3] < 0.02


def test_targets_and_tail_of_each_position_sum_to_one() -> None:
    [row] = written([completed(64)], 64)[0].to_pylist()
    top_nK = np.exp(np.asarray(row["target_logprobs"], np.float64)).sum(axis=1)
    tail_n = np.exp(np.asarray(row["target_tail_logprobs"], np.float64))
    np.testing.assert_allclose(top_nK + tail_n, 1, atol=2e-3)  # the rounding of float16


def test_columns_of_targets_are_lists_of_fixed_size() -> None:
    failed = Completion.failed(RowRef(0, 1), "engine_crash", "lost")
    table, _ = written([completed(8), failed], 8)
    assert table.schema.field("target_token_ids").type == pa.list_(pa.list_(pa.int32(), 8))
    assert table.schema.field("target_logprobs").type == pa.list_(pa.list_(pa.float16(), 8))
    assert table.schema.field("target_tail_logprobs").type == pa.list_(pa.float32())
    names = ("input_ids", "target_token_ids", "target_logprobs", "target_tail_logprobs")
    assert [table[name][1].as_py() for name in names] == [None] * 4


def test_text_of_one_token_has_no_targets() -> None:
    completion = only_item(prompt_row(prompt_token_ids=[7]), None, TEACH)
    assert isinstance(completion, Completion)
    [row] = written([completion], 8)[0].to_pylist()
    assert row["input_ids"] == [7]
    assert (row["target_token_ids"], row["target_logprobs"]) == ([], [])


def test_windows_of_a_long_text_have_the_targets_of_the_whole_text() -> None:
    tokens, logprobs_TV = golden()
    rules = replace(
        RULES,
        vocab_size=logprobs_TV.shape[1],
        max_len=16,
        overflow="window",
        window_stride=5,
    )
    requests = list(to_requests([prompt_row(prompt_token_ids=tokens)], TEACH, None, rules))
    windows: list[Completion] = []
    for request, window in zip(requests, text_windows(len(tokens), 16, 5), strict=True):
        assert isinstance(request, Request)
        windows.append(answered(request, logprobs_TV[window.start :], 8))
    assert len(windows) > 3

    joined = written(list(join_windows(reversed(windows))), 8)[0]
    whole = written([completed(8)], 8)[0]
    names = ("input_ids", "target_token_ids", "target_logprobs", "target_tail_logprobs")
    for name in names:
        assert joined[name] == whole[name], name


@pytest.mark.slow  # writes 64 x 20,000 values
def test_million_tokens_with_64_targets_take_at_most_400_megabytes() -> None:
    """Ids of the whole vocabulary, as far from each other as can be; log-probs of a long tail."""
    rng = np.random.default_rng(0)
    count = 20_000
    ids = rng.integers(0, 131_072, (count, 64))
    logprobs_NK = -np.sort(rng.gamma(2.0, 3.0, (count, 64)), axis=1)
    tokens = token_ids(rng.integers(0, 131_072, count + 1).tolist())

    request = Request(RowRef(0, 0), tokens[:1], continuations=(tokens[1:],))
    [sequence], readings = score_sequences(request, with_prompt=False)
    index = np.arange(count)
    top_logprobs = logprobs_NK.astype(np.float32)
    top_ids = ids.astype(np.int32)
    chosen = top_logprobs[:, 0]
    tail_N1 = top_logprobs[:, -1:]
    sequence.targets.fill(index, chosen, index > 0, top_ids, top_logprobs, tail_N1)
    completion = score_completion(
        request, readings, 0, prompt_top_k=None, score_top_k=64, with_tail=True
    )
    _, data = written([completion], 64)
    assert len(data) / count * 1e6 <= 0.4e9
