"""The configuration of the main job: every flag with its default, checked as far as that needs nothing but the flags."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Literal

from jobs.cli.parser import flag
from pipeline.errors import ConfigError
from pipeline.requests.sampling import MAX_PATTERN, MAX_SAMPLES, PENALTIES, SamplingDefaults


@dataclass(frozen=True)
class ScoreConfig:
    """One run of jobs/score_dataset.py.

    Raises:
        ConfigError: flags are missing, out of range, or contradict each other.
    """

    input: str | None = flag(
        None, "Parquet or .jsonl file, folder or glob; any fsspec URL; required", short="-i"
    )
    output: str | None = flag(None, "run folder; any fsspec URL; required", short="-o")
    model: str = flag("grok-1", "grok-1, demo, or a path or URL of a JSON file of hyperparameters")
    checkpoint: str | None = flag(
        None, "folder or URL of a checkpoint, e.g. xAI's ckpt-0; required unless --model demo"
    )
    tokenizer: str | None = flag(
        None, "SentencePiece model, file or URL; not needed when every row has token ids"
    )
    task: Literal["generate", "score", "perplexity"] = flag(
        "generate",
        "generate: complete each prompt; score: log-likelihood of given continuations; perplexity: "
        "of the whole text",
    )
    prompt_column: str = flag("prompt", "name of the input's prompt column")
    continuation_column: str = flag(
        "continuation", "name of the input's column of texts to score after the prompt (task score)"
    )
    id_column: str = flag(
        "id", "name of the input's id column; ids are <file>#<row> where there is none"
    )
    max_tokens: int | None = flag(
        None, "most tokens of a completion; required for generate unless a column max_tokens has it"
    )
    temperature: float = flag(0.0, "0 = greedy")
    top_p: float = flag(1.0, "nucleus: share of probability kept; 1 = off")
    top_k: int = flag(0, "most likely tokens kept; 0 = off")
    min_p: float = flag(
        0.0,
        "tokens kept that are at least so likely as this share of the most likely one, before "
        "top-k and top-p; 0 = off",
    )
    repetition_penalty: float = flag(
        1.0,
        "logits of tokens that the prompt or the completion has are divided by it, negative ones "
        "multiplied; 1 = off",
    )
    seed: int = flag(
        0,
        "seed of the run; the seed of a sample follows from it, the row's id and the sample's "
        "index",
    )
    stop: tuple[str, ...] = flag((), "string that ends a completion; may be given several times")
    n: int = flag(1, "samples per row")
    min_tokens: int = flag(0, "no end before so many tokens")
    ignore_eos: bool = flag(False, "go on after the end-of-text token")
    repetition_max_pattern: int = flag(
        0,
        "a completion ends (finish_reason repetition) once its last tokens are one pattern of at "
        "most so many tokens, over "
        "and over; 0 = off",
    )
    repetition_min_count: int = flag(
        8, "times that the pattern must stand there, one after the other"
    )
    logprobs: int | None = flag(
        0, "log-prob of each generated token and of the K most likely ones; null = not written"
    )
    prompt_logprobs: int | None = flag(None, "the same at each prompt position; null = not written")
    dtype: Literal["bfloat16", "float32"] = flag("bfloat16", "activations")
    replicas: str = flag(
        "1", "MIN[:MAX] replicas: start with MIN, use up to MAX as the cluster grows"
    )
    mesh: str | None = flag(
        None,
        "DATAxMODEL devices of one replica; default 1x8, for demo 1x1; virtual ones without GPUs",
    )
    shard_activations: bool = flag(
        False, "split activations between blocks over the mesh: less memory, more collectives"
    )
    device: Literal["auto", "cpu", "gpu"] = flag(
        "auto", "auto: GPUs if the cluster has any when the job starts"
    )
    batch_tokens: int = flag(
        8192, "token budget of one batch, padding and expected completions included"
    )
    max_len: int | None = flag(
        None, "longest prompt + completion, tokens; default: the model's context"
    )
    shard_rows: int = flag(1000, "rows per commit, i.e. per output file")
    on_overflow: Literal["error", "truncate-left"] = flag(
        "error", "what to do with a prompt longer than --max-len less max_tokens"
    )
    partition: str = flag("0/1", "I/N: this driver takes the shards whose number is I modulo N")
    limit: int | None = flag(None, "only the first N rows")
    dry_run: bool = flag(
        False, "only plan: rows, tokens, padding, memory, time and cost; starts nothing"
    )
    resume: Literal["auto", "never", "require"] = flag(
        "auto", "auto: go on if --output holds this run; never, require: insist"
    )
    retry_failed: bool = flag(
        False, "run the rows again that a former run of this command wrote with status error"
    )
    max_error_rate: float = flag(
        0.01, "share of rows that may fail; beyond it the job stops with exit code 4"
    )
    max_attempts: int = flag(3, "tries per row whose replica is lost")
    step_timeout_s: float = flag(
        600.0, "a replica whose engine finishes no step for so long is replaced, seconds"
    )
    cost_per_replica_hour: float | None = flag(
        None, "price of one replica for an hour, for the cost shown and reported"
    )
    cost_budget: float | None = flag(
        None, "what the run may cost: told to metrics, for an alert; nothing is stopped"
    )
    log_format: Literal["text", "json"] = flag(
        "text", "text: for people; json: each event is one line of JSON on standard error"
    )

    def __post_init__(self) -> None:
        self._check_required()
        self._check_ranges()
        for form in (self.replica_range, self.mesh_shape, self.partition_pair):
            form()

    def _check_required(self) -> None:
        for name in ("input", "output"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is missing; see --help")
        if self.model != "demo" and self.checkpoint is None and not self.dry_run:
            raise ConfigError(
                "--checkpoint is missing: give the folder or URL of the model's weights, or use "
                "--model demo"
            )
        if self.task != "generate" and self.n != 1:
            raise ConfigError(
                f"--n: expected 1 for task {self.task}, which draws nothing, got {self.n}"
            )
        if self.cost_budget is not None and self.cost_per_replica_hour is None:
            raise ConfigError(
                "--cost-budget needs --cost-per-replica-hour: without a price nothing has a cost"
            )
        if any(not each for each in self.stop):
            raise ConfigError(
                "--stop: expected a text, got an empty one, which would end every completion at "
                "once"
            )

    def _check_ranges(self) -> None:
        ranges: tuple[tuple[str, float | None, float], ...] = (
            ("max_tokens", 1, math.inf), ("temperature", 0, 1e6), ("top_k", 0, 2**31 - 1), ("min_p", 0, 1), ("n", 1, MAX_SAMPLES),
            ("repetition_penalty", *PENALTIES), ("repetition_max_pattern", 0, MAX_PATTERN),
            ("repetition_min_count", 2, math.inf), ("min_tokens", 0, math.inf),
            ("logprobs", 0, 1000), ("prompt_logprobs", 0, 1000), ("batch_tokens", 1, math.inf),
            ("max_len", 2, math.inf), ("shard_rows", 1, math.inf), ("limit", 1, math.inf), ("max_error_rate", 0, 1),
            ("max_attempts", 1, math.inf), ("step_timeout_s", 1, math.inf), ("cost_per_replica_hour", 0, math.inf),
            ("cost_budget", 0, math.inf),
            ("seed", -(2**63), 2**63 - 1),
        )  # fmt: skip
        for name, low, high in ranges:
            value = getattr(self, name)
            if value is not None and not (low or 0) <= value <= high:
                expected = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
                raise ConfigError(f"--{name.replace('_', '-')}: expected {expected}, got {value}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"--top-p: expected above 0 and up to 1, got {self.top_p}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ConfigError(
                f"--min-tokens: expected at most --max-tokens {self.max_tokens}, got "
                f"{self.min_tokens}"
            )

    def replica_range(self) -> tuple[int, int]:
        """Returns MIN and MAX of --replicas."""
        low, high = _numbers(
            "replicas",
            self.replicas,
            r"(\d+)(?::(\d+))?",
            "MIN or MIN:MAX with 1 <= MIN <= MAX, e.g. 2 or 2:8",
        )
        high = low if high is None else high
        if not 1 <= low <= high:
            raise ConfigError(f"--replicas: expected 1 <= MIN <= MAX, got {self.replicas}")
        return low, high

    def mesh_shape(self) -> tuple[int, int]:
        """Returns DATA and MODEL of --mesh."""
        text = self.mesh or ("1x1" if self.model == "demo" else "1x8")
        data, model = _numbers("mesh", text, r"(\d+)x(\d+)", "DATAxMODEL, e.g. 1x8")
        if not data or not model:
            raise ConfigError(f"--mesh: expected at least one device on each axis, got {text}")
        return data, model

    def partition_pair(self) -> tuple[int, int]:
        """Returns I and N of --partition."""
        index, count = _numbers(
            "partition", self.partition, r"(\d+)/(\d+)", "I/N with 0 <= I < N, e.g. 0/4"
        )
        if count is None or not index < count:
            raise ConfigError(f"--partition: expected 0 <= I < N, got {self.partition}")
        return index, count

    def sampling_defaults(self) -> SamplingDefaults:
        """Returns what holds for rows without sampling columns of their own."""
        return SamplingDefaults(
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(SamplingDefaults)
            }
        )


def _numbers(name: str, text: str, pattern: str, expected: str) -> tuple[int, int | None]:
    found = re.fullmatch(pattern, text)
    if not found:
        raise ConfigError(f"--{name}: expected {expected}, got {text!r}")
    return int(found[1]), None if found[2] is None else int(found[2])
