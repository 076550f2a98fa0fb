"""Hyperparameters of a Grok-1-shaped model, and the list of its tensors.

Does not import JAX, so that the driver can use it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from actors.protocol.errors import ModelError
from actors.protocol.plain_text import quoted

# groups of rows that share a scale, in the two weights whose contracted axis is sharded
SCALE_GROUPS = 8
_IGNORED_KEYS = {"embedding_init_scale", "model", "generator", "ffn_size", "tensors"}
_IGNORED_INNER_KEYS = {"shard_activations", "data_axis", "model_axis"}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Hyperparameters under the names of the reference's LanguageModelConfig and TransformerConfig.

    Raises:
        ModelError: a number is out of range, or two numbers contradict each other.
    """

    vocab_size: int
    emb_size: int
    widening_factor: float | int
    key_size: int
    num_q_heads: int
    num_kv_heads: int
    num_layers: int
    attn_output_multiplier: float | int
    embedding_multiplier_scale: float | int
    output_multiplier_scale: float | int
    sequence_len: int
    num_experts: int = 8
    num_selected_experts: int = 2
    pad_token: int = 0
    eos_token: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_number(field.name, getattr(self, field.name))
        self._check_tokens()
        self._check_divisions()

    def _check_tokens(self) -> None:
        if self.pad_token != 0:
            raise ModelError(
                "model config: pad_token must be 0, the id that attention never sees, got "
                f"{quoted(self.pad_token)}"
            )
        if not 0 <= self.eos_token < self.vocab_size:
            raise ModelError(
                f"model config: eos_token must be an id below vocab_size {self.vocab_size}, got "
                f"{quoted(self.eos_token)}"
            )

    def _check_divisions(self) -> None:
        if self.num_q_heads % self.num_kv_heads:
            raise ModelError(
                f"model config: num_q_heads {self.num_q_heads} must be a multiple of num_kv_heads "
                f"{self.num_kv_heads}, "
                "so that every key/value head serves equally many query heads"
            )
        if self.num_selected_experts > self.num_experts:
            raise ModelError(
                f"model config: num_selected_experts {self.num_selected_experts} exceeds "
                f"num_experts {self.num_experts}"
            )
        if self.key_size % 2:
            raise ModelError(
                f"model config: key_size must be even to be rotated by halves, got {self.key_size}"
            )
        if self.num_q_heads * self.key_size % SCALE_GROUPS:
            raise ModelError(
                f"model config: num_q_heads x key_size = {self.num_q_heads * self.key_size} must "
                "be a multiple of "
                f"{SCALE_GROUPS}, the number of scale groups of the attention's output projection"
            )

    @property
    def ffn_size(self) -> int:
        """Width F of one expert: 2/3 of widening x emb_size, rounded up to a multiple of 8."""
        width = int(self.widening_factor * self.emb_size) * 2 // 3
        return width + (-width) % 8

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Returns the config of a dictionary like the reference's, transformer fields in `model`.

        Raises:
            ModelError: keys are unknown or missing (named), or a value is out of range.
        """
        transformer = values.get("model")
        if not isinstance(transformer, Mapping):
            raise ModelError(
                "model config: the key 'model' must hold an object with the transformer's fields, "
                "e.g. emb_size"
            )
        unknown = [str(key) for key in values if key not in _OUTER | _IGNORED_KEYS]
        known_fields = _INNER | _IGNORED_INNER_KEYS
        unknown += [f"model.{key}" for key in transformer if key not in known_fields]
        if unknown:
            raise ModelError(
                f"model config: unknown keys {', '.join(sorted(unknown))}; remove or correct them"
            )

        numbers = {}
        missing = []
        for field in fields(cls):
            section = transformer
            path = f"model.{field.name}"
            if field.name in _OUTER:
                section = values
                path = field.name
            if field.name in section:
                numbers[field.name] = section[field.name]
            elif field.default is MISSING:
                missing.append(path)
        if missing:
            raise ModelError(f"model config: missing keys {', '.join(missing)}")

        for name, value in numbers.items():
            _check_number(name, value)
        config = cls(**numbers)
        if values.get("ffn_size", config.ffn_size) != config.ffn_size:
            raise ModelError(
                f"model config: ffn_size {quoted(values['ffn_size'])} contradicts widening_factor "
                f"{config.widening_factor} and "
                f"emb_size {config.emb_size}, from which {config.ffn_size} follows"
            )
        return config

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Returns the config of a JSON text; see `from_dict`.

        Raises:
            ModelError: the text is not a JSON object, or `from_dict` refuses it.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ModelError(f"model config: not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise ModelError(f"model config: expected a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)


def _check_number(name: str, value: Any) -> None:
    """Raises ModelError unless `value` is a number of the kind that the field `name` holds."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if name in _TOKENS and not (is_integer and value >= 0):
        raise ModelError(f"model config: {name} must be a token id, got {quoted(value)}")
    if name in _COUNTS and not (is_integer and value >= 1):
        raise ModelError(
            f"model config: {name} must be a positive whole number, got {quoted(value)}"
        )
    is_number = is_integer or isinstance(value, float)
    if name in _FACTORS and not (is_number and math.isfinite(value) and value > 0):
        raise ModelError(
            f"model config: {name} must be a positive finite number, got {quoted(value)}"
        )


_TOKENS = ("pad_token", "eos_token")
_COUNTS = (
    "vocab_size",
    "emb_size",
    "key_size",
    "num_q_heads",
    "num_kv_heads",
    "num_layers",
    "sequence_len",
    "num_experts",
    "num_selected_experts",
)
_FACTORS = (
    "widening_factor",
    "attn_output_multiplier",
    "embedding_multiplier_scale",
    "output_multiplier_scale",
)
_OUTER = {
    "vocab_size",
    "pad_token",
    "eos_token",
    "sequence_len",
    "embedding_multiplier_scale",
    "output_multiplier_scale",
}
_INNER = {f.name for f in fields(ModelConfig)} - _OUTER


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the checkpoint.

    `axes` names its dimensions: vocab, embed, heads, kv_heads, ffn, experts.
    """

    module: str  # Haiku module, e.g. transformer/decoder_layer_0/moe/linear
    name: str  # parameter within the module: w, scale or embeddings
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    # None: plain float32; else int8 with bfloat16 scales of that many row groups
    scale_groups: int | None = None

    @property
    def path(self) -> str:
        """The tensor's full name."""
        return f"{self.module}/{self.name}"

    @property
    def scales_shape(self) -> tuple[int, ...] | None:
        """Shape of the scales of an int8 tensor, (..., groups, columns); None for plain float32."""
        if self.scale_groups is None:
            return None
        return (*self.shape[:-2], self.scale_groups, self.shape[-1])

    @property
    def stored_bytes(self) -> int:
        """Bytes of the tensor's numbers on disk and on devices."""
        if self.scales_shape is None:
            return 4 * math.prod(self.shape)
        return math.prod(self.shape) + 2 * math.prod(self.scales_shape)


@dataclass(frozen=True, slots=True)
class ParameterShapes:
    """Every tensor of a model in checkpoint order; its position is the number of its file."""

    tensors: tuple[TensorSpec, ...]

    def __iter__(self) -> Iterator[TensorSpec]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def parameters(self) -> int:
        """How many parameters the model has; scales are not counted."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors as int8 with scales."""
        return sum(tensor.stored_bytes for tensor in self.tensors)


def parameter_shapes(config: ModelConfig) -> ParameterShapes:
    """Returns the model's tensors in file order: by module and name, compared as strings.

    `jax.tree_util` flattens them in this order. The layers come as decoder_layer_0, _1, _10, …,
    _19, _2, _20, …; the order is part of the file format.
    """
    width = config.emb_size
    table_shape = (config.vocab_size, width)
    tensors = [
        TensorSpec("language_model/in_out_embed", "embeddings", table_shape, ("vocab", "embed")),
        TensorSpec("language_model/rms_norm", "scale", (width,), ("embed",)),
    ]
    for layer in range(config.num_layers):
        tensors += _layer_tensors(config, f"transformer/decoder_layer_{layer}")
    return ParameterShapes(tuple(sorted(tensors, key=lambda tensor: (tensor.module, tensor.name))))


def _layer_tensors(config: ModelConfig, layer: str) -> Iterator[TensorSpec]:
    d = config.emb_size
    e = config.num_experts
    f = config.ffn_size
    hc = config.num_q_heads * config.key_size
    kc = config.num_kv_heads * config.key_size
    for name in ("linear", "linear_v"):
        yield TensorSpec(f"{layer}/moe/{name}", "w", (e, d, f), ("experts", "embed", "ffn"), 1)
    yield TensorSpec(
        f"{layer}/moe/linear_1", "w", (e, f, d), ("experts", "ffn", "embed"), SCALE_GROUPS
    )
    attention = f"{layer}/multi_head_attention"
    yield TensorSpec(f"{attention}/query", "w", (d, hc), ("embed", "heads"), 1)
    for name in ("key", "value"):
        yield TensorSpec(f"{attention}/{name}", "w", (d, kc), ("embed", "kv_heads"), 1)
    yield TensorSpec(f"{attention}/linear", "w", (hc, d), ("heads", "embed"), SCALE_GROUPS)
    for name in ("rms_norm", "rms_norm_1", "rms_norm_2", "rms_norm_3"):
        yield TensorSpec(f"{layer}/{name}", "scale", (d,), ("embed",))
    yield TensorSpec(f"{layer}/router", "w", (d, e), ("embed", "experts"))


GROK_1 = ModelConfig(
    vocab_size=131072,
    emb_size=6144,
    widening_factor=8,
    key_size=128,
    num_q_heads=48,
    num_kv_heads=8,
    num_layers=64,
    attn_output_multiplier=0.08838834764831845,
    embedding_multiplier_scale=78.38367176906169,
    output_multiplier_scale=0.5773502691896257,
    sequence_len=8192,
)

# Grok-1's architecture in three small layers, trained by jobs/make_demo.py: what a machine without
# a GPU runs in seconds.
DEMO = ModelConfig(
    vocab_size=768,
    emb_size=128,
    widening_factor=2,
    key_size=16,
    num_q_heads=8,
    num_kv_heads=8,
    num_layers=3,
    attn_output_multiplier=16**-0.5,
    embedding_multiplier_scale=128**0.5,
    output_multiplier_scale=0.5773502691896257,
    sequence_len=2048,
)

# The model that speed is measured with on CPUs.
SMALL = ModelConfig(
    vocab_size=8192,
    emb_size=512,
    widening_factor=8,
    key_size=64,
    num_q_heads=8,
    num_kv_heads=8,
    num_layers=8,
    attn_output_multiplier=64**-0.5,
    embedding_multiplier_scale=78.38367176906169,
    output_multiplier_scale=0.5773502691896257,
    sequence_len=8192,
)

PRESETS: dict[str, ModelConfig] = {"grok-1": GROK_1, "demo": DEMO, "small": SMALL}
