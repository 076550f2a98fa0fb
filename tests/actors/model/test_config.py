"""Numbers of the model, and the tensors that follow from them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from actors.model.config import DEMO, GROK_1, PRESETS, SMALL, ModelConfig, parameter_shapes
from actors.protocol.errors import ModelError
from tests.actors.model.models import CASES, CONFORMANCE

LAYER_0 = "transformer/decoder_layer_0/"


def example(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((CONFORMANCE / "gqa" / "config.json").read_text())
    return values | changes


@pytest.mark.parametrize("case", CASES)
def test_parameter_shapes_match_the_goldens(case: str) -> None:
    text = (CONFORMANCE / case / "config.json").read_text()
    expected = [
        (
            t["path"],
            tuple(t.get("array") or t["weight"]),
            tuple(t["scales"]) if "scales" in t else None,
        )
        for t in json.loads(text)["tensors"]
    ]
    assert [
        (t.path, t.shape, t.scales_shape) for t in parameter_shapes(ModelConfig.from_json(text))
    ] == expected


def test_grok_1_has_770_tensors_and_314_billion_parameters() -> None:
    shapes = parameter_shapes(GROK_1)
    assert len(shapes) == 770
    assert GROK_1.ffn_size == 32768
    # the name counts the layers; the tied embedding adds 0.8 billion
    assert shapes.parameters == 315_684_820_992
    assert shapes.parameters - 131072 * 6144 - 6144 == 314_879_508_480
    assert max(t.stored_bytes for t in shapes if t.scale_groups) == 1_611_399_168  # 1.61 GB


def test_parameter_shapes_sort_layers_as_strings() -> None:
    layers = [
        t.module.split("/")[1] for t in parameter_shapes(GROK_1) if t.module.endswith("router")
    ]
    assert layers[:4] == [
        "decoder_layer_0",
        "decoder_layer_1",
        "decoder_layer_10",
        "decoder_layer_11",
    ]
    assert layers[-1] == "decoder_layer_9"


def test_parameter_tree_of_grok_1_is_pinned() -> None:
    assert [t.path for t in parameter_shapes(replace(DEMO, num_layers=1))] == [
        "language_model/in_out_embed/embeddings",
        "language_model/rms_norm/scale",
        *(f"{LAYER_0}moe/{name}/w" for name in ("linear", "linear_1", "linear_v")),
        *(
            f"{LAYER_0}multi_head_attention/{name}/w"
            for name in ("key", "linear", "query", "value")
        ),
        *(
            f"{LAYER_0}{name}/scale"
            for name in ("rms_norm", "rms_norm_1", "rms_norm_2", "rms_norm_3")
        ),
        f"{LAYER_0}router/w",
    ]


def test_presets_have_their_sizes() -> None:
    assert PRESETS == {"grok-1": GROK_1, "demo": DEMO, "small": SMALL}
    assert SMALL.ffn_size == 2736
    assert DEMO.ffn_size == 176


def test_from_dict_names_unknown_keys() -> None:
    with pytest.raises(ModelError, match=r"unknown keys model\.heads, vocab;"):
        ModelConfig.from_dict(example(vocab=3, model=example()["model"] | {"heads": 3}))


def test_from_dict_names_missing_keys() -> None:
    inner = {k: v for k, v in example()["model"].items() if k != "key_size"}
    values = {k: v for k, v in example(model=inner).items() if k != "vocab_size"}
    with pytest.raises(ModelError, match=r"missing keys vocab_size, model\.key_size"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected a JSON object, got list"),
        ("{}", "the key 'model' must hold an object"),
        (
            json.dumps(example(ffn_size=7)),
            "ffn_size 7 contradicts widening_factor 2 and emb_size 96, from which 128 follows",
        ),
        (
            json.dumps(example(vocab_size="400")),
            "vocab_size must be a positive whole number, got '400'",
        ),
        (
            json.dumps(example(vocab_size=True)),
            "vocab_size must be a positive whole number, got True",
        ),
        (
            json.dumps(example(output_multiplier_scale=0)),
            "output_multiplier_scale must be a positive finite number, got 0",
        ),
        (
            json.dumps(example(eos_token=400)),
            "eos_token must be an id below vocab_size 400, got 400",
        ),
        (json.dumps(example(pad_token=1)), "pad_token must be 0"),
    ],
)
def test_from_json_of_invalid_text_raises(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelConfig.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_q_heads": 12}, "num_q_heads 12 must be a multiple of num_kv_heads 8"),
        ({"num_selected_experts": 9}, "num_selected_experts 9 exceeds num_experts 8"),
        ({"key_size": 7}, "key_size must be even"),
        (
            {"num_q_heads": 2, "num_kv_heads": 1, "key_size": 2},
            "num_q_heads x key_size = 4 must be a multiple of 8",
        ),
        ({"num_layers": 0}, "num_layers must be a positive whole number, got 0"),
    ],
)
def test_contradicting_numbers_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(DEMO, **changes)
