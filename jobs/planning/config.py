"""Flags of the plan of a run on rented machines, with and without data."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from actors.engine.planning.device_profiles import gpu_names
from actors.engine.simulation.figures import USD
from actors.protocol.plain_text import quoted
from jobs.cli.flag_checks import check_range, flag_name, require_flags
from jobs.cli.help_topics import FIRST, Topics
from jobs.cli.parser import flag
from jobs.run.config import ScoreConfig
from pipeline.errors import ConfigError
from pipeline.tasks import GENERATE, TASKS

GPUS = gpu_names()
# Flags of rows without data, by their defaults: with data, its rows have them.
WITHOUT_DATA: dict[str, object] = {
    "prompt_tokens": None,
    "prefix_tokens": 0,
    "rows_per_prefix": None,
    "continuations": 4,
}
# Flags of data, by their defaults.
WITH_DATA: dict[str, object] = {
    "tokenizer": None,
    "task": GENERATE.name,
    "prompt_column": "prompt",
    "continuation_column": "continuation",
    "template": None,
    "max_tokens": None,
    "limit": None,
    "sample": None,
    "sample_seed": 0,
    "on_overflow": "error",
    "window_stride": None,
}
# A completion has at most so many times the mean that --completion-tokens gives.
LONGEST_COMPLETION = 3


@dataclass(frozen=True)
class PlanConfig:
    """Flags of `grok-batch plan`.

    Raises:
        ConfigError: a flag is missing, out of range, or has no effect beside the others.
    """

    HELP_TOPICS: ClassVar[Topics] = {
        FIRST: (
            "rows",
            "prompt_tokens",
            "completion_tokens",
            "model",
            "gpu",
            "machines",
            "json",
        ),
        "rows without data": ("prefix_tokens", "rows_per_prefix", "continuations"),
        "rows of data": ("input", *WITH_DATA),
        "prices": ("cost_per_machine_hour", "currency"),
        "sizes of the engine": ("max_len", "slots", "prefill_tokens", "deterministic", "policies"),
        "measured times": ("measurement",),
    }

    rows: float | None = flag(
        None, "rows of the run, e.g. 1e6; required without --input; with it: rows like its rows"
    )
    prompt_tokens: int | None = flag(
        None, "mean length of a prompt, its shared prefix included; required without --input"
    )
    completion_tokens: int = flag(
        0,
        "mean length of a completion; 0: without --input the task scores --continuations of one "
        "token each, with it completions are as long as max_tokens",
    )
    prefix_tokens: int = flag(0, "leading tokens that prompts share, e.g. the worked examples")
    rows_per_prefix: int | None = flag(None, "rows that share a prefix; default: all")
    continuations: int = flag(4, "continuations of a row that are scored")
    input: str | None = flag(
        None, "rows to take the lengths from, as grok-batch score reads them", short="-i"
    )
    tokenizer: str | None = flag(None, "SentencePiece model, for --input with text")
    task: str = flag(GENERATE.name, f"of --input: {', '.join(TASKS)}", choices=tuple(TASKS))
    prompt_column: str = flag("prompt", "name of the prompt column of --input")
    continuation_column: str = flag("continuation", "name of the column of --input that is scored")
    template: str | None = flag(
        None,
        "Jinja template of the prompt over the columns of --input, such as "
        "'{{ question }}\\nAnswer:', or @FILE",
    )
    max_tokens: int | None = flag(
        None,
        "most tokens of a completion of --input; default: its column max_tokens, else "
        f"{LONGEST_COMPLETION} times --completion-tokens",
    )
    limit: int | None = flag(None, "only the first N rows of --input")
    sample: int | None = flag(
        None, "only N random rows of --input, as --sample of a run takes them"
    )
    sample_seed: int = flag(0, "chooses the rows of --sample")
    on_overflow: Literal["error", "truncate-left", "window"] = flag(
        "error", "handling of prompts of --input that are longer than --max-len minus max_tokens"
    )
    window_stride: int | None = flag(
        None, "with --on-overflow window: tokens that a window after the first one scores"
    )
    model: str = flag("grok-1", "grok-1, or a path or URL of a JSON file of hyperparameters")
    max_len: int | None = flag(
        None, "longest prompt + completion, tokens; default: the model's context"
    )
    gpu: str | None = flag(None, f"one of {', '.join(GPUS)}; default: all of them")
    machines: int = flag(1, "machines that share the rows; each of them starts and is paid")
    cost_per_machine_hour: float | None = flag(
        None, "price of the machine of --gpu for an hour; default: a range of usual prices in USD"
    )
    currency: str = flag(USD, "currency of --cost-per-machine-hour")
    slots: int | None = flag(None, "sequences that decode together; default: as a run chooses")
    prefill_tokens: int | None = flag(
        None, "positions of a prefill call; default: as a run chooses"
    )
    deterministic: bool = flag(
        False, "one size of each kind of call, as --deterministic of a run has it"
    )
    policies: bool = flag(
        False,
        "print rows/s of the ways in which an engine can make its calls, each with sizes of its "
        "own; takes a minute",
    )
    measurement: str | None = flag(
        None, "JSON of jobs/check_gpu.py --json: measured times of the GPU that --gpu names"
    )
    json: bool = flag(False, "print JSON instead of a table; docs/planning.md lists its keys")

    def __post_init__(self) -> None:
        self._check_rows()
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
        if self.cost_per_machine_hour is not None and self.gpu is None:
            raise ConfigError(
                "--cost-per-machine-hour needs --gpu: the machine that it is paid for"
            )
        if self.currency != USD and self.cost_per_machine_hour is None:
            raise ConfigError(
                f"--currency {self.currency}: usual prices are in {USD}; give "
                "--cost-per-machine-hour in this currency"
            )

        if self.policies:
            self._check_policies()

    @property
    def has_data(self) -> bool:
        """Whether the lengths are those of rows, not of flags."""
        return self.input is not None

    @property
    def row_count(self) -> int:
        """The value of --rows as a whole number; 0 without it."""
        return round(self.rows or 0)

    @property
    def prompt_token_count(self) -> int:
        """The value of --prompt-tokens."""
        return self.prompt_tokens or 0

    def score_config(self) -> ScoreConfig:
        """Returns the main job over the data.

        Raises:
            ConfigError: its flags do not fit.
        """
        max_tokens = self.max_tokens
        if max_tokens is None and self.completion_tokens and TASKS[self.task].generates:
            max_tokens = LONGEST_COMPLETION * self.completion_tokens
        return ScoreConfig(
            input=self.input,
            model=self.model,
            tokenizer=self.tokenizer,
            task=self.task,
            prompt_column=self.prompt_column,
            continuation_column=self.continuation_column,
            template=self.template,
            max_tokens=max_tokens,
            limit=self.limit,
            sample=self.sample,
            sample_seed=self.sample_seed,
            on_overflow=self.on_overflow,
            window_stride=self.window_stride,
            max_len=self.max_len,
            slots=self.slots or "auto",
            prefill_tokens=self.prefill_tokens or "auto",
            deterministic=self.deterministic,
            device="gpu",
            dry_run=True,
        )

    def _check_rows(self) -> None:
        unused = WITHOUT_DATA
        reason = "--input has the lengths of its rows"
        if not self.has_data:
            require_flags(self, ["rows", "prompt_tokens"])
            unused = WITH_DATA
            reason = "there is no --input"
        for name, default in unused.items():
            if getattr(self, name) != default:
                raise ConfigError(
                    f"--{name.replace('_', '-')} has no effect: {reason}; leave one of them out"
                )
        if self.task not in TASKS:
            raise ConfigError(
                f"--task: expected one of {', '.join(TASKS)}, got {quoted(self.task)}"
            )

    def _check_policies(self) -> None:
        """Refuses flags that have no effect beside --policies."""
        for name in ("slots", "prefill_tokens", "deterministic"):
            if getattr(self, name):
                raise ConfigError(
                    f"{flag_name(name)} has no effect: --policies compares sizes of its own; leave "
                    "one of them out"
                )

    def _check_counts(self) -> None:
        positive = (
            "rows",
            "prompt_tokens",
            "continuations",
            "rows_per_prefix",
            "slots",
            "prefill_tokens",
            "machines",
        )
        for name in positive:
            check_range(name, getattr(self, name), 1)
        for name in ("completion_tokens", "prefix_tokens", "cost_per_machine_hour"):
            check_range(name, getattr(self, name), 0)
