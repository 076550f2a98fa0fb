"""Configuration of synthetic data: its own flags, and those of the main job for the run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from actors.protocol.plain_text import quoted
from actors.protocol.sampling import PARAMETERS, SamplingParams
from jobs.cli.flag_checks import check_range, require_flags
from jobs.cli.help_topics import FIRST, RUN_TOPICS, Topics
from jobs.cli.model_flags import ModelFlags
from jobs.cli.parser import flag, flag_metadata
from jobs.cli.uploaded_folder import check_output_is_kept
from jobs.run.config import ScoreConfig
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.synthesis.dataset.folder import Layout
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.selection.rules import SelectionRules

Step = Literal["prompts", "run", "select", "all"]
REQUIRED: dict[Step, tuple[str, ...]] = {
    "prompts": ("input", "templates", "output"),
    "run": ("prompts", "output"),
    "select": ("prompts", "completions", "output"),
    "all": ("input", "templates", "output"),
}
TEMPLATE_KEYS = ("text", "file", "weight")


@dataclass(frozen=True)
class GenerateConfig(ModelFlags, SamplingParams):
    """Flags of jobs/generate_dataset.py.

    A step ignores the flags of the other steps, so that one file serves all of them.

    Raises:
        ConfigError: flags are out of range or contradict each other.
    """

    HELP_TOPICS: ClassVar[Topics] = {
        FIRST: (
            "input",
            "templates",
            "output",
            "model",
            "checkpoint",
            "tokenizer",
            "max_tokens",
            "temperature",
            "target_rows",
            "dry_run",
        ),
        "single steps": ("prompts", "completions", "shots", "shots_per_row"),
        "selection": (
            "min_chars",
            "max_chars",
            "min_completion_tokens",
            "max_completion_tokens",
            "min_mean_logprob",
            "max_mean_logprob",
            "finish_reasons",
            "must_match",
            "must_not_match",
            "parse_regex",
            "parse_json",
            "fields",
            "where",
            "choose",
            "vote_on",
            "min_agreement",
            "dedup",
            "dedup_on",
            "dedup_threshold",
            "dedup_memory_mb",
        ),
        "when to stop": ("max_total_tokens", "max_replica_hours"),
        "data set": ("dataset", "file_mb", "partition_by", "title", "license", "examples"),
        **RUN_TOPICS,
    }

    input: str | None = flag(
        None, "seed rows: Parquet or .jsonl file, folder or glob; any fsspec URL", short="-i"
    )
    output: str | None = flag(
        None,
        "folder of prompts/, completions/ and the data set; for a single step, the folder of its "
        "output",
        short="-o",
    )
    id_column: str = flag(
        "id", "name of the id column of the seeds; without it, ids are <file>#<row>"
    )
    keep: tuple[str, ...] = flag(
        (), "seed column that passes through to the data set, repeatable; default: all of them"
    )
    limit: int | None = flag(None, "only the first N seed rows")
    templates: dict[str, Any] = field(
        default_factory=dict,
        metadata=flag_metadata(
            "name: TEXT, or name: {text: … or file: URL, weight: 1}; Jinja over seed columns; "
            "--templates.NAME TEXT adds one"
        ),
    )
    shots: str | None = flag(
        None, "worked examples for the templates' variable 'shots': Parquet or .jsonl file; any URL"
    )
    shots_per_row: int = flag(0, "examples per seed row, selected by its id")
    prompts: str | None = flag(None, "folder of prompts, for the steps run and select")
    completions: str | None = flag(None, "run folder over these prompts, for the step select")
    min_chars: int | None = flag(None, "fewest characters of a completion")
    max_chars: int | None = flag(None, "most characters of a completion")
    min_completion_tokens: int | None = flag(
        None, "fewest tokens of an accepted completion; --min-tokens forbids shorter ones"
    )
    max_completion_tokens: int | None = flag(None, "most tokens of an accepted completion")
    min_mean_logprob: float | None = flag(
        None, "lowest mean log-prob of the tokens of a completion: less likely ones are rejected"
    )
    max_mean_logprob: float | None = flag(
        None, "highest mean log-prob: more likely ones, such as endless repetitions, are rejected"
    )
    finish_reasons: tuple[str, ...] = flag(
        (), "accepted finish reason, repeatable, e.g. stop; default: any"
    )
    must_match: tuple[str, ...] = flag((), "RE2 pattern that a completion must contain, repeatable")
    must_not_match: tuple[str, ...] = flag(
        (), "RE2 pattern that a completion must not contain, repeatable"
    )
    parse_regex: str | None = flag(
        None, "RE2 pattern whose named groups, (?P<name>…), become columns"
    )
    parse_json: bool = flag(
        False,
        "read the first JSON object in a completion; --fields names the keys that become columns",
    )
    fields: dict[str, Any] = field(
        default_factory=dict,
        metadata=flag_metadata(
            "name: TYPE of parsed columns: string, int64, float64, bool, list[…], json; with ? if "
            "optional"
        ),
    )
    where: tuple[str, ...] = flag(
        (), "condition over columns, a Jinja expression, e.g. 'answer == a + b', repeatable"
    )
    choose: Literal["all", "best", "majority"] = flag(
        "all",
        "of a prompt's samples: all; best: the one of highest mean log-prob; majority: see "
        "--vote-on",
    )
    vote_on: str | None = flag(
        None,
        "column whose most frequent value among a prompt's samples wins, for --choose majority",
    )
    min_agreement: float = flag(0.0, "share of a prompt's samples that must have this value")
    dedup: Literal["none", "exact", "near"] = flag(
        "exact", "reject samples that repeat an accepted one: none, exact, near (MinHash)"
    )
    dedup_on: tuple[str, ...] = flag(
        (), "column whose text is compared, repeatable; default: prompt and completion"
    )
    dedup_threshold: float = flag(
        0.8, "Jaccard similarity of near duplicates, over sets of 5 characters"
    )
    dedup_memory_mb: int = flag(
        1024, "memory for accepted samples that later ones are compared with; the newest are kept"
    )
    target_rows: int | None = flag(None, "stop at this number of accepted rows")
    max_total_tokens: int | None = flag(None, "stop at this number of tokens, read and generated")
    max_replica_hours: float | None = flag(
        None,
        "stop at this number of replica hours, summed over all calls of the command, and select "
        "from what there is",
    )
    dataset: str = flag(
        "dataset",
        "folder of the data set in --output; use another name for another selection of the run",
    )
    file_mb: int = flag(128, "size of a Parquet file of the data set, MB")
    partition_by: tuple[str, ...] = flag(
        (), "column whose values divide rows into folders (Hive), repeatable"
    )
    title: str | None = flag(None, "title of the data card")
    license: str | None = flag(None, "licence in the data card")
    examples: int = flag(5, "accepted rows in the data card")
    dry_run: bool = flag(
        False, "only show the first prompts, rows, tokens, time and cost; starts and writes nothing"
    )
    json: bool = flag(False, "print what --dry-run shows as JSON")

    def __post_init__(self) -> None:
        check_output_is_kept(self, ["output"])
        check_range("limit", self.limit, 1)
        check_range("shots_per_row", self.shots_per_row, 0, 1000)
        check_range("max_replica_hours", self.max_replica_hours, 0)
        check_range("file_mb", self.file_mb, 1, 4096)
        check_range("examples", self.examples, 0, 100)
        if self.json and not self.dry_run:
            raise ConfigError("--json prints what a dry run shows; add --dry-run, or leave it out")
        if (self.shots is None) != (self.shots_per_row == 0):
            raise ConfigError(
                "--shots and --shots-per-row belong together: the file of examples, and how many "
                "each row gets"
            )
        self._check_dataset()
        self._check_samples()
        self.rules()

    def _check_dataset(self) -> None:
        is_name = bool(self.dataset) and "/" not in self.dataset
        is_free = self.dataset not in {"prompts", "completions"}
        if not is_name or not is_free or self.dataset.startswith("."):
            raise ConfigError(
                "--dataset: expected the name of a folder other than prompts and completions, got "
                f"{quoted(self.dataset)}"
            )

    def _check_samples(self) -> None:
        if self.n > 1 and self.temperature == 0:
            raise ConfigError(
                f"--n: {self.n} greedy samples are all the same; give --temperature, e.g. 0.8"
            )
        if self.choose != "all" and self.n == 1 and not self.completions:
            raise ConfigError(
                f"--choose {self.choose}: there is one sample of each prompt to choose from; give "
                "--n"
            )

    def require(self, step: Step) -> None:
        """Checks that the required flags of a step are given.

        Raises:
            ConfigError: one is missing.
        """
        require_flags(self, REQUIRED[step])
        if step in {"run", "all"}:
            self.main_job("prompts", "completions")

    def template_specs(self) -> tuple[TemplateSpec, ...]:
        """Returns the templates; reads their files.

        Raises:
            ConfigError: an entry is not valid.
            DatasetError: a file cannot be read.
        """
        return tuple(_template_spec(str(name), entry) for name, entry in self.templates.items())

    def rules(self) -> SelectionRules:
        """Returns the rules of the selection."""
        names = [field.name for field in dataclasses.fields(SelectionRules)]
        return SelectionRules(**{name: getattr(self, name) for name in names})

    @property
    def may_end_early(self) -> bool:
        """Whether the run can end before all prompts are run."""
        limits = (self.target_rows, self.max_total_tokens, self.max_replica_hours)
        return any(limit is not None for limit in limits)

    def layout(self) -> Layout:
        """Returns the division of the data set into files."""
        return Layout(self.file_mb * 10**6, self.partition_by)

    def main_job(self, prompts_url: str, output_url: str) -> ScoreConfig:
        """Returns the configuration of the main job over the prompts.

        Raises:
            ConfigError: its flags are not valid.
        """
        sampling = {name: getattr(self, name) for name in PARAMETERS}
        main_job = self.score_config("generate", prompts_url, output_url, **sampling)
        # These hours end the run with a data set of what there is, as --target-rows does.
        return dataclasses.replace(main_job, max_replica_hours=None)


def _template_spec(name: str, entry: object) -> TemplateSpec:
    """Returns an entry of --templates: a text, or a mapping of text or file and weight."""
    if isinstance(entry, str):
        return TemplateSpec(name, entry)
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"--templates: {name}: expected a text, or text or file with a weight, got "
            f"{quoted(entry)}"
        )
    for key in entry:
        if key not in TEMPLATE_KEYS:
            raise ConfigError(
                f"--templates: {name}: unknown key {quoted(key)}, expected "
                f"{', '.join(TEMPLATE_KEYS)}"
            )

    weight = entry.get("weight")
    if weight is None:
        weight = 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ConfigError(f"--templates: {name}: weight: expected a number, got {quoted(weight)}")

    text = entry.get("text")
    file = entry.get("file")
    if isinstance(text, str) and file is None:
        return TemplateSpec(name, text, weight)
    if isinstance(file, str) and text is None:
        return TemplateSpec(name, _read_text(name, file), weight)
    raise ConfigError(
        f"--templates: {name}: expected either text or file, a string, got {quoted(dict(entry))}"
    )


def _read_text(name: str, url: str) -> str:
    data, _version = storage.read(url)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"--templates: {name}: {url} is not UTF-8 ({error.reason} at byte {error.start})"
        ) from error
