"""Flags of the driver benchmark."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.flag_checks import check_range, require_flags
from jobs.cli.parser import flag
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class DriverBenchmarkConfig:
    """Flags of jobs/benchmark_driver.py.

    Raises:
        ConfigError: a flag is missing or out of range.
    """

    folder: str | None = flag(
        None, "local folder for input and output, created and deleted; required"
    )
    rows: int = flag(1_000_000, "rows of the input")
    replicas: int = flag(1000, "simulated replicas")
    prompt_tokens: int = flag(400, "median length of a prompt, tokens; lengths are log-normal")
    task: Literal["generate", "perplexity"] = flag("generate", "what is done with each row")
    prompt_logprobs: int | None = flag(
        None, "with task perplexity: write the log-prob of each token and of the K most likely ones"
    )
    window_len: int | None = flag(
        None,
        "with task perplexity: longer texts are split into windows of so many tokens, each of "
        "which scores half as many",
    )
    max_tokens: int = flag(64, "length of every completion, tokens")
    batch_tokens: int = flag(8192, "token budget of one batch")
    shard_rows: int = flag(1000, "rows per commit")
    in_flight: int = flag(8, "batches on each replica")
    service_s: float = flag(30.0, "mean time of a replica for a batch, simulated seconds")
    slow_share: float = flag(0.01, "share of batches that take slow_factor times as long")
    slow_factor: float = flag(10.0, "factor by which these batches are slower")
    failure_s: float | None = flag(
        None, "mean time until a replica is lost, simulated seconds; none by default"
    )
    seed: int = flag(0, "seed of lengths, times and losses")

    def __post_init__(self) -> None:
        require_flags(self, ["folder"])
        if Path(str(self.folder)).exists():
            raise ConfigError(
                f"--folder: {self.folder} exists; it would be deleted at the end, name a new one"
            )

        if self.task == "generate" and (self.prompt_logprobs, self.window_len) != (None, None):
            raise ConfigError(
                "--prompt-logprobs and --window-len have no effect on --task generate; leave them "
                "out or use --task perplexity"
            )
        check_range("prompt_logprobs", self.prompt_logprobs, 0)
        check_range("window_len", self.window_len, 2)
        counts = (self.rows, self.replicas, self.prompt_tokens, self.max_tokens, self.in_flight)
        if min(counts) < 1:
            raise ConfigError(
                "--rows, --replicas, --prompt-tokens, --max-tokens, --in-flight: expected at least "
                "1"
            )
        if self.service_s <= 0:
            raise ConfigError(f"--service-s: expected more than 0, got {self.service_s}")

    @property
    def max_len(self) -> int:
        """Longest prompt and completion, or window."""
        if self.window_len is not None:
            return self.window_len
        return 8 * self.prompt_tokens + self.max_tokens
