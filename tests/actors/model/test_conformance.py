"""The model against xAI's own implementation, on four tiny checkpoints.

See tests/data/conformance/README.md.

Of the two readings of dequantisation the model matches the exact one (int8 x bfloat16 scale in
float32, `p*_logits`).
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from tests.actors.model.models import (
    CASES,
    Outputs,
    assert_close,
    conformance_model,
    golden,
    log_softmax,
    prompts,
)

pytestmark = pytest.mark.slow  # compiles

WIDTH = 40  # the longest prompt: one program per model
NEW_TOKENS = 16


@lru_cache
def prefilled(
    case: str, mesh: tuple[int, int] = (1, 1), dtype: str = "float32", dense: bool = True
) -> Outputs:
    return conformance_model(case, mesh, dtype, dense).prefill(prompts(case))


@lru_cache
def edge(case: str) -> Outputs:
    arrays = golden(case)
    rows = [arrays["edge_mid_tokens"].tolist(), arrays["edge_lead_tokens"].tolist()]
    return conformance_model(case).prefill(rows, width=WIDTH)


@lru_cache
def generated(case: str) -> tuple[np.ndarray, np.ndarray, Any]:
    """Returns tokens [4, 16], their logits [4, 16, V] and the cache without the last token."""
    model, lengths = conformance_model(case), [len(p) for p in prompts(case)]
    outputs, cache = model.step(model.cache(), prompts(case))
    logits = [np.stack([outputs.logits[b, length - 1] for b, length in enumerate(lengths)])]
    tokens = [logits[0].argmax(-1)]
    for done in range(NEW_TOKENS - 1):
        outputs, cache = model.step(
            cache, tokens[-1][:, None].tolist(), start=[length + done for length in lengths]
        )
        logits.append(outputs.logits[:, 0])
        tokens.append(logits[-1].argmax(-1))
    return np.stack(tokens, 1), np.stack(logits, 1), cache


def distance(case: str, outputs: Outputs, against: str = "logits") -> dict[str, float]:
    pairs = [
        (golden(case)[f"p{i}_{against}"], outputs.logits[i, : len(p)])
        for i, p in enumerate(prompts(case))
    ]
    expected, got = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    a, b = log_softmax(expected), log_softmax(got)
    return {
        "max": float(np.abs(expected - got).max()),
        "mean": float(np.abs(expected - got).mean()),
        "kl": float((np.exp(a) * (a - b)).sum(-1).mean()),
        "top1": float((expected.argmax(-1) == got.argmax(-1)).mean()),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("mesh", "dense"), [((1, 1), True), ((1, 8), False)], ids=["1x1-dense", "1x8-int8"]
)
def test_float32_logits_match_the_reference(case: str, mesh: tuple[int, int], dense: bool) -> None:
    d = distance(case, prefilled(case, mesh, dense=dense))
    assert d["max"] <= 1e-3
    assert d["kl"] <= 1e-7


@pytest.mark.parametrize("case", CASES)
def test_dequantisation_is_exact_not_rounded(case: str) -> None:
    assert distance(case, prefilled(case), "logits_bf16w")["max"] > 0.1


@pytest.mark.parametrize("case", CASES)
def test_float32_log_probs(case: str) -> None:
    for i, prompt in enumerate(prompts(case)[1:], start=1):
        got = log_softmax(prefilled(case).logits[i, : len(prompt) - 1])[
            np.arange(len(prompt) - 1), prompt[1:]
        ]
        assert_close(got, golden(case)[f"p{i}_next_logprobs"], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_experts_and_gates(case: str) -> None:
    for i, prompt in enumerate(prompts(case)):
        np.testing.assert_array_equal(
            prefilled(case).experts[i, :, : len(prompt)], golden(case)[f"p{i}_experts"]
        )
        assert_close(
            prefilled(case).gates[i, :, : len(prompt)], golden(case)[f"p{i}_gates"], atol=1e-4
        )


@pytest.mark.parametrize("case", CASES)
def test_residual_stream_after_every_layer(case: str) -> None:
    length = len(prompts(case)[2])
    assert_close(prefilled(case).streams[2, :, :length], golden(case)["p2_hidden"], atol=1e-3)
    assert_close(prefilled(case).final[2, :length], golden(case)["p2_final"], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_last_logits_of_the_padded_batch(case: str) -> None:
    last = [prefilled(case).logits[i, n - 1] for i, n in enumerate(golden(case)["batch_lengths"])]
    assert_close(np.stack(last), golden(case)["batch_last_logits"], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_through_the_cache(case: str) -> None:
    tokens, logits, _ = generated(case)
    compared = 0
    for i in range(4):
        gap = golden(case)[f"p{i}_gen_gap"]
        sure = int(np.argmax(gap < 5e-3)) if (gap < 5e-3).any() else NEW_TOKENS
        np.testing.assert_array_equal(tokens[i, :sure], golden(case)[f"p{i}_gen_tokens"][:sure])
        chosen = log_softmax(logits[i])[np.arange(NEW_TOKENS), tokens[i]]
        assert_close(chosen[:sure], golden(case)[f"p{i}_gen_logprobs"][:sure], atol=1e-3)
        compared += sure
    assert compared > 2 * NEW_TOKENS  # the set says something about most tokens
    assert_close(logits[2], golden(case)["p2_gen_logits"], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_cache_rows_match_the_reference(case: str) -> None:
    model, cache = conformance_model(case), generated(case)[2]
    pages = model.table[1]
    for name, got in (("k0", cache.keys[0]), ("v0", cache.values[0])):
        expected = golden(case)[f"p1_cache_{name}"]
        rows = np.asarray(got)[pages].reshape(-1, *expected.shape[1:])
        assert_close(rows[: len(expected)], expected, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_pad_inside_a_prompt_is_never_seen(case: str) -> None:
    expected = golden(case)["edge_mid_logits"]
    assert_close(edge(case).logits[0, : len(expected)], expected, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_pad_in_front_is_finite_and_ours(case: str) -> None:
    arrays = golden(case)
    got = edge(case).logits[1, : len(arrays["edge_lead_tokens"])]
    assert np.isfinite(got).all()
    leading = int(np.argmax(arrays["edge_lead_tokens"] != 0))
    # rows in front see nothing and are all alike; in the reference they look into the future
    assert_close(got[:leading], np.broadcast_to(got[:1], got[:leading].shape), atol=1e-4)
    assert np.abs(got[:leading] - arrays["edge_lead_logits"][:leading]).max() > 0.1


@pytest.mark.parametrize(("case", "dense"), [*((case, True) for case in CASES), ("mha", False)])
def test_bfloat16_within_the_noise_of_the_reference(case: str, dense: bool) -> None:
    noise = golden(case)["bf16_noise"].astype(np.float64)
    d = distance(case, prefilled(case, dtype="bfloat16", dense=dense))
    assert d["kl"] <= 1.5 * noise[:, 2].max() + 5e-3
    assert d["mean"] <= 1.5 * noise[:, 1].max() + 0.03
    assert d["top1"] >= noise[:, 3].min() - 0.1


@pytest.mark.parametrize(
    ("case", "mesh"), [*((case, (1, 8)) for case in CASES), ("gqa", (2, 4)), ("mha", (2, 4))]
)
def test_logits_agree_on_all_meshes(case: str, mesh: tuple[int, int]) -> None:
    one, many = prefilled(case), prefilled(case, mesh, dense=mesh == (2, 4))
    for i, prompt in enumerate(prompts(case)):
        assert_close(many.logits[i, : len(prompt)], one.logits[i, : len(prompt)], atol=2e-4)
        np.testing.assert_array_equal(
            many.experts[i, :, : len(prompt)], one.experts[i, :, : len(prompt)]
        )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mesh", [(1, 1), (1, 8), (2, 4)], ids=str)
def test_split_activations_match_in_one_forward(case: str, mesh: tuple[int, int]) -> None:
    dense = mesh != (1, 8)
    whole = prefilled(case, mesh, dense=dense)
    model = conformance_model(case, mesh, dense=dense, shard_activations=True)
    split = model.prefill(prompts(case))

    for i, prompt in enumerate(prompts(case)):
        n = len(prompt)
        assert_close(split.logits[i, :n], whole.logits[i, :n], atol=1e-4)
        assert_close(split.logits[i, :n], golden(case)[f"p{i}_logits"], atol=1e-3)
        np.testing.assert_array_equal(split.experts[i, :, :n], golden(case)[f"p{i}_experts"])

    length = len(prompts(case)[2])
    # columns in order, every layer
    assert_close(split.streams[2, :, :length], golden(case)["p2_hidden"], atol=1e-3)
    assert_close(split.final[2, :length], golden(case)["p2_final"], atol=1e-3)
