"""Flags of the plan without data."""

from dataclasses import dataclass

from actors.engine.planning.device_profiles import profile_names
from actors.protocol.plain_text import quoted
from jobs.cli.flag_checks import check_range, require_flags
from jobs.cli.parser import flag
from pipeline.errors import ConfigError

CPU = "cpu"  # the profile that no machine for rent has
GPUS = tuple(name for name in profile_names() if name != CPU)


@dataclass(frozen=True)
class PlanConfig:
    """Flags of `grok-batch plan`.

    Raises:
        ConfigError: a flag is missing or out of range.
    """

    rows: float | None = flag(None, "rows of the run, e.g. 1e6; required")
    prompt_tokens: int | None = flag(
        None, "mean length of a prompt, its shared prefix included; required"
    )
    completion_tokens: int = flag(
        0, "mean length of a completion; 0: the task scores --continuations of one token each"
    )
    prefix_tokens: int = flag(0, "leading tokens that prompts share, e.g. the worked examples")
    rows_per_prefix: int | None = flag(None, "rows that share a prefix; default: all")
    continuations: int = flag(4, "continuations of a row that are scored")
    model: str = flag("grok-1", "grok-1, or a path or URL of a JSON file of hyperparameters")
    max_len: int | None = flag(
        None, "longest prompt + completion, tokens; default: the model's context"
    )
    gpu: str | None = flag(None, f"one of {', '.join(GPUS)}; default: all of them")
    slots: int | None = flag(None, "sequences that decode together; default: as a run chooses")
    prefill_tokens: int | None = flag(
        None, "positions of a prefill call; default: as a run chooses"
    )
    measurement: str | None = flag(
        None, "JSON of jobs/check_gpu.py --json: measured times of the GPU that --gpu names"
    )
    json: bool = flag(False, "print JSON instead of a table")

    def __post_init__(self) -> None:
        require_flags(self, ["rows", "prompt_tokens"])
        self._check_counts()
        if self.prompt_tokens is not None and self.prefix_tokens >= self.prompt_tokens:
            raise ConfigError(
                f"--prefix-tokens: expected less than --prompt-tokens {self.prompt_tokens}, got "
                f"{self.prefix_tokens}"
            )
        if self.gpu is not None and self.gpu not in GPUS:
            raise ConfigError(f"--gpu: expected one of {', '.join(GPUS)}, got {quoted(self.gpu)}")
        if self.measurement is not None and self.gpu is None:
            raise ConfigError("--measurement needs --gpu: the GPU that was measured")

    @property
    def row_count(self) -> int:
        """The value of --rows as a whole number."""
        return round(self.rows or 0)

    @property
    def prompt_token_count(self) -> int:
        """The value of --prompt-tokens."""
        return self.prompt_tokens or 0

    def _check_counts(self) -> None:
        for name in ("rows", "prompt_tokens", "continuations", "rows_per_prefix", "slots"):
            check_range(name, getattr(self, name), 1)
        for name in ("completion_tokens", "prefix_tokens"):
            check_range(name, getattr(self, name), 0)
