"""bfloat16 through the engine against xAI's float32 run; the tolerance is xAI's bfloat16 noise.

Prompt log-probs of the whole vocabulary give the model's distribution at every position, as prefill
in pieces computes it.
"""

import numpy as np
import pytest

from tests import reference
from tests.actors.engine.engines import (
    CONFORMANCE,
    generate,
    golden,
    make_engine,
    model_config,
    run,
)

pytestmark = pytest.mark.slow  # compiles


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def distributions(case: str, mesh: tuple[int, int], **kind: object) -> list[np.ndarray]:
    """Returns log-probs [T, V] at every position of the four prompts.

    A token behind each prompt makes its last one count.
    """
    vocabulary = model_config(case).vocab_size
    engine = make_engine(
        case,
        mesh,
        "bfloat16",
        is_optimized=True,
        prompt_logprobs=vocabulary,
        prefill_tokens=32,
        **kind,
    )
    prompts = [golden(case)[f"p{i}_tokens"].tolist() for i in range(4)]
    found = []
    for completion in run(
        engine, [generate(i, [*prompt, 5], 1) for i, prompt in enumerate(prompts)]
    ):
        ids = np.asarray(completion.prompt_top_token_ids).reshape(-1, vocabulary)
        values = np.asarray(completion.prompt_top_logprobs).reshape(-1, vocabulary)
        found.append(np.take_along_axis(values, np.argsort(ids, axis=-1), axis=-1))
        assert (np.sort(ids, axis=-1) == np.arange(vocabulary)).all()
    return found


@pytest.mark.parametrize(
    ("case", "mesh", "kind"),
    [
        ("mha", (1, 1), {}),
        ("mha", (1, 1), {"dense": False}),
        ("gqa", (1, 1), {}),
        ("gqa", (1, 8), {"dense": False}),
        ("gqa", (1, 8), {"dense": False, "shard_activations": True}),
        ("deep", (1, 1), {}),
        ("grokconst", (1, 1), {"dense": False}),
    ],
    ids=["mha", "mha-int8", "gqa", "gqa-1x8-int8", "gqa-1x8-int8-split", "deep", "grokconst-int8"],
)
def test_bfloat16_within_the_noise_of_the_reference(
    case: str, mesh: tuple[int, int], kind: dict[str, bool]
) -> None:
    found = distributions(case, mesh, **kind)
    got = np.concatenate(found)
    expected = log_softmax(np.concatenate([golden(case)[f"p{i}_logits"] for i in range(4)]))
    # columns: max abs, mean abs, mean KL, top-1
    noise = golden(case)["bf16_noise"].astype(np.float64)
    distance = np.abs(expected - got).mean()
    assert (np.exp(expected) * (expected - got)).sum(-1).mean() <= 1.5 * noise[:, 2].max() + 5e-3
    assert distance <= 1.5 * noise[:, 1].max() + 0.03
    assert (expected.argmax(-1) == got.argmax(-1)).mean() >= noise[:, 3].min() - 0.1
    assert distance > 1e-3, "a float32 run would say nothing of bfloat16"


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "int8"])
def test_bfloat16_is_as_exact_far_into_a_sequence_as_at_its_start(dense: bool) -> None:
    """Positions stay exact: bfloat16 has 8 bits, and would merge those beyond 256.

    Prefill in many calls, and decode of the last tokens, against the NumPy model.
    """
    length = 513  # 512 are prefilled: four calls of one size, and one program
    tokens = np.random.default_rng(5).integers(3, 512, length).tolist()
    engine = make_engine(
        "mha",
        (1, 1),
        "bfloat16",
        dense=dense,
        is_optimized=True,
        prompt_logprobs=0,
        max_len=544,
        cache_tokens=544,
        slots=1,
    )
    (completion,) = run(engine, [generate(0, tokens, 24, ignore_eos=True)])
    text = [*tokens, *completion.token_ids.tolist()]
    config = model_config("mha")
    params = reference.parameters(CONFORMANCE / "mha" / "ckpt-0", config)
    expected = reference.log_probs(reference.logits(params, config, text))
    expected_of_text = expected[np.arange(len(text) - 1), text[1:]]

    found = np.array([*(completion.prompt_logprobs or ()), *(completion.token_logprobs or ())])
    distance = np.abs(found - expected_of_text)
    near = distance[:200].mean()
    assert near > 1e-3, "a float32 run would show nothing about bfloat16"
    for first in range(200, 500, 100):
        assert distance[first : first + 100].mean() <= 1.5 * near
    assert distance[length - 1 :].mean() <= 2 * near, "decode"
