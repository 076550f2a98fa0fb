"""The committed demo model for the tests: float parameters, tokenizer and questions."""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import pyarrow.parquet as pq
import sentencepiece

from actors.kernels.quantized import QuantizedWeight, dequantize
from actors.model.config import DEMO
from actors.weights import checkpoint
from actors.weights.pickle_reader import Int8Tensor
from tests.jobs.runs import DEMO as FOLDER

CHECKPOINT = FOLDER / "ckpt-0"


@lru_cache
def tokenizer() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))


@lru_cache
def asked(count: int) -> list[dict[str, Any]]:
    """Returns the first questions of prompts.parquet, which the model was not trained on."""
    rows: list[dict[str, Any]] = pq.read_table(FOLDER / "prompts.parquet").to_pylist()
    return rows[:count]


@lru_cache
def float_params() -> dict[str, dict[str, Any]]:
    """Returns what the checkpoint's int8 weights stand for, exactly."""
    params: dict[str, dict[str, Any]] = {}
    for tensor, stored in checkpoint.read(CHECKPOINT, DEMO):
        pair = isinstance(stored, Int8Tensor)
        value = (
            dequantize(QuantizedWeight(*map(jnp.asarray, stored)), jnp.float32)
            if pair
            else jnp.asarray(stored)
        )
        params.setdefault(tensor.module, {})[tensor.name] = value
    return params
