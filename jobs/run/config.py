"""The configuration of the main job: every flag with its default, and checks of the flags alone."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal

from actors.protocol.parameters import ParameterError
from actors.protocol.plain_text import quoted
from actors.protocol.sampling import (
    PARAMETERS,
    SamplingParams,
    check_combination,
    read_parameters,
)
from jobs.cli.flag_checks import check_range, flag_name, read_deadline, read_mesh, require_flags
from jobs.cli.help_topics import FIRST, RUN_TOPICS, Topics
from jobs.cli.parser import flag
from jobs.cli.uploaded_folder import check_output_is_kept
from pipeline.errors import ConfigError
from pipeline.output.schema import task_columns
from pipeline.tasks import DEFAULT_TOP_K, EMBED, GENERATE, TASKS, TEACH, LogprobOptions

AUTO: Literal["auto"] = "auto"  # value of flags that the plan of a run resolves
PROMPT_COLUMN = "prompt"

# Lowest and highest value of numeric flags; sampling parameters have theirs in their declaration.
RANGES: dict[str, tuple[float, float]] = {
    "logprobs": (0, 1000),
    "prompt_logprobs": (0, 1000),
    "top_k_logprobs": (1, 1000),
    "batch_tokens": (1, math.inf),
    "slots": (1, math.inf),
    "prefill_tokens": (1, math.inf),
    "max_len": (2, math.inf),
    "shard_rows": (1, math.inf),
    "limit": (1, math.inf),
    "sample": (1, math.inf),
    "max_error_rate": (0, 1),
    "max_attempts": (1, math.inf),
    "step_timeout_s": (1, math.inf),
    "cost_per_replica_hour": (0, math.inf),
    "cost_budget": (0, math.inf),
    "max_cost": (0, math.inf),
    "max_replica_hours": (0, math.inf),
}

# Flags that one task uses: the task, and the value that they have elsewhere.
TASK_FLAGS: dict[str, tuple[str, object]] = {
    "pool": (EMBED.name, "last"),
    "normalize": (EMBED.name, False),
    "embedding_dtype": (EMBED.name, "float32"),
    "top_k_logprobs": (TEACH.name, DEFAULT_TOP_K),
}


@dataclass(frozen=True)
class InputFlags:
    """Flags of the main job that choose its input, output, model and task."""

    input: str | None = flag(
        None,
        "Parquet, JSON, CSV or Arrow file, folder or glob; any fsspec URL; required",
        short="-i",
    )
    output: str | None = flag(None, "run folder; any fsspec URL; required", short="-o")
    model: str = flag("grok-1", "grok-1, demo, or a path or URL of a JSON file of hyperparameters")
    checkpoint: str | None = flag(
        None, "folder or URL of a checkpoint, e.g. xAI's ckpt-0; required unless --model demo"
    )
    tokenizer: str | None = flag(
        None, "SentencePiece model, file or URL; not needed when every row has token ids"
    )
    task: str = flag(
        GENERATE.name,
        "; ".join(f"{task.name}: {task.help}" for task in TASKS.values()),
        choices=tuple(TASKS),
    )
    prompt_column: str = flag(PROMPT_COLUMN, "name of the prompt column of the input")
    continuation_column: str = flag(
        "continuation", "name of the column with the texts to score after the prompt (task score)"
    )
    id_column: str = flag(
        "id", "name of the id column of the input; without it, ids are <file>#<row>"
    )


@dataclass(frozen=True)
class ScoreConfig(SamplingParams, InputFlags):
    """One run of jobs/score_dataset.py.

    Raises:
        ConfigError: flags are missing, out of range, or contradict each other.
    """

    HELP_TOPICS: ClassVar[Topics] = {
        FIRST: (
            "input",
            "output",
            "model",
            "checkpoint",
            "tokenizer",
            "task",
            "max_tokens",
            "temperature",
            "replicas",
            "dry_run",
        ),
        **RUN_TOPICS,
    }

    template: str | None = flag(
        None,
        "Jinja template of the prompt over the columns of a row, such as "
        "'{{ question }}\\nAnswer:', or @FILE. In the flag \\n and \\t are line break and tab, and "
        "\\\\ is a backslash; a file is taken as it is",
    )
    keep_prompt: bool = flag(
        False,
        "write the prompt, too: the column of prompts, or with --template its text as 'prompt'",
    )
    logprobs: int | None = flag(
        0, "log-prob of each generated token and of the K most likely ones; null = not written"
    )
    prompt_logprobs: int | None = flag(None, "the same at each prompt position; null = not written")
    token_logprobs: bool = flag(
        False,
        "tasks score and perplexity: write id and log-prob of each scored token; with --logprobs K "
        "(perplexity: --prompt-logprobs K) also of the K most likely ones",
    )
    boundary_chars: bool = flag(
        False,
        "task score: write how many characters of the prompt the first scored token covers too",
    )
    pool: Literal["last", "mean"] = flag(
        "last",
        "task embed: last: the hidden state of the last token; mean: the mean of those of all "
        "tokens",
    )
    normalize: bool = flag(False, "task embed: divide each embedding by its length")
    embedding_dtype: Literal["float32", "float16"] = flag(
        "float32", "task embed: type of the numbers of the embeddings"
    )
    top_k_logprobs: int = flag(
        DEFAULT_TOP_K, "task teach: most likely tokens at each position, with their log-probs"
    )
    bits_per_byte: bool = flag(
        False,
        "task perplexity: write text_bytes and bits_per_byte; --on-overflow window does so, too",
    )
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
    batch_tokens: int | Literal["auto"] = flag(
        AUTO,
        "token budget of one batch, padding and expected completions included; auto: 8192, or more "
        "where 64 batches of it do not keep all slots of a replica busy",
    )
    slots: int | Literal["auto"] = flag(
        AUTO,
        "sequences that decode together on each data shard of a replica; auto: 256 or 512 on GPUs, "
        "as memory and the lengths of the input allow, 64 on CPUs",
    )
    prefill_tokens: int | Literal["auto"] = flag(
        AUTO,
        "positions of one prefill call; auto: 8192 on GPUs, 2048 on CPUs, at most --batch-tokens",
    )
    deterministic: bool = flag(
        False,
        "one size of calls and products that are not chosen by timing: on GPUs log-probs have the "
        "same bits whatever runs beside a row; slower there. On CPUs they have without it",
    )
    max_len: int | None = flag(
        None, "longest prompt + completion, tokens; default: the model's context"
    )
    shard_rows: int = flag(1000, "rows per commit, i.e. per output file")
    on_overflow: Literal["error", "truncate-left", "window"] = flag(
        "error",
        "handling of prompts longer than --max-len minus max_tokens; window: tasks perplexity "
        "and teach score a longer text in windows of --max-len tokens, each token once",
    )
    window_stride: int | None = flag(
        None,
        "with --on-overflow window: tokens that each window after the first one scores, given the "
        "--max-len - N tokens before them; default: --max-len - 1, the cheapest",
    )
    partition: str = flag("0/1", "I/N: this driver takes the shards whose number is I modulo N")
    limit: int | None = flag(None, "only the first N rows")
    sample: int | None = flag(
        None, "only N random rows (of the first --limit); the same for the same --sample-seed"
    )
    sample_seed: int = flag(0, "chooses the rows of --sample")
    dry_run: bool = flag(
        False, "only plan: rows, tokens, padding, memory, time and cost; starts nothing"
    )
    json: bool = flag(False, "print the plan of --dry-run as JSON")
    resume: Literal["auto", "never", "require"] = flag(
        "auto",
        "auto: continue the run in --output if there is one; never: refuse a folder with a run; "
        "require: refuse a folder without a run",
    )
    reuse: tuple[str, ...] = flag(
        (),
        "run folder of an older run, any fsspec URL: copy the rows that it has computed from the "
        "same requests, compute the others; may be given several times",
    )
    retry_failed: bool = flag(
        False, "run the rows with status error of an earlier run of this command again"
    )
    max_error_rate: float = flag(
        0.01,
        "share of rows that may fail; beyond it the job stops with exit code 4. Any share above 0 "
        "allows 10 failed rows if they are at most half of all",
    )
    max_attempts: int = flag(3, "attempts per row whose replica is lost")
    step_timeout_s: float = flag(
        600.0, "seconds without a finished step after which a replica is replaced"
    )
    cost_per_replica_hour: float | None = flag(
        None, "price of one replica for an hour, for the cost shown and reported"
    )
    cost_budget: float | None = flag(
        None,
        "cost at which an alert fires; exported as a metric, nothing is stopped: see --max-cost",
    )
    max_cost: float | None = flag(
        None,
        "end before the run costs more, over all its calls and partitions, with exit code 75; "
        "needs --cost-per-replica-hour",
    )
    max_replica_hours: float | None = flag(
        None,
        "end before replicas were up for more hours, added up over all calls and partitions of the "
        "run, with exit code 75",
    )
    deadline: str | None = flag(
        None,
        "end before this time, with exit code 75: a duration from the start of the command (90m, "
        "8h, 1h30m, 2d), or ISO 8601 with the offset from UTC (2026-11-28T06:00Z)",
    )
    log_format: Literal["text", "json"] = flag(
        "text", "text: for people; json: each event is one line of JSON on standard error"
    )

    def __post_init__(self) -> None:
        self._check_required()
        self._check_costs()
        self._check_paths()
        check_output_is_kept(self, ["output"])
        self._check_ranges()
        self._check_windows()
        self.sampling_params()
        self.replica_range()
        self.mesh_shape()
        self.partition_pair()

    def _check_paths(self) -> None:
        for name in ("input", "output", "checkpoint", "tokenizer"):
            path = getattr(self, name)
            if path is not None and "\0" in path:
                raise ConfigError(
                    f"{flag_name(name)}: expected a path or a URL, got {quoted(path)}, which has a "
                    "null character"
                )

    def _check_required(self) -> None:
        require_flags(self, ["input"])
        if not self.dry_run:
            require_flags(self, ["output"])
        if self.json and not self.dry_run:
            raise ConfigError("--json prints the plan of a dry run; add --dry-run, or leave it out")
        if self.model != "demo" and self.checkpoint is None and not self.dry_run:
            raise ConfigError(
                "--checkpoint is missing: give the folder or URL of the model's weights, or use "
                "--model demo"
            )
        if self.task not in TASKS:
            raise ConfigError(
                f"--task: expected one of {', '.join(TASKS)}, got {quoted(self.task)}"
            )
        if not TASKS[self.task].generates and self.n != 1:
            raise ConfigError(
                f"--n: expected 1 for task {self.task}, which generates nothing, got {self.n}"
            )
        writable = task_columns(TASKS[self.task], boundary_chars=True)
        if self.boundary_chars and "boundary_chars" not in writable:
            raise ConfigError(
                f"--boundary-chars has no effect on task {self.task}, which scores no "
                "continuation; leave it out or use --task score"
            )
        self._check_token_logprobs()
        self._check_task_flags()
        if self.template is not None and self.prompt_column != PROMPT_COLUMN:
            raise ConfigError(
                "--prompt-column and --template both give the prompt; leave one out, or use "
                f"{{{{ {self.prompt_column} }}}} in the template"
            )
        if self.sample_seed and self.sample is None:
            raise ConfigError("--sample-seed has no effect without --sample; give both or none")

    def _check_windows(self) -> None:
        splits_texts = TASKS[self.task].splits_texts
        writable = task_columns(TASKS[self.task], text_bytes=True)
        if self.bits_per_byte and "bits_per_byte" not in writable:
            raise ConfigError(
                f"--bits-per-byte has no effect on task {self.task}, which scores no whole text; "
                "leave it out or use --task perplexity"
            )
        if self.on_overflow == "window" and not splits_texts:
            raise ConfigError(
                f"--on-overflow: task {self.task} cannot split a row into windows; use "
                "truncate-left, which keeps the end of a prompt that is too long, or --task "
                "perplexity"
            )
        if self.bits_per_byte and self.on_overflow == "truncate-left":
            raise ConfigError(
                "--bits-per-byte needs whole texts, and --on-overflow truncate-left scores the end "
                "of long ones; use --on-overflow window or error"
            )
        check_range("window_stride", self.window_stride, 1)
        if self.window_stride is not None and self.on_overflow != "window":
            raise ConfigError(
                "--window-stride has no effect without --on-overflow window; give both or none"
            )

    def _check_token_logprobs(self) -> None:
        if not self.token_logprobs:
            return
        requested = LogprobOptions(self.logprobs, self.prompt_logprobs, self.scored_logprobs)
        computed = TASKS[self.task].logprob_options(requested)
        if computed.scored is None or computed.tail:
            raise ConfigError(
                f"--token-logprobs has no effect on task {self.task}, which scores no tokens; "
                "leave it out (--logprobs K writes those of generated tokens), or use --task score"
            )
        if requested.scored and computed.scored != requested.scored:
            raise ConfigError(
                f"--logprobs: expected 0 or null, got {requested.scored}: task {self.task} writes "
                "the most likely tokens at each position of a text with --prompt-logprobs K"
            )

    def _check_task_flags(self) -> None:
        """Rejects flags that the task has no use for."""
        for name, (task, default) in TASK_FLAGS.items():
            if self.task != task and getattr(self, name) != default:
                flag_name = name.replace("_", "-")
                raise ConfigError(
                    f"--{flag_name} has no effect on task {self.task}; leave it out or use --task "
                    f"{task}"
                )
        if self.prompt_logprobs is None:
            return
        task_options = TASKS[self.task].logprob_options
        requested = task_options(LogprobOptions(self.logprobs, self.prompt_logprobs))
        if requested == task_options(LogprobOptions(self.logprobs, None)):
            raise ConfigError(f"--prompt-logprobs has no effect on task {self.task}; leave it out")

    def _check_costs(self) -> None:
        if self.cost_budget is not None and self.cost_per_replica_hour is None:
            raise ConfigError(
                "--cost-budget needs --cost-per-replica-hour: without a price nothing has a cost"
            )
        if self.max_cost is not None and not self.cost_per_replica_hour:
            raise ConfigError(
                "--max-cost needs --cost-per-replica-hour: without a price nothing has a cost"
            )
        if self.deadline is not None:
            read_deadline(self.deadline, datetime.now(UTC))

    def _check_ranges(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value != AUTO:
                check_range(name, value, low, high)

    @property
    def writes_windows(self) -> bool:
        """Whether texts are split into windows, and the output has their number."""
        return self.on_overflow == "window"

    @property
    def writes_text_bytes(self) -> bool:
        """Whether the output has the bytes of texts, and bits per byte."""
        return self.bits_per_byte or self.writes_windows

    @property
    def scored_logprobs(self) -> int | None:
        """Most likely tokens beside each scored one; None: no log-probs of scored tokens."""
        if not self.token_logprobs:
            return None
        return self.logprobs or 0

    def replica_range(self) -> tuple[int, int]:
        """Returns MIN and MAX of --replicas."""
        low, high = _numbers(
            "replicas",
            self.replicas,
            r"(\d+)(?::(\d+))?",
            "MIN or MIN:MAX with 1 <= MIN <= MAX, e.g. 2 or 2:8",
        )
        if high is None:
            high = low
        if not 1 <= low <= high:
            raise ConfigError(f"--replicas: expected 1 <= MIN <= MAX, got {self.replicas}")
        return low, high

    def mesh_shape(self) -> tuple[int, int]:
        """Returns DATA and MODEL of --mesh."""
        default = "1x8"
        if self.model == "demo":
            default = "1x1"
        return read_mesh(self.mesh or default)

    def partition_pair(self) -> tuple[int, int]:
        """Returns I and N of --partition."""
        index, count = _numbers(
            "partition", self.partition, r"(\d+)/(\d+)", "I/N with 0 <= I < N, e.g. 0/4"
        )
        if count is None or not index < count:
            raise ConfigError(f"--partition: expected 0 <= I < N, got {self.partition}")
        return index, count

    def sampling_params(self) -> SamplingParams:
        """Returns the sampling parameters of rows without columns of their own.

        Raises:
            ConfigError: one is out of range, or they contradict each other.
        """
        values: dict[str, object] = {}
        for name, parameter in PARAMETERS.items():
            value = getattr(self, name)
            if value != parameter.default:
                values[name] = value
        try:
            params = SamplingParams(**read_parameters(values))
            check_combination(params)
        except ParameterError as error:
            raise ConfigError(error.flag_message) from error
        return params


def _numbers(name: str, text: str, pattern: str, expected: str) -> tuple[int, int | None]:
    """Returns the one or two numbers of a flag's value; `pattern` has a group for each."""
    match = re.fullmatch(pattern, text)
    if not match:
        raise ConfigError(f"--{name}: expected {expected}, got {quoted(text)}")
    first = int(match[1])
    if match[2] is None:
        return first, None
    return first, int(match[2])
