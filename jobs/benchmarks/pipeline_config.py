"""Flags of the pipeline benchmark."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from actors.model.config import PRESETS, ModelConfig
from jobs.cli.flag_checks import require_flags
from jobs.cli.parser import flag
from pipeline.errors import ConfigError

REQUIRED = ("input", "tokenizer", "folder")


@dataclass(frozen=True)
class PipelineBenchmarkConfig:
    """Flags of jobs/benchmark_pipeline.py.

    Raises:
        ConfigError: a flag is missing, or the folder exists.
    """

    input: str | None = flag(None, "input of the main job, with text; required", short="-i")
    tokenizer: str | None = flag(None, "SentencePiece model that encodes the text; required")
    folder: str | None = flag(
        None, "local folder for weights, prompts and results, created and deleted; required"
    )
    task: Literal["generate", "score"] = flag(
        "generate", "as in the main job; score needs a column choices or continuation"
    )
    continuation_column: str = flag("continuation", "as in the main job")
    model: Literal["small", "demo"] = flag("small", "preset; weights are random")
    mesh: str = flag("1x1", "DATAxMODEL virtual devices of the replica")
    dtype: Literal["bfloat16", "float32"] = flag("bfloat16", "activations")
    max_tokens: int = flag(64, "completions have half to one and a half times as many tokens")
    copies: int = flag(1, "times that each pass repeats the input, with other ids each time")
    rounds: int = flag(3, "counted passes of each kind; medians are shown")
    batch_tokens: int = flag(8192, "token budget of one batch, as in the main job")
    limit: int | None = flag(None, "only the first N rows of the input")
    json: str | None = flag(None, "file for the figures")

    def __post_init__(self) -> None:
        require_flags(self, REQUIRED)
        if self.root.exists():
            raise ConfigError(
                f"--folder: {self.folder} exists and would be deleted; name a new one"
            )

    @property
    def root(self) -> Path:
        """The folder of --folder."""
        return Path(str(self.folder))

    @property
    def model_config(self) -> ModelConfig:
        """Hyperparameters of the model."""
        return PRESETS[self.model]
