"""Flags of the engine benchmark; importable before JAX starts."""

import re
from dataclasses import dataclass
from typing import Literal

from actors.protocol.size_buckets import CHUNK
from jobs.cli.flag_checks import read_mesh
from jobs.cli.parser import flag
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class EngineBenchmarkConfig:
    """Flags of jobs/benchmark.py.

    Raises:
        ConfigError: a flag is not valid.
    """

    model: Literal["small", "demo", "grok-1-shard", "tiny-shard"] = flag(
        "small",
        "weights are random. grok-1-shard: what one of eight devices holds of Grok-1, 39 GB as "
        "int8, on one device: all-reduces between devices are not measured. tiny-shard: the same "
        "structure in seconds on any machine",
    )
    layers: int | None = flag(
        None, "number of layers; with 8 of 64, the programs of grok-1-shard compile in a minute"
    )
    mesh: str = flag("1x1", "DATAxMODEL; virtual devices on a machine without GPUs")
    dtype: Literal["bfloat16", "float32"] = flag("bfloat16", "activations")
    weights: Literal["auto", "int8", "dense"] = flag(
        "auto", "auto: int8 where a kernel reads it, dense elsewhere"
    )
    prefill_rows: int = flag(8, "prompts of the prefill measurement")
    prefill_length: int = flag(256, "tokens of each prompt")
    slots: str = flag("8,32,128", "numbers of sequences that decode together, with commas")
    context: int = flag(64, "tokens of each prompt before decode starts")
    new_tokens: int = flag(32, "tokens that each sequence generates")
    batch_tokens: int = flag(2048, "positions of one prefill")
    block: int = flag(CHUNK, "tokens of one row of a prefill")
    decode_steps: int = flag(8, "tokens that a slot generates per host call")
    json: str | None = flag(None, "file for the figures")

    def __post_init__(self) -> None:
        self.mesh_shape()
        self.slot_counts()
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"--layers: expected at least 1, got {self.layers}")

    def mesh_shape(self) -> tuple[int, int]:
        """Returns DATA and MODEL of --mesh."""
        return read_mesh(self.mesh)

    def slot_counts(self) -> list[int]:
        """Returns the numbers of --slots."""
        counts: list[int] = []
        for text in self.slots.split(","):
            if not re.fullmatch(r"[1-9]\d*", text.strip()):
                raise ConfigError(
                    f"--slots: expected numbers of at least 1 with commas, e.g. 8,32, got "
                    f"{self.slots!r}"
                )
            counts.append(int(text))
        return counts
