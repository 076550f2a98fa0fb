"""The NumPy oracle against xAI's own implementation: an oracle must be right before it judges."""

import numpy as np
import pytest

from actors.model.config import ModelConfig
from tests import reference
from tests.actors.model.models import CASES, CONFORMANCE, assert_close, config_of, golden


@pytest.mark.parametrize("case", CASES)
def test_logits_match_the_conformance_data(case: str) -> None:
    params = reference.parameters(CONFORMANCE / case / "ckpt-0", config_of(case))
    for i in range(4):
        arrays = golden(case)
        assert_close(
            reference.logits(params, config_of(case), arrays[f"p{i}_tokens"]),
            arrays[f"p{i}_logits"],
            atol=1.1e-4,
        )
    assert_close(
        reference.logits(params, config_of(case), arrays["edge_mid_tokens"]),
        arrays["edge_mid_logits"],
        atol=1.1e-4,
    )


def test_greedy_tokens_and_log_probs() -> None:
    config, arrays = config_of("grokconst"), golden("grokconst")
    params = reference.parameters(CONFORMANCE / "grokconst" / "ckpt-0", config)
    tokens, log_probs = reference.generate(params, config, arrays["p1_tokens"].tolist(), 6)
    assert tokens == arrays["p1_gen_tokens"][:6].tolist()
    assert_close(log_probs, arrays["p1_gen_logprobs"][:6], atol=2e-4)


def test_generation_ends_with_eos() -> None:
    config = ModelConfig(16, 8, 2, 4, 2, 2, 1, 0.5, 8.0, 0.6, 16)
    layer = "transformer/decoder_layer_0/"
    params = {f"{layer}rms_norm{suffix}/scale": np.zeros(8) for suffix in ("", "_1", "_2", "_3")}
    params |= {
        f"{layer}multi_head_attention/{name}/w": np.zeros((8, 8))
        for name in ("query", "key", "value", "linear")
    }
    params |= {f"{layer}moe/{name}/w": np.zeros((8, *shape)) for name, shape in MOE_SHAPES.items()}
    table = np.eye(16, 8)
    # after token 5, which the zero layers pass through, EOS is the likeliest
    table[config.eos_token] = table[5] * 3
    params |= {
        f"{layer}router/w": np.zeros((8, 8)),
        "language_model/in_out_embed/embeddings": table,
    }
    params["language_model/rms_norm/scale"] = np.ones(8)
    assert reference.generate(params, config, [5], 9)[0] == [config.eos_token]


MOE_SHAPES = {"linear": (8, 16), "linear_v": (8, 16), "linear_1": (16, 8)}
