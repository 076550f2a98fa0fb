"""Grok-1 in plain NumPy, float64, written for reading: the oracle that JAX is compared with.

Input: a config, dequantised weights by path, and one sequence of tokens. Output: logits of every
position. No cache, no batch, no sharding, no sorting: one token, one head, one expert at a time
wherever that is clearest. Shares nothing with the model but the config; its file reader is a few
lines of its own on top of the standard library.
"""

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from actors.model.config import ModelConfig

Params = dict[str, np.ndarray]


class _Quantized:
    weight: np.ndarray
    scales: np.ndarray


class _TestFileUnpickler(pickle.Unpickler):
    """For this repository's own test files only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("__main__", "QuantizedWeight8bit"):
            return _Quantized
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return lambda *_: np.ndarray((0,), "b")
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("ml_dtypes", "bfloat16"): ml_dtypes.bfloat16,
        }
        return allowed[module, name]


def parameters(folder: str | Path, config: ModelConfig) -> Params:
    """Reads a checkpoint folder as float64 arrays by path, e.g.

    transformer/decoder_layer_0/router/w.
    """
    names = ["language_model/in_out_embed/embeddings", "language_model/rms_norm/scale"]
    for layer in range(config.num_layers):
        inner = ["moe/linear/w", "moe/linear_1/w", "moe/linear_v/w", "router/w"]
        inner += [f"multi_head_attention/{name}/w" for name in ("key", "linear", "query", "value")]
        inner += [f"rms_norm{suffix}/scale" for suffix in ("", "_1", "_2", "_3")]
        names += [f"transformer/decoder_layer_{layer}/{name}" for name in inner]
    names.sort(key=lambda path: path.rsplit("/", 1))
    params = {}
    for number, name in enumerate(names):
        with (Path(folder) / f"tensor{number:05d}_000").open("rb") as file:
            params[name] = dequantised(_TestFileUnpickler(file).load())
    return params


def dequantised(tensor: Any) -> np.ndarray:
    """Returns a float array, or anything with int8 `weight` and `scales`, as exact float64."""
    if isinstance(tensor, np.ndarray):
        return tensor.astype(np.float64)
    weight, scales = (
        np.asarray(tensor.weight, np.float64),
        np.asarray(tensor.scales).astype(np.float64),
    )
    return weight * np.repeat(scales, weight.shape[-2] // scales.shape[-2], axis=-2)


def logits(params: Params, config: ModelConfig, tokens: Sequence[int]) -> np.ndarray:
    """Returns the logits [T, V] of every position of one sequence."""
    table = params["language_model/in_out_embed/embeddings"]
    return hidden_states(params, config, tokens) @ table.T * config.output_multiplier_scale


def hidden_states(params: Params, config: ModelConfig, tokens: Sequence[int]) -> np.ndarray:
    """Returns the hidden states [T, D] after the last norm, of every position of one sequence."""
    ids = np.asarray(tokens)
    table = params["language_model/in_out_embed/embeddings"]
    h = table[ids] * config.embedding_multiplier_scale
    for layer in range(config.num_layers):
        p = {
            k.removeprefix(f"transformer/decoder_layer_{layer}/"): v
            for k, v in params.items()
            if f"_layer_{layer}/" in k
        }
        h = h + _norm(
            _attention(_norm(h, p["rms_norm/scale"]), p, config, ids), p["rms_norm_1/scale"]
        )
        h = h + _norm(_experts(_norm(h, p["rms_norm_2/scale"]), p, config), p["rms_norm_3/scale"])
    return _norm(h, params["language_model/rms_norm/scale"])


def log_probs(logits: np.ndarray) -> np.ndarray:
    """Returns the natural logs of softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def penalised(logits: np.ndarray, seen: Iterable[int], penalty: float) -> np.ndarray:
    """Returns the logits [V] of one position with a repetition penalty on the tokens seen."""
    changed = logits.copy()
    for token in set(seen):
        changed[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    return changed


def may_be_drawn(logits: np.ndarray, *, min_p: float, top_k: int, top_p: float) -> set[int]:
    """Returns the tokens that min-p, then top-k, then top-p leave of tempered logits [V].

    Equals at a border all stay.
    """
    chance = np.exp(log_probs(logits.astype(np.float64)))
    left = {token for token in range(len(chance)) if chance[token] >= min_p * chance.max()}
    if top_k:
        border = sorted((chance[token] for token in left), reverse=True)[:top_k][-1]
        left = {token for token in left if chance[token] >= border}
    if top_p < 1:
        whole, mass, border = sum(chance[token] for token in left), 0.0, 0.0
        for token in sorted(left, key=lambda token: -chance[token]):
            if mass >= top_p * whole:
                break
            mass, border = mass + chance[token], chance[token]
        left = {token for token in left if chance[token] >= border}
    return left


def generate(
    params: Params,
    config: ModelConfig,
    prompt: Sequence[int],
    max_tokens: int,
    penalty: float = 1.0,
) -> tuple[list[int], list[float]]:
    """Returns greedy tokens, EOS included and last, and their log-probs.

    Each step is a whole forward pass.
    """
    tokens, chosen_logprobs = list(prompt), []
    while len(chosen_logprobs) < max_tokens:
        last = logits(params, config, tokens)[-1]
        tokens.append(int(penalised(last, tokens, penalty).argmax()))
        chosen_logprobs.append(float(log_probs(last)[tokens[-1]]))
        if tokens[-1] == config.eos_token:
            break
    return tokens[len(prompt) :], chosen_logprobs


def _norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale


def _rotate(x: np.ndarray) -> np.ndarray:
    """Turns [T, C] by position, in pairs (i, i + C/2), as multiplication of complex numbers."""
    half = x.shape[1] // 2
    angle = np.arange(len(x))[:, None] / 10000 ** (np.arange(half)[None, :] / half)
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=1)


def _attention(x: np.ndarray, p: Params, config: ModelConfig, ids: np.ndarray) -> np.ndarray:
    c = config.key_size
    q, k, v = (x @ p[f"multi_head_attention/{name}/w"] for name in ("query", "key", "value"))
    out = np.zeros_like(q)
    for head in range(config.num_q_heads):
        mine = slice(head * c, (head + 1) * c)
        kv_head = head // (config.num_q_heads // config.num_kv_heads)
        shared = slice(kv_head * c, (kv_head + 1) * c)
        scores = _rotate(q[:, mine]) @ _rotate(k[:, shared]).T * config.attn_output_multiplier
        scores = 30 * np.tanh(scores / 30)
        for t in range(len(x)):
            seen = [s for s in range(t + 1) if ids[s] != 0]
            if seen:
                weight = np.exp(scores[t, seen] - scores[t, seen].max())
                out[t, mine] = weight / weight.sum() @ v[seen, shared]
    return out @ p["multi_head_attention/linear/w"]


def _experts(x: np.ndarray, p: Params, config: ModelConfig) -> np.ndarray:
    chance = np.exp(log_probs(x @ p["router/w"]))
    out = np.zeros_like(x)
    for t, row in enumerate(x):
        for e in np.argsort(-chance[t], kind="stable")[: config.num_selected_experts]:
            inner = row @ p["moe/linear/w"][e]
            gelu = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
            out[t] += chance[t, e] * (
                (gelu * (row @ p["moe/linear_v/w"][e])) @ p["moe/linear_1/w"][e]
            )
    return out
