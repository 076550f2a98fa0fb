"""Embeddings of engines against the NumPy oracle, with reused prefixes and on several meshes."""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from actors.engine.engine import Engine
from actors.engine.pooling import LastPool, MeanPool
from actors.engine.scheduling.hidden_states import PageStates
from actors.protocol.errors import EmptyPromptError, InvalidParameterError
from actors.protocol.messages import Completion
from tests import reference
from tests.actors.engine.engines import CONFORMANCE, embed, make_engine, model_config, run, score

CASE = "mha"
POOLINGS = ("last", "mean")


def texts() -> list[list[int]]:
    """Returns texts of many lengths, of which some begin alike and two are equal."""
    rng = np.random.default_rng(3)
    vocab_size = model_config(CASE).vocab_size
    lengths = (1, 7, 8, 9, 16, 17, 24, 40)
    unrelated = [rng.integers(1, vocab_size, length).tolist() for length in lengths]
    shared = unrelated[-1]
    return [*unrelated, shared, shared[:33], [*shared[:24], 5, 6, 7], shared[:16]]


@lru_cache
def expected(pooling: str) -> list[np.ndarray]:
    params = reference.parameters(CONFORMANCE / CASE / "ckpt-0", model_config(CASE))
    states = [reference.hidden_states(params, model_config(CASE), ids) for ids in texts()]
    if pooling == "last":
        return [states_TD[-1] for states_TD in states]
    return [states_TD.mean(axis=0) for states_TD in states]


def embeddings(completions: list[Completion]) -> list[np.ndarray]:
    return [np.asarray(completion.embedding, np.float32) for completion in completions]


def assert_close(embedding: np.ndarray, expected_D: np.ndarray, tolerance: float = 1e-5) -> None:
    """Compares with the largest number of the embedding: those near zero are sums of large ones."""
    assert np.abs(embedding - expected_D).max() <= tolerance * np.abs(expected_D).max()


def embed_all(engine: Engine, rows: list[list[int]]) -> list[np.ndarray]:
    return embeddings(run(engine, [embed(row, ids) for row, ids in enumerate(rows)]))


@pytest.mark.parametrize("sizes", [{}, {"shard_activations": True, "mesh": (1, 2)}])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings_equal_the_oracle_with_reused_prefixes(pooling: str, sizes: Any) -> None:
    engine = make_engine(CASE, pooling=pooling, **sizes)
    completions = run(engine, [embed(row, ids) for row, ids in enumerate(texts())])
    for embedding, oracle in zip(embeddings(completions), expected(pooling), strict=True):
        assert_close(embedding, oracle)

    cached_tokens = [completion.cached_tokens for completion in completions[8:]]
    assert cached_tokens == [32, 32, 24, 8], "all pages but the one of the last token"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings_of_a_mesh_of_eight_devices_equal_one_device(pooling: str) -> None:
    one = embed_all(make_engine(CASE, pooling=pooling), texts())
    eight = embed_all(make_engine(CASE, mesh=(1, 8), pooling=pooling), texts())
    for embedding, other in zip(one, eight, strict=True):
        assert_close(embedding, other)


def test_embeddings_overlapped_and_split_over_data_shards_are_equal() -> None:
    plain = embed_all(make_engine(CASE, pooling="mean"), texts())
    overlapped = make_engine(CASE, mesh=(2, 1), pooling="mean", overlaps_calls=True)
    for embedding, other in zip(plain, embed_all(overlapped, texts()), strict=True):
        assert_close(embedding, other)


def test_embedding_computes_no_product_with_the_vocabulary() -> None:
    engine = make_engine(CASE, pooling="last", share_programs=False)
    embed_all(engine, texts()[:3])
    engine.programs.close()
    names = {shape.name for shape in engine.programs._compiled._requested}
    assert names == {"prefill", "pool"}


def test_normalized_embeddings_have_length_one() -> None:
    embedding = embed_all(make_engine(CASE, pooling="mean", normalize=True), texts()[:1])[0]
    oracle = expected("mean")[0] / np.linalg.norm(expected("mean")[0])
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)
    assert_close(embedding, oracle)


def test_embedding_shares_no_page_whose_hidden_states_are_not_kept() -> None:
    engine = make_engine(CASE, pooling="mean")
    ids = texts()[7]
    run(engine, [score(0, ids, [1])])
    completion = run(engine, [embed(1, ids)])[0]
    assert completion.cached_tokens == 0
    assert_close(embeddings([completion])[0], expected("mean")[7])


def test_engine_refuses_embeddings_without_tokens_or_without_pooling() -> None:
    with pytest.raises(EmptyPromptError, match="no token"):
        make_engine(CASE, pooling="last").add(embed(0, []))
    with pytest.raises(InvalidParameterError, match=r"EngineConfig\.pooling"):
        make_engine(CASE).add(embed(0, [1]))


def test_pools_leave_padding_out() -> None:
    hidden_BTD = jnp.arange(24, dtype=jnp.bfloat16).reshape(2, 4, 3)
    count_B = jnp.asarray([3, 0], jnp.int32)
    last_BD = np.asarray(LastPool().rows(hidden_BTD, count_B))
    sum_BD = np.asarray(MeanPool().rows(hidden_BTD, count_B))
    assert last_BD[0].tolist() == [6, 7, 8]
    assert sum_BD.tolist() == [[9, 12, 15], [0, 0, 0]]


def test_pool_of_a_page_that_was_never_computed_raises() -> None:
    with pytest.raises(RuntimeError, match="never computed"):
        MeanPool().embedding([PageStates()], 1)
