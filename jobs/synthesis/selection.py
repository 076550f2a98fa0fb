"""Prompts and a run over them → the data set's folder with its card, the table that is printed, and the exit code."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.cli.exit_codes import ExitCode
from jobs.run.plan import describe_run
from jobs.run.replica_hours import HourLedger
from jobs.synthesis.config import GenerateConfig
from jobs.synthesis.early_stopping import make_selection
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder, check_run
from pipeline.report.figures import percent, size_in_bytes
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.dataset.card import STAGE_WORDS, CardTexts
from pipeline.synthesis.dataset.folder import DatasetFolder
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.rejections import STAGES
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Selection

MOST_REASONS = 4  # printed of each stage
ALWAYS_TOLD = ("choose", "dedup")  # in the card, also where they are as they are by default


def select(
    config: GenerateConfig,
    prompts_url: str,
    completions_url: str,
    dataset_url: str,
    log: RunLog,
    *,
    flag: str = "--output",
) -> int:
    """Writes the data set, or finds it complete.

    Tells what became of the samples and returns the exit code.

    Args:
        config: with the rules of the selection.
        prompts_url: folder of prompts.
        completions_url: run over them.
        dataset_url: folder of the data set.
        log: that it is told to.
        flag: that names this folder, for messages.

    Raises:
        ConfigError: the folder holds another data set, or the rules do not fit the run.
        DatasetError: the run is not complete, or its files are damaged.
    """
    completions = Completions(PromptsFolder(prompts_url), completions_url)
    dataset = DatasetFolder(dataset_url)
    until = _until(config, completions_url)
    selection = make_selection(config, completions)
    keys = _keys(config, completions, until)
    files = [part.file for part in completions.parts]
    check_run(dataset.folder, keys, describe_run(config, files, len(completions.blocks)), flag=flag)
    if dataset.folder.finished():
        dataset.check_sources(completions)
        log.result("complete", f"nothing to do: the data set in {dataset_url} is complete")
        report = dataset.statistics()
    else:
        report = dataset.write(
            completions, selection, config.layout(), _texts(config, completions, selection), until
        )
    _tell(config, report, dataset, log)
    return _exit_code(config, report)


def _until(config: GenerateConfig, completions_url: str) -> int | None:
    if config.max_replica_hours is None:
        return None
    ledger = HourLedger(completions_url, config.max_replica_hours)
    blocks = ledger.stopped_at()
    if blocks is None and ledger.used_up(0.0):
        raise DatasetError(
            f"--max-replica-hours {config.max_replica_hours:g} were used up before the first shard "
            "in "
            f"{redact_credentials(completions_url)} was complete; raise it and repeat the "
            "command, which goes on from there"
        )
    return blocks


def check_dataset(config: GenerateConfig, url: str) -> None:
    """Checks that a data set that is there was begun with these rules: before hours of computing, not after.

    Raises:
        ConfigError: it was begun with others.
    """
    folder = RunFolder(url)
    if storage.stat(folder.run_url) is not None:
        check_run(
            folder,
            {**folder.description()["fingerprint_keys"], **_own_keys(config)},
            {},
            flag="--dataset",
        )


def _keys(config: GenerateConfig, completions: Completions, until: int | None) -> dict[str, Any]:
    """Returns all that the data set depends on."""
    return {
        "prompts": completions.prompts.folder.description()["fingerprint"],
        "completions": completions.run["fingerprint"],
        "blocks": until,
        **_own_keys(config),
    }


def _own_keys(config: GenerateConfig) -> dict[str, Any]:
    """Returns what the data set depends on beside the run."""
    rules = dataclasses.asdict(config.rules())
    return {
        "rules": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in rules.items()
        },
        "files": {"file_mb": config.file_mb, "partition_by": list(config.partition_by)},
        "card": {"title": config.title, "license": config.license, "examples": config.examples},
    }


def _texts(config: GenerateConfig, completions: Completions, selection: Selection) -> CardTexts:
    run, asked = completions.run, completions.prompts.folder.description()
    told, keys = run["config"], run["fingerprint_keys"]
    made_of = asked["fingerprint_keys"]
    provenance = (
        ("model", _name(told["model"])), ("checkpoint", _name(told["checkpoint"])), ("checkpoint digest", keys["checkpoint"]),
        ("tokenizer digest", keys["tokenizer"]), ("activations", told["dtype"]), ("seeds", _name(asked["config"].get("input"))),
        ("seed rows", f"{completions.seed_rows:,}"),
        ("git commit", run["git_commit"]), ("versions", ", ".join(f"{name} {of}" for name, of in run["versions"].items() if of)),
    )  # fmt: skip
    sampling = {**keys["sampling"], "max_len": told["max_len"], "on_overflow": told["on_overflow"]}
    shots = {
        "shots": _name(asked["config"].get("shots")),
        **{f"shots_{name}": value for name, value in made_of["shots"].items()},
    }
    rules = dataclasses.asdict(config.rules())
    plain = dataclasses.asdict(SelectionRules())
    settings = [
        *sampling.items(),
        *(shots.items() if shots["shots"] else ()),
        *(
            (name, value)
            for name, value in rules.items()
            if value != plain[name] or name in ALWAYS_TOLD
        ),
    ]
    return CardTexts(
        title=config.title or f"Synthetic data by {_name(told['model'])}",
        license=config.license,
        provenance=provenance,
        settings=settings,
        templates=[TemplateSpec(name, text, weight) for name, weight, text in made_of["templates"]],
        fields=selection.field_names,
        partition_by=config.partition_by,
    )


def _name(url: str | None) -> str | None:
    """Returns the last part of a path or URL: a card is published, and where things lay is in run.json."""
    return None if url is None else url.rstrip("/").rsplit("/", 1)[-1]


def _exit_code(config: GenerateConfig, report: Mapping[str, Any]) -> int:
    if _is_short(config, report):
        return ExitCode.TOO_FEW_ROWS
    return ExitCode.ROW_ERRORS if report["failed"] else ExitCode.OK


def _is_short(config: GenerateConfig, report: Mapping[str, Any]) -> bool:
    return config.target_rows is not None and report["accepted"] < config.target_rows


def _tell(
    config: GenerateConfig, report: Mapping[str, Any], dataset: DatasetFolder, log: RunLog
) -> None:
    """Tells what became of the samples: a table for people, one event for machines."""
    size = sum(each["size"] for each in report["files"] if each["path"].startswith("data/"))
    if log.is_json:
        names = (
            "samples",
            "accepted",
            "rejected",
            "failed",
            "seed_rows",
            "seed_rows_not_needed",
            "stopped_by",
            "reasons",
        )
        figures = {name: report[name] for name in names}
        log.event(
            "dataset", data=dataset.data_url, card=dataset.card_url, data_bytes=size, **figures
        )
    else:
        print()
        Console().print(_table(report))
    if report["seed_rows_not_needed"]:
        log.result(
            None,
            f"{report['seed_rows_not_needed']:,} further seed rows were not needed "
            f"({report['stopped_by']})",
        )
    log.result(
        None, f"data     {dataset.data_url} ({report['accepted']:,} rows, {size_in_bytes(size)})"
    )
    log.result(None, f"card     {dataset.card_url}")
    if _is_short(config, report):
        ended = (
            f"it ended by {report['stopped_by']}"
            if report["stopped_by"]
            else "all seed rows were used"
        )
        message = (
            f"{report['accepted']:,} rows were accepted, fewer than --target-rows "
            f"{config.target_rows:,}: {ended}; accept more "
            "(with another --dataset), or give more seeds or a higher --n (with another --output)"
        )
        log.event(
            "short",
            message,
            level="warning",
            accepted=report["accepted"],
            target_rows=config.target_rows,
        )


def _table(report: Mapping[str, Any]) -> Table:
    """Returns how many samples each stage left out, with the most frequent reasons."""
    shown = Table(
        title=f"{report['samples']:,} samples of {report['seed_rows']:,} seed rows",
        title_justify="left",
    )
    for name, justify in (
        ("stage", "left"),
        ("left out because", "left"),
        ("samples", "right"),
        ("share", "right"),
    ):
        # rich's own names
        shown.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    whole = max(1, report["samples"])
    for stage in STAGES:
        reasons = list(report["reasons"].get(stage, {}).items())
        if reasons:
            lost = sum(count for _, count in reasons)
            shown.add_row(stage, STAGE_WORDS[stage], f"{lost:,}", percent(lost / whole))
        for reason, count in reasons[:MOST_REASONS]:
            shown.add_row("", Text(f"  {redact_credentials(reason)}"), f"{count:,}", "")
        if len(reasons) > MOST_REASONS:
            shown.add_row("", f"  and {len(reasons) - MOST_REASONS} other reasons", "", "")
    shown.add_section()
    shown.add_row("accepted", "", f"{report['accepted']:,}", percent(report["accepted"] / whole))
    return shown
