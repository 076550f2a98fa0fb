"""Recomputes a random sample of the rows of a run here, and compares it with what the run has.

    grok-batch verify-run RUN [--sample 0.001] [--json]

An edited row, rows of another seed, checkpoint or input are found and named: settings by the
digests in run.json, parts by their fingerprint, rows by their values. Nothing is written to the run
folder.

Exit codes: 0 all sampled rows match; 1 a difference was found; 2 the folder holds no run, or a
flag, the input or the checkpoint is not valid; 75 interrupted, or the cluster was lost.
"""

import contextlib
import dataclasses
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.protocol.plain_text import bare
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.flag_checks import check_range
from jobs.cli.help_topics import FIRST, Topics
from jobs.cli.parser import flag, parse
from jobs.cli.positional import name_first_words
from jobs.inspection.verification import (
    SampledRows,
    Verification,
    check_run_folder,
    compare_sample,
    environment_text,
    verification_config,
)
from jobs.run.backend import RAY, Backend
from jobs.run.execute import run_job
from pipeline.errors import ConfigError
from pipeline.output.run_folder import RunFolder

SHOWN_ROWS = 5
# Flags that may differ from those of the run: where things are now, and the machines here.
OVERRIDES = ("input", "model", "checkpoint", "tokenizer", "replicas", "mesh", "device")


@dataclass(frozen=True)
class VerifyRunConfig:
    """Flags of `verify-run`."""

    HELP_TOPICS: ClassVar[Topics] = {
        FIRST: ("run", "sample", "sample_seed", "tolerance", "min_match", "json"),
        "instead of what the run had": OVERRIDES,
    }

    run: str | None = flag(None, "run folder; any fsspec URL; also the first word; required")
    sample: float = flag(0.001, "share of the rows that are computed again, at least one row")
    sample_seed: int = flag(0, "chooses the rows")
    tolerance: float | None = flag(
        None,
        "largest difference of a log-prob that counts as equal; default: 1e-6 where bits are "
        "reproducible (the same CPUs and versions, or --deterministic), else 0.05, and 1e-3 for "
        "float32",
    )
    min_match: float = flag(1.0, "share of the sampled rows that must match")
    json: bool = flag(False, "one line of JSON")
    input: str | None = flag(None, "the input, if it lies elsewhere now")
    model: str | None = flag(None, "the JSON file of hyperparameters, if it lies elsewhere now")
    checkpoint: str | None = flag(None, "the checkpoint, if it lies elsewhere now, or another one")
    tokenizer: str | None = flag(None, "the tokenizer, if it lies elsewhere now")
    replicas: str = flag("1", "MIN[:MAX] replicas")
    mesh: str | None = flag(None, "DATAxMODEL devices of one replica")
    device: Literal["auto", "cpu", "gpu"] | None = flag(None, "devices; default: as in the run")

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("give the run folder, the --output of the job: verify-run RUN")
        if not 0 < self.sample <= 1:
            raise ConfigError(f"--sample: expected a share above 0 and up to 1, got {self.sample}")
        check_range("tolerance", self.tolerance, 0)
        check_range("min_match", self.min_match, 0, 1)


def main(arguments: Sequence[str], backend: Backend = RAY, *, program: str = "verify-run") -> int:
    """Verifies the run of a command line and returns the exit code."""
    return run_command(lambda: _verify(arguments, backend, program))


def _verify(arguments: Sequence[str], backend: Backend, program: str) -> int:
    config = parse(
        VerifyRunConfig,
        name_first_words(arguments, ["--run"]),
        program=f"{program} RUN",
        description=str(__doc__).split("\n\n", maxsplit=1)[0],
    )
    folder = RunFolder(str(config.run))
    if not folder.exists():
        raise ConfigError(f"{folder.url}: holds no run, there is no run.json")
    if not folder.committed():
        raise ConfigError(f"{folder.url}: no part is committed yet, there is nothing to verify")

    verification = Verification()
    with tempfile.TemporaryDirectory(prefix="grok-batch-verify-") as work:
        code = _recompute(folder, config, backend, Path(work), verification)
    if not code.is_complete:
        return code

    if config.json:
        print(json.dumps(as_json(verification)))
    else:
        Console().print(as_table(verification))
    if is_verified(verification, config.min_match):
        return ExitCode.OK
    return ExitCode.FAILED


def _recompute(
    folder: RunFolder,
    config: VerifyRunConfig,
    backend: Backend,
    work: Path,
    verification: Verification,
) -> ExitCode:
    """Computes the sample by the main job; its results in `work` are printed by nobody."""
    overrides = {name: getattr(config, name) for name in OVERRIDES}
    computed = RunFolder(str(work / "computed"))
    main_job = verification_config(folder, computed.url, overrides)
    check_run_folder(folder, main_job, verification)

    sample = SampledRows(config.sample, config.sample_seed, folder.committed())
    with contextlib.redirect_stdout(io.StringIO()):
        code = run_job(main_job, backend, sample, other_outputs=[folder.url])
    if code.is_complete:
        written = work / "written"
        compare_sample(folder, computed, written, main_job, config.tolerance, verification)
    return code


def is_verified(verification: Verification, min_match: float = 1.0) -> bool:
    """Whether nothing was found, and enough rows match."""
    if verification.settings or verification.faults:
        return False
    return verification.match_rate >= min_match


def as_json(verification: Verification) -> dict[str, Any]:
    """Returns the figures of a verification."""
    comparison = verification.comparison
    largest = 0.0
    first_token = None
    if comparison is not None:
        largest = comparison.logprob_differences.largest
        first_token = min(comparison.positions, default=None)
    return {
        "rows": verification.rows,
        "matching": verification.matching,
        "match_rate": verification.match_rate,
        "settings": verification.settings,
        "faults": verification.faults,
        "columns": dict(verification.columns),
        "largest_logprob_difference": largest,
        "first_diverging_token": first_token,
        "tolerance": verification.tolerance,
        "computed_by": verification.computed_by,
        "verified_by": verification.verified_by,
        "findings": [dataclasses.asdict(finding) for finding in verification.findings],
    }


def as_table(verification: Verification) -> Table:
    """Returns the lines of a verification."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    lines = [
        ("rows", f"{verification.rows:,} computed again, {verification.matching:,} match"),
        ("match rate", f"{verification.match_rate:.2%}"),
    ]
    comparison = verification.comparison
    if comparison is not None and comparison.logprob_differences.count:
        largest = comparison.logprob_differences.largest
        allowed = f"{verification.tolerance:g} counts as equal"
        lines.append(("log-probs", f"largest difference {largest:.3g}, {allowed}"))
    if comparison is not None and comparison.positions:
        lines.append(("tokens", f"the first one that differs is {min(comparison.positions):,}"))
    for name, rows in verification.columns.most_common():
        lines.append(("column", f"{bare(name)} differs in {rows:,} rows"))
    lines.append(("run", f"computed by {environment_text(verification.computed_by)}"))
    lines.append(("here", f"computed by {environment_text(verification.verified_by)}"))
    lines += [("setting", f"of the run and here: {bare(item)}") for item in verification.settings]
    lines += [("fault", fault) for fault in verification.faults]
    for finding in verification.findings[:SHOWN_ROWS]:
        row = f"{bare(finding.id)} (sample {finding.sample_index})"
        lines.append(("row", f"{row}: {finding.what}"))
    if len(verification.findings) > SHOWN_ROWS:
        lines.append(("", "more rows: --json lists 20"))
    for label, text in lines:
        table.add_row(label, Text(text))
    return table
