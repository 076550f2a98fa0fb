"""Step `select`: writes the data set with its card, prints a summary, and sets the exit code."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.cli.exit_codes import ExitCode, write_limit_note
from jobs.run.description import describe_run
from jobs.run.limits import HourLedger
from jobs.synthesis.config import GenerateConfig
from jobs.synthesis.early_stopping import StoredStop, make_selection
from pipeline import storage
from pipeline.errors import LimitReachedError
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder, check_run
from pipeline.report.figures import percent, size_in_bytes
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.dataset.card import STAGE_DESCRIPTIONS, CardTexts
from pipeline.synthesis.dataset.folder import BUDGET_OF_HOURS, DatasetFolder
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.rejections import STAGES
from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.duplicates import hashing_keys
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Selection

MAX_REASONS = 4  # printed of each stage
ALWAYS_IN_CARD = ("choose", "dedup")  # rules that the card shows with their default, too
_RUN_KEYS = frozenset({"prompts", "completions", "blocks"})
EVENT_FIGURES = (
    "samples",
    "accepted",
    "rejected",
    "failed",
    "seed_rows",
    "seed_rows_not_needed",
    "stopped_by",
    "reasons",
)


def select(
    config: GenerateConfig,
    prompts_url: str,
    completions_url: str,
    dataset_url: str,
    log: RunLog,
    *,
    flag: str = "--output",
) -> int:
    """Writes the data set if it is not complete, prints a summary and returns the exit code.

    Args:
        config: configuration with the rules of the selection.
        prompts_url: folder of prompts.
        completions_url: folder of the run over them.
        dataset_url: folder of the data set.
        log: log of the job.
        flag: the flag that names the folder of the data set, for messages.

    Raises:
        ConfigError: the folder holds another data set, or the rules do not fit the run.
        DatasetError: the run is not complete, or its files are damaged.
    """
    completions = Completions(PromptsFolder(prompts_url), completions_url)
    dataset = DatasetFolder(dataset_url)
    try:
        until = _blocks_in_budget(config, completions_url)
    except LimitReachedError as error:
        return _ended_by_limit(error, log)
    selection = make_selection(config, completions)
    keys = _run_keys(completions, until) | selection_keys(config)
    files = [part.file for part in completions.parts]
    description = describe_run(config, files, len(completions.blocks))
    check_run(dataset.folder, keys, description, flag=flag)

    if dataset.folder.finished():
        dataset.check_sources(completions)
        log.result("complete", f"nothing to do: the data set in {dataset_url} is complete")
        report = dataset.statistics()
    else:
        texts = _card_texts(config, completions, selection)
        report = dataset.write(completions, selection, config.layout(), texts, until)
    _print_summary(config, report, dataset, log)
    if report["stopped_by"] == BUDGET_OF_HOURS:
        limit = LimitReachedError(
            f"--max-replica-hours {config.max_replica_hours:g}: the data set has the rows that "
            "were complete by then; to go on, repeat the command with a higher "
            "--max-replica-hours and another --dataset"
        )
        return _ended_by_limit(limit, log)
    return _exit_code(config, report)


def _ended_by_limit(error: LimitReachedError, log: RunLog) -> ExitCode:
    """Logs that the budget of hours ended the run, and returns the exit code."""
    log.failed(error, ExitCode.INTERRUPTED, "interrupted")
    write_limit_note(error)
    return ExitCode.INTERRUPTED


def check_dataset(config: GenerateConfig, url: str) -> None:
    """Checks that an existing data set was begun with these rules, before hours of computing.

    Raises:
        ConfigError: it was begun with other rules.
    """
    folder = RunFolder(url)
    if storage.stat(folder.run_url) is None:
        return
    stored = folder.description()["fingerprint_keys"]
    run_keys = {name: stored[name] for name in stored.keys() & _RUN_KEYS}
    check_run(folder, run_keys | selection_keys(config), {}, flag="--dataset")


def _run_keys(completions: Completions, until: int | None) -> dict[str, Any]:
    """Returns the run on which the data set depends, for the fingerprint."""
    return {
        "prompts": completions.prompts.folder.description()["fingerprint"],
        "completions": completions.run["fingerprint"],
        "blocks": until,
    }


def selection_keys(config: GenerateConfig) -> dict[str, Any]:
    """Returns everything on which the data set depends beside the run, for the fingerprint."""
    rules = config.rules()
    values = {}
    for name, value in dataclasses.asdict(rules).items():
        values[name] = list(value) if isinstance(value, tuple) else value
    return {
        "rules": values,
        "files": {"file_mb": config.file_mb, "partition_by": list(config.partition_by)},
        "card": {"title": config.title, "license": config.license, "examples": config.examples},
        **hashing_keys(rules),
    }


def _blocks_in_budget(config: GenerateConfig, completions_url: str) -> int | None:
    """Returns the number of blocks that count when a budget of hours ended the run; None: all."""
    if config.max_replica_hours is None:
        return None
    blocks = StoredStop(completions_url, config.max_replica_hours).blocks()
    used_hours = HourLedger([completions_url]).others().replica_hours
    if blocks is None and used_hours >= config.max_replica_hours:
        raise LimitReachedError(
            f"--max-replica-hours {config.max_replica_hours:g} were used up before the first shard "
            f"in {redact_credentials(completions_url)} was complete; raise it and repeat the "
            "command, which continues from there"
        )
    return blocks


def _card_texts(
    config: GenerateConfig, completions: Completions, selection: Selection
) -> CardTexts:
    run_config = completions.run["config"]
    prompt_keys = completions.prompts.folder.description()["fingerprint_keys"]
    templates = []
    for name, weight, text in prompt_keys["templates"]:
        templates.append(TemplateSpec(name, text, weight))
    return CardTexts(
        title=config.title or f"Synthetic data by {_base_name(run_config['model'])}",
        license=config.license,
        provenance=_provenance(completions),
        settings=_settings(config, completions),
        templates=templates,
        fields=[field.name for field in selection.fields],
        partition_by=config.partition_by,
    )


def _provenance(completions: Completions) -> list[tuple[str, object]]:
    run = completions.run
    run_config = run["config"]
    run_keys = run["fingerprint_keys"]
    prompts_config = completions.prompts.folder.description()["config"]
    versions = [f"{name} {version}" for name, version in run["versions"].items() if version]
    return [
        ("model", _base_name(run_config["model"])),
        ("checkpoint", _base_name(run_config["checkpoint"])),
        ("checkpoint digest", run_keys["checkpoint"]),
        ("tokenizer digest", run_keys["tokenizer"]),
        ("activations", run_config["dtype"]),
        ("seeds", _base_name(prompts_config.get("input"))),
        ("seed rows", f"{completions.seed_rows:,}"),
        ("git commit", run["git_commit"]),
        ("versions", ", ".join(versions)),
    ]


def _settings(config: GenerateConfig, completions: Completions) -> list[tuple[str, object]]:
    """Returns the flags of sampling, examples and selection that the card shows."""
    run_config = completions.run["config"]
    settings: dict[str, object] = dict(completions.run["fingerprint_keys"]["sampling"])
    settings["max_len"] = run_config["max_len"]
    settings["on_overflow"] = run_config["on_overflow"]

    prompts = completions.prompts.folder.description()
    shots = _base_name(prompts["config"].get("shots"))
    if shots:
        settings["shots"] = shots
        for name, value in prompts["fingerprint_keys"]["shots"].items():
            settings[f"shots_{name}"] = value

    defaults = dataclasses.asdict(SelectionRules())
    rules = dataclasses.asdict(config.rules())
    shown = [name for name in rules if rules[name] != defaults[name] or name in ALWAYS_IN_CARD]
    settings |= {name: rules[name] for name in shown}
    return list(settings.items())


def _base_name(url: str | None) -> str | None:
    """Returns the last part of a path or URL: a card is published, places are in run.json."""
    if url is None:
        return None
    return url.rstrip("/").rsplit("/", 1)[-1]


def _exit_code(config: GenerateConfig, report: Mapping[str, Any]) -> ExitCode:
    if _is_short(config, report):
        return ExitCode.TOO_FEW_ROWS
    if report["failed"]:
        return ExitCode.ROW_ERRORS
    return ExitCode.OK


def _is_short(config: GenerateConfig, report: Mapping[str, Any]) -> bool:
    return config.target_rows is not None and report["accepted"] < config.target_rows


def _print_summary(
    config: GenerateConfig, report: Mapping[str, Any], dataset: DatasetFolder, log: RunLog
) -> None:
    """Prints the table of stages, or logs one event in JSON logs; then the places of the files."""
    data_files = [file for file in report["files"] if file["path"].startswith("data/")]
    size = sum(file["size"] for file in data_files)
    if log.is_json:
        figures = {name: report[name] for name in EVENT_FIGURES}
        log.event(
            "dataset", data=dataset.data_url, card=dataset.card_url, data_bytes=size, **figures
        )
    elif log.shows_results:
        print()
        Console().print(_stage_table(report))

    not_needed = report["seed_rows_not_needed"]
    if not_needed:
        message = f"{not_needed:,} further seed rows were not needed ({report['stopped_by']})"
        log.result(None, message)
    rows = f"{report['accepted']:,} rows, {size_in_bytes(size)}"
    log.result(None, f"data     {dataset.data_url} ({rows})")
    log.result(None, f"card     {dataset.card_url}")
    if _is_short(config, report):
        _log_short(config, report, log)


def _log_short(config: GenerateConfig, report: Mapping[str, Any], log: RunLog) -> None:
    cause = "all seed rows were used"
    if report["stopped_by"]:
        cause = f"it ended by {report['stopped_by']}"
    message = (
        f"{report['accepted']:,} rows were accepted, fewer than --target-rows "
        f"{config.target_rows:,}: {cause}; accept more (with another --dataset), or give more "
        "seeds or a higher --n (with another --output)"
    )
    log.event(
        "short",
        message,
        level="warning",
        accepted=report["accepted"],
        target_rows=config.target_rows,
    )


def _stage_table(report: Mapping[str, Any]) -> Table:
    """Returns the number of samples that each stage rejected, with the most frequent reasons."""
    title = f"{report['samples']:,} samples of {report['seed_rows']:,} seed rows"
    table = Table(title=title, title_justify="left")
    table.add_column("stage", overflow="fold")
    table.add_column("left out because", overflow="fold")
    table.add_column("samples", justify="right", overflow="fold")
    table.add_column("share", justify="right", overflow="fold")

    total = max(1, report["samples"])
    for stage in STAGES:
        reasons = list(report["reasons"].get(stage, {}).items())
        if reasons:
            rejected = sum(count for _, count in reasons)
            share = percent(rejected / total)
            table.add_row(stage, STAGE_DESCRIPTIONS[stage], f"{rejected:,}", share)
        for reason, count in reasons[:MAX_REASONS]:
            table.add_row("", Text(f"  {redact_credentials(reason)}"), f"{count:,}", "")
        if len(reasons) > MAX_REASONS:
            table.add_row("", f"  and {len(reasons) - MAX_REASONS} other reasons", "", "")
    table.add_section()
    table.add_row("accepted", "", f"{report['accepted']:,}", percent(report["accepted"] / total))
    return table
