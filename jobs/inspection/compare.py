"""Compares two runs: rows that differ, the first token that differs, log-probs.

    grok-batch compare RUN_A RUN_B [--json] [--html FILE]

Rows are matched by id and sample. Log-probs are compared up to the first token that differs. The
folders may be those of two evaluations: their tasks are compared too, paired by document, and then
each of their runs. The page has both answers of each row side by side.

Exit codes: 0 the runs are equal in every row and value; 1 they differ; 2 a folder holds no run.
"""

import json
from collections.abc import Mapping, Sequence
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
from jobs.inspection.comparison import Comparison, RunPair, Tokens, compare_runs
from jobs.inspection.distribution import Distribution
from jobs.inspection.run_status import find_runs
from jobs.inspection.task_deltas import (
    TaskDelta,
    delta_as_json,
    is_evaluation,
    read_eval_requests,
    task_deltas,
)
from pipeline import storage
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
    html: str | None = flag(None, "write a page to this file, any fsspec URL, too")

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
    url_a = str(config.run_a)
    url_b = str(config.run_b)
    deltas: list[TaskDelta] = []
    if is_evaluation(url_a) and is_evaluation(url_b):
        deltas = task_deltas(url_a, url_b)
    pairs = _run_pairs(url_a, url_b)
    identical = _are_identical(deltas, pairs)

    if config.html is not None:
        _write_page(config.html, url_a, url_b, deltas, pairs)
    if config.json:
        print(json.dumps(_json(deltas, pairs)))
    else:
        _print_tables(Console(), deltas, pairs)
    if identical:
        return ExitCode.OK
    return ExitCode.FAILED


def _run_pairs(url_a: str, url_b: str) -> list[RunPair]:
    """Compares the runs of both folders: those that have the same name in both.

    Raises:
        ConfigError: a folder holds no run, or they have none of the same name.
    """
    runs_a = _runs_by_name(url_a)
    runs_b = _runs_by_name(url_b)
    names = [name for name in runs_a if name in runs_b]
    if not names:
        raise ConfigError(
            f"expected two runs or two evaluations, got the runs {_names(runs_a)} in {bare(url_a)} "
            f"and {_names(runs_b)} in {bare(url_b)}; give folders of the same kind"
        )
    pairs = []
    for name in names:
        folder_a = RunFolder(runs_a[name])
        folder_b = RunFolder(runs_b[name])
        pairs.append(RunPair(name, folder_a, folder_b, compare_runs(folder_a, folder_b)))
    return pairs


def _runs_by_name(url: str) -> dict[str, str]:
    """Returns the URLs of the runs in a folder by their names; "" is the folder itself."""
    urls = find_runs(url)
    if urls == [url]:
        return {"": url}
    return {run_url.rsplit("/", 1)[-1]: run_url for run_url in urls}


def _names(runs: Mapping[str, str]) -> str:
    return ", ".join(bare(name) if name else "itself" for name in runs)


def _are_identical(deltas: Sequence[TaskDelta], pairs: Sequence[RunPair]) -> bool:
    for delta in deltas:
        difference = delta.difference
        changed = difference.better or difference.worse or delta.changed_answers
        if changed or delta.only_a or delta.only_b:
            return False
    return all(pair.comparison.identical for pair in pairs)


def _write_page(
    url: str, url_a: str, url_b: str, deltas: Sequence[TaskDelta], pairs: Sequence[RunPair]
) -> None:
    # Imported here because the plotting library takes a second to import.
    from jobs.inspection.comparison_page import render_page

    requests = read_eval_requests(url_a) if deltas else {}
    identical = _are_identical(deltas, pairs)
    page = render_page(url_a, url_b, pairs, deltas, requests, identical=identical)
    storage.overwrite(url, page.encode(errors="backslashreplace"))


def _json(deltas: Sequence[TaskDelta], pairs: Sequence[RunPair]) -> dict[str, Any]:
    """Returns the figures: of two runs as `as_json`, of folders of runs each under its name."""
    if len(pairs) == 1 and not pairs[0].name:
        return as_json(pairs[0].comparison)
    return {
        "identical": _are_identical(deltas, pairs),
        "tasks": [delta_as_json(delta) for delta in deltas],
        "runs": {pair.name: as_json(pair.comparison) for pair in pairs},
    }


def _print_tables(console: Console, deltas: Sequence[TaskDelta], pairs: Sequence[RunPair]) -> None:
    if deltas:
        console.print(deltas_table(deltas))
    for pair in pairs:
        if pair.name:
            console.print(Text(f"\n{bare(pair.name)}", style="bold"))
        console.print(as_table(pair.comparison))
        if pair.comparison.divergences:
            console.print(divergence_table(pair.comparison))


def deltas_table(deltas: Sequence[TaskDelta]) -> Table:
    """Returns the differences of two evaluations by task, B less A."""
    table = Table(title="tasks: B less A in points", title_justify="left")
    for name in ("task", "A %", "B %", "points", "95 % interval", "better", "worse"):
        table.add_column(name, overflow="fold")
    for delta in deltas:
        difference = delta.difference
        metric, _, _ = delta.metric.partition(",none")
        table.add_row(
            Text(f"{bare(delta.task)}: {bare(metric)}"),
            f"{100 * delta.value_a:.2f}",
            f"{100 * delta.value_b:.2f}",
            f"{100 * difference.value:+.2f}",
            f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}",
            f"{difference.better:,}",
            f"{difference.worse:,}",
        )
    return table


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
            "logprob_a": _logprob_at(row.tokens_a, row.position),
            "logprob_b": _logprob_at(row.tokens_b, row.position),
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


def _logprob_at(tokens: Tokens, position: int | None) -> float | None:
    """Returns the log-prob of the first token that differs; None where it is not known."""
    if position is None or position >= len(tokens):
        return None
    return tokens[position][1]


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
