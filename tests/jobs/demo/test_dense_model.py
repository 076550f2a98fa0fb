"""The demo model's training forward pass equals the engine's, except for expert capacity."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.model.config import DEMO
from jobs.demo.dense_model import Forward, forward, initial_params
from tests.actors.model.models import assert_close, load_model
from tests.jobs.demo.demo_model import CHECKPOINT, asked, float_params, tokenizer


def packed(rows: list[list[list[int]]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of documents as tokens and document numbers."""
    tokens, documents = np.zeros((2, len(rows), width), np.int32)
    for number, row in enumerate(rows):
        ids = [token for document in row for token in document]
        tokens[number, : len(ids)] = ids
        documents[number, : len(ids)] = np.repeat(
            np.arange(len(row)), [len(document) for document in row]
        )
    return tokens, documents


@partial(jax.jit, static_argnums=3)
def run(params: Any, tokens: np.ndarray, documents: np.ndarray, expert_rows: int) -> Forward:
    layers = sum(module.endswith("/router") for module in params)
    wanted = jnp.arange(tokens.size)
    return forward(
        params,
        replace(DEMO, num_layers=layers),
        jnp.asarray(tokens),
        jnp.asarray(documents),
        wanted,
        expert_rows,
    )


def test_logits_equal_the_engine_and_documents_are_separate() -> None:
    texts = [row["prompt"] + row["answer"] for row in asked(8)]
    documents = sorted((ids for ids in map(tokenizer().encode, texts) if len(ids) < 30), key=len)[
        :4
    ]
    expected = load_model(CHECKPOINT, DEMO, (1, 1), "float32").prefill(documents).logits
    found = np.asarray(
        run(float_params(), *packed([documents[:2], documents[2:]], 64), 128).logits
    ).reshape(2, 64, -1)
    for number, ids in enumerate(documents):
        row, begin = number // 2, len(documents[number - 1]) if number % 2 else 0
        assert_close(found[row, begin : begin + len(ids)], expected[number, : len(ids)], atol=1e-3)


def one_layer() -> dict[str, dict[str, Any]]:
    return initial_params(replace(DEMO, num_layers=1), 0)


def test_experts_drop_tokens_beyond_their_capacity() -> None:
    tokens, documents = packed([[list(range(5, 37))]], 32)
    whole, cut = (np.asarray(run(one_layer(), tokens, documents, rows).logits) for rows in (32, 2))
    assert_close(cut[0], whole[0], atol=1e-4)
    assert np.abs(cut[-1] - whole[-1]).max() > 0.01


def test_imbalance_of_even_routing_is_one_without_padding() -> None:
    params, document = one_layer(), [5, 6, 7]
    router = params["transformer/decoder_layer_0/router"]
    uneven, even = router["w"], jnp.zeros_like(router["w"])
    for router["w"], expected in ((uneven, None), (even, 1.0)):
        once, often = (
            float(run(params, *packed([[document] * times], 32), 32).imbalance) for times in (1, 10)
        )
        assert once == pytest.approx(often, abs=1e-5)
        assert once == pytest.approx(expected, abs=1e-5) if expected else once > 1.01
