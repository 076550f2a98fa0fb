"""Compares two runs: rows that differ, the first token that differs, log-probs.

    grok-batch compare RUN_A RUN_B [--json]

Rows are matched by id and sample. Log-probs are compared up to the first token that differs.

Exit codes: 0 the runs are equal in every row and value; 1 they differ; 2 a folder holds no run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.protocol.plain_text import bare
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import flag, parse
from jobs.cli.positional import name_first_words
from jobs.inspection.comparison import Comparison, compare_runs
from jobs.inspection.distribution import Distribution
from pipeline.errors import ConfigError
from pipeline.output.run_folder import RunFolder

SHOWN_ROWS = 5
TEXT_CHARS = 120


@dataclass(frozen=True)
class CompareConfig:
    """Flags of `compare`."""

    run_a: str | None = flag(None, "first run folder; also the first word; required")
    run_b: str | None = flag(None, "second run folder; also the second word; required")
    json: bool = flag(False, "one line of JSON")

    def __post_init__(self) -> None:
        if not self.run_a or not self.run_b:
            raise ConfigError("give two run folders: compare RUN_A RUN_B")


def main(arguments: Sequence[str], *, program: str = "compare") -> int:
    """Compares the runs of a command line and returns the exit code."""
    return run_command(lambda: _compare(arguments, program))


def _compare(arguments: Sequence[str], program: str) -> int:
    config = parse(
        CompareConfig,
        name_first_words(arguments, ["--run-a", "--run-b"]),
        program=f"{program} RUN_A RUN_B",
        description=str(__doc__).split("\n\n", maxsplit=1)[0],
    )
    folders = [RunFolder(str(url)) for url in (config.run_a, config.run_b)]
    for folder in folders:
        if not folder.exists():
            raise ConfigError(f"{folder.url}: holds no run, there is no run.json")
    comparison = compare_runs(*folders)
    if config.json:
        print(json.dumps(as_json(comparison)))
    else:
        console = Console()
        console.print(as_table(comparison))
        if comparison.divergences:
            console.print(divergence_table(comparison))
    if comparison.identical:
        return ExitCode.OK
    return ExitCode.FAILED


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns the figures of a comparison."""
    changes = [
        {"a": status_a, "b": status_b, "rows": rows}
        for (status_a, status_b), rows in sorted(comparison.status_changes.items())
    ]
    divergences = [
        {
            "id": row.id,
            "sample_index": row.sample_index,
            "position": row.position,
            "text_a": row.text_a,
            "text_b": row.text_b,
        }
        for row in comparison.divergences
    ]
    return {
        "identical": comparison.identical,
        "rows": {"a": comparison.rows_a, "b": comparison.rows_b, "common": comparison.common},
        "only_a": comparison.only_a,
        "only_b": comparison.only_b,
        "status_changes": changes,
        "diverging_rows": comparison.diverging,
        "first_diverging_token": {
            str(position): rows for position, rows in sorted(comparison.positions.items())
        },
        "divergences": divergences,
        "logprob_differences": _figures(comparison.logprob_differences),
        "loglikelihood_differences": _figures(comparison.likelihood_differences),
        "changed_choices": comparison.changed_choices,
        "changed_greedy": comparison.changed_greedy,
    }


def _figures(differences: Distribution) -> dict[str, Any]:
    return {
        "count": differences.count,
        "not_zero": differences.not_zero,
        "quantiles": differences.quantiles(),
    }


def as_table(comparison: Comparison) -> Table:
    """Returns the lines of a comparison."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    verdict = "equal in every row and value" if comparison.identical else "different"
    lines = [
        ("runs", verdict),
        ("rows", f"{comparison.rows_a:,} and {comparison.rows_b:,}, {comparison.common:,} in both"),
    ]
    for label, ids in (("only in A", comparison.only_a), ("only in B", comparison.only_b)):
        if ids:
            lines.append((label, ", ".join(bare(row_id) for row_id in ids[:SHOWN_ROWS])))
    for (status_a, status_b), rows in sorted(comparison.status_changes.items()):
        lines.append((f"{status_a} in A", f"{status_b} in B: {rows:,} rows"))
    lines.append(("completions", _completions(comparison)))
    for label, differences in (
        ("log-probs", comparison.logprob_differences),
        ("scores", comparison.likelihood_differences),
    ):
        if differences.count:
            lines.append((label, _distribution(differences)))
    if comparison.changed_choices:
        lines.append(("choices", f"{comparison.changed_choices:,} rows prefer another one"))
    if comparison.changed_greedy:
        lines.append(("is_greedy", f"{comparison.changed_greedy:,} texts changed"))
    for label, text in lines:
        table.add_row(label, Text(text))
    return table


def _completions(comparison: Comparison) -> str:
    if not comparison.diverging:
        return "the same in all common rows"
    share = comparison.diverging / comparison.common
    text = f"{comparison.diverging:,} rows differ ({share:.2%})"
    if comparison.positions:
        text += f", the earliest at token {min(comparison.positions):,}"
    return text


def _distribution(differences: Distribution) -> str:
    if not differences.not_zero:
        return f"{differences.count:,} compared, all equal"
    parts = [f"{name} <= {value:.2g}" for name, value in differences.quantiles().items()]
    return f"{differences.count:,} compared, {differences.not_zero:,} differ: {', '.join(parts)}"


def divergence_table(comparison: Comparison) -> Table:
    """Returns the first rows whose completions differ, with both texts."""
    table = Table(title="first rows whose completions differ", title_justify="left")
    for name in ("id", "token", "A", "B"):
        table.add_column(name, overflow="fold")
    for row in comparison.divergences[:SHOWN_ROWS]:
        position = "" if row.position is None else str(row.position)
        texts = [Text(bare(text or "", TEXT_CHARS)) for text in (row.text_a, row.text_b)]
        table.add_row(Text(bare(row.id)), position, *texts)
    return table
