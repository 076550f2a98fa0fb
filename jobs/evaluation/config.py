"""The configuration of evaluations: own flags, and those of the main job for model and machines."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from actors.protocol.plain_text import quoted
from jobs.cli.flag_checks import check_range, flag_name, require_flags
from jobs.cli.help_topics import FIRST, RUN_TOPICS, Topics
from jobs.cli.model_flags import ModelFlags
from jobs.cli.parser import flag
from jobs.cli.uploaded_folder import check_output_is_kept
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.evals.comparison import Rules
from pipeline.evals.evaluation import REQUESTS
from pipeline.evals.suite import PromptOptions
from pipeline.evals.tasks import suite_of

Step = Literal["prompts", "run", "report", "all"]
Dtype = Literal["bfloat16", "float32"]
BUNDLED_DATA = Path(__file__).parents[1] / "demo" / "evaluation"
BUNDLED_TASKS = frozenset({"demo", "demo_choice", "demo_answer", "demo_mmlu", "demo_gsm8k"})
# What --demo sets: the flags below, and the weights and the tokenizer of the demo model.
DEMO_TASKS = ("demo_mmlu", "demo_gsm8k", "demo_answer")
DEMO_DTYPES: tuple[Dtype, ...] = ("bfloat16", "float32")  # of its two runs, which have their names
SET_BY_DEMO = (
    "tasks",
    "data",
    "requests",
    "outputs",
    "name",
    "dtype",
    "model",
    "checkpoint",
    "tokenizer",
)
REQUIRED: dict[Step, tuple[str, ...]] = {
    "prompts": ("tasks", "data", "output"),
    "run": ("requests", "output"),
    "report": ("requests", "outputs", "output"),
    "all": ("tasks", "data", "output"),
}


@dataclass(frozen=True)
class EvaluateConfig(ModelFlags):
    """One call of jobs/evaluate.py.

    A step reads the flags that concern it, so that one file serves all steps.

    Raises:
        ConfigError: flags are out of range or contradict each other.
    """

    HELP_TOPICS: ClassVar[Topics] = {
        FIRST: (
            "tasks",
            "data",
            "output",
            "model",
            "checkpoint",
            "tokenizer",
            "history",
            "name",
            "limit",
            "replicas",
        ),
        "to try it": ("demo",),
        "single steps": ("requests", "outputs", "allow_missing"),
        "samples and programs": (
            "samples",
            "sample_temperature",
            "execute_programs",
            "program_timeout_s",
        ),
        "comparison with earlier runs": ("margin", "margins", "confidence"),
        **RUN_TOPICS,
    }

    tasks: tuple[str, ...] = flag(
        (),
        "mmlu, mmlu_pro, gsm8k, gsm8k_cot, humaneval, arc_easy, arc_challenge, hellaswag, "
        "winogrande, triviaqa, bbh_cot_fewshot, demo, or parts such as mmlu_stem; separated by "
        "commas, repeatable; demo needs no --data",
    )
    demo: bool = flag(
        False,
        "evaluate the bundled demo model on bundled questions, in bfloat16 and in float32, with "
        "history and comparison; needs no other flag. --output is runs/evaluate-demo-<time>",
    )
    data: str | None = flag(
        None,
        "folder or URL of the data sets in hub layout, such as mmlu/all/{dev,test}-*.parquet and "
        "gsm8k/main/{train,test}-*.parquet; docs/evaluation.md lists them all. gsm8k_cot and "
        "bbh_cot_fewshot read their worked examples from {gsm8k,bbh}/cot_shots.jsonl there",
    )
    requests: str | None = flag(None, "file of request rows, for the steps run and report")
    outputs: tuple[str, ...] = flag(
        (),
        "Parquet output of any run over the requests: file, folder or glob; repeatable; for report",
    )
    output: str | None = flag(
        None,
        "prompts: the file of request rows; otherwise the folder of the run or report; any URL",
        short="-o",
    )
    allow_missing: bool = flag(
        False,
        "report: requests without an output row count as wrong, instead of ending the step; the "
        "run is then not added to --history",
    )
    history: str | None = flag(
        None,
        "folder or URL with all runs, for trend and comparison; default: no history",
    )
    name: str = flag("", "name of the run in history and reports, e.g. the version under test")
    limit: int | None = flag(None, "only the first N documents of each task")
    samples: int = flag(1, "completions per HumanEval problem, for pass@k")
    sample_temperature: float = flag(
        0.0, "temperature of these completions; 0 = greedy, as in the harness for one sample"
    )
    execute_programs: bool = flag(
        False,
        "HumanEval: execute what the model wrote, confined (Linux); without it there is no metric",
    )
    program_timeout_s: float = flag(3.0, "time limit of one program, seconds")
    margin: float = flag(
        0.01,
        "accepted loss in a metric against the last and the best run: 0.01 is one point",
    )
    margins: tuple[str, ...] = flag(
        (),
        "accepted losses of single tasks and groups, such as mmlu=0.005,humaneval=0.03; the others "
        "have --margin",
    )
    confidence: float = flag(
        0.95,
        "level of the confidence intervals; a loss ends the job with code 5 if its whole interval "
        "is beyond the margin and its p-value, adjusted for the number of comparisons, is below 1 "
        "- confidence",
    )

    def __post_init__(self) -> None:
        check_output_is_kept(self, ["output", "history"])
        check_range("limit", self.limit, 1)
        check_range("samples", self.samples, 1, 4096)
        check_range("sample_temperature", self.sample_temperature, 0, 1e6)
        check_range("program_timeout_s", self.program_timeout_s, 0.01, 3600)
        check_range("margin", self.margin, 0, 1)
        check_range("confidence", self.confidence, 0.5, 0.9999)
        self.rules()
        if self.samples > 1 and self.sample_temperature == 0:
            raise ConfigError(
                f"--samples: {self.samples} greedy completions are all the same; give "
                "--sample-temperature, e.g. 0.8"
            )

    def demo_runs(self, folder: str) -> list["EvaluateConfig"]:
        """Returns the two evaluations of --demo, each with a folder and a name of its own.

        Args:
            folder: of both runs and, without --history, of their history.

        Raises:
            ConfigError: a flag is given that --demo sets.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in SET_BY_DEMO:
            if getattr(self, name) != defaults[name]:
                raise ConfigError(f"--demo sets {flag_name(name)}; leave one of them out")

        runs: list[EvaluateConfig] = []
        for dtype in DEMO_DTYPES:
            run = dataclasses.replace(
                self,
                demo=False,
                tasks=DEMO_TASKS,
                model="demo",
                dtype=dtype,
                name=dtype,
                output=storage.join(folder, dtype),
                history=self.history or storage.join(folder, "history"),
            )
            runs.append(run)
        return runs

    def require(self, step: Step) -> None:
        """Checks that the flags that a step needs are given.

        Raises:
            ConfigError: one is missing.
        """
        names = list(REQUIRED[step])
        if "data" in names and self.tasks and self.data_url() is not None:
            names.remove("data")
        require_flags(self, names)
        if step in {"run", "all"}:
            self.score_config("score", REQUESTS, "run")

    def task_names(self) -> tuple[str, ...]:
        """Returns the names of --tasks, without those that are empty."""
        names = ",".join(self.tasks).split(",")
        return tuple(name.strip() for name in names if name.strip())

    def data_url(self) -> str | None:
        """Returns the folder of the data sets: --data, or what is bundled for these tasks."""
        are_bundled = set(self.task_names()) <= BUNDLED_TASKS
        if self.data is None and are_bundled:
            return str(BUNDLED_DATA)
        return self.data

    def prompt_options(self) -> PromptOptions:
        """Returns the options of prompts."""
        return PromptOptions(self.limit, self.samples, self.sample_temperature)

    def rules(self) -> Rules:
        """Returns the rules for calling a difference a regression.

        Raises:
            ConfigError: --margins names no task, or has a value that is no share.
        """
        return Rules(self.margin, self.confidence, _margins(self.margins))


def _margins(texts: Sequence[str]) -> dict[str, float]:
    """Returns the margin of each task or group that --margins names."""
    margins: dict[str, float] = {}
    for text in ",".join(texts).split(","):
        if not text.strip():
            continue
        name, separator, value = text.partition("=")
        name = name.strip()
        try:
            margin = float(value)
        except ValueError:
            margin = math.nan
        if not separator or not 0 <= margin <= 1:
            raise ConfigError(
                f"--margins: expected TASK=LOSS with a loss from 0 to 1, such as mmlu=0.005, got "
                f"{quoted(text.strip())}"
            )
        suite_of(name, flag="--margins")
        margins[name] = margin
    return margins
