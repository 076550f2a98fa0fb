"""Shows rows of a run: a table of the first ones, or one row whole.

    grok-batch show RUN                              the first ten rows
    grok-batch show RUN --where "completion_tokens > 20" --columns id,text
    grok-batch show RUN --errors                     rows that failed
    grok-batch show RUN --id fact/0                  a row whole, its text coloured by log-prob

Conditions are those of `generate --where`: docs/synthesis.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.protocol.errors import GrokBatchError
from actors.protocol.plain_text import bare, one_line
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.flag_checks import check_range
from jobs.cli.parser import flag, parse
from jobs.cli.positional import name_first_words
from jobs.cli.row_table import is_list, row_table
from jobs.inspection.rows import (
    Condition,
    Row,
    check_columns,
    first_rows,
    has_failed,
    has_id,
    run_schema,
    where,
)
from jobs.inspection.run_status import find_runs
from jobs.inspection.token_text import coloured_text, legend, run_tokenizer
from pipeline.errors import ConfigError
from pipeline.output.run_folder import RunFolder
from pipeline.requests.token_text import token_bytes
from pipeline.requests.tokenizer import Tokenizer

COLUMNS = (
    "id",
    "status",
    "text",
    "finish_reason",
    "completion_tokens",
    "cumulative_logprob",
    "loglikelihood",
    "scored_tokens",
    "error_code",
    "error_message",
)


@dataclass(frozen=True)
class ShowConfig:
    """Flags of `show`."""

    run: str | None = flag(None, "run folder; any fsspec URL; also the first word; required")
    limit: int = flag(10, "number of rows")
    columns: str | None = flag(None, "columns of the table, with commas; default: the usual ones")
    where: str | None = flag(None, 'condition on a row, e.g. "completion_tokens > 20"')
    errors: bool = flag(False, "only rows that failed")
    id: str | None = flag(None, "show the rows with this id whole")

    def __post_init__(self) -> None:
        check_range("limit", self.limit, 1)
        if not self.run:
            raise ConfigError("give the run folder, the --output of the job: show RUN")


def main(arguments: Sequence[str], *, program: str = "show") -> int:
    """Shows the rows of a command line and returns the exit code."""
    return run_command(lambda: _show(arguments, program))


def _show(arguments: Sequence[str], program: str) -> int:
    config = parse(
        ShowConfig,
        name_first_words(arguments, ["--run"]),
        program=f"{program} RUN",
        description=str(__doc__).split("\n\n", maxsplit=1)[0],
    )
    console = Console()
    for url in find_runs(str(config.run)):
        _show_run(RunFolder(url), config, console)
    return ExitCode.OK


def _show_run(folder: RunFolder, config: ShowConfig, console: Console) -> None:
    available = run_schema(folder).names
    shown = _columns(config, available)
    needed = dict.fromkeys(shown)
    conditions: list[Condition] = []
    if config.id is not None:
        conditions.append(has_id(config.id))
        needed["id"] = None
    if config.errors:
        conditions.append(has_failed)
        needed["status"] = None
    if config.where is not None:
        condition, names = where(config.where, available)
        conditions.append(condition)
        needed |= dict.fromkeys(sorted(names))

    rows = first_rows(folder, list(needed), conditions, config.limit)
    if not rows:
        console.print(Text(f"{bare(folder.url)}: no row fulfils the conditions"))
    elif config.id is not None:
        tokenizer = _tokenizer(folder, console)
        for row in rows:
            console.print(whole_row(row, tokenizer))
        has_colours = console.color_system is not None and not console.no_color
        if tokenizer is not None and has_colours:
            console.print(legend())
    else:
        title = bare(folder.url)
        console.print(row_table(rows, shown, title, hides_ok=config.columns is None))


def _columns(config: ShowConfig, available: Sequence[str]) -> list[str]:
    if config.columns is not None:
        names = [name.strip() for name in config.columns.split(",")]
        check_columns(names, available)
        return names
    if config.id is not None:
        return list(available)
    return [name for name in COLUMNS if name in available]


def _tokenizer(folder: RunFolder, console: Console) -> Tokenizer | None:
    """Returns the tokenizer that run.json names; None where it is not readable, and prints why."""
    try:
        return run_tokenizer(folder)
    except GrokBatchError as error:
        console.print(Text(f"text without log-probs: the run's tokenizer is not readable: {error}"))
        return None


def whole_row(row: Row, tokenizer: Tokenizer | None) -> Table:
    """Returns every column of a row on lines of its own; nulls are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in row.items():
        if value is None:
            continue
        if name == "scored_token_ids":
            for scored in _scored_texts(row, tokenizer):
                table.add_row(Text("scored text", style="bold"), scored)
        text = None
        if name == "text":
            text = _coloured(row.get("token_ids"), row.get("token_logprobs"), tokenizer)
        if text is None:
            text = Text(_whole_value(value))
        table.add_row(Text(name, style="bold"), text)
    return table


def _scored_texts(row: Row, tokenizer: Tokenizer | None) -> Iterator[Text]:
    """Yields the scored tokens of each choice as text, coloured by log-prob."""
    ids = row["scored_token_ids"]
    logprobs = row.get("scored_logprobs")
    if logprobs is None:
        return
    if not any(is_list(item) for item in ids):
        ids = [ids]
        logprobs = [logprobs]
    for choice_ids, choice_logprobs in zip(ids, logprobs, strict=True):
        text = _coloured(choice_ids, choice_logprobs, tokenizer)
        if text is not None:
            yield text


def _coloured(
    ids: Sequence[int] | None, logprobs: Sequence[float] | None, tokenizer: Tokenizer | None
) -> Text | None:
    """Returns tokens as text coloured by log-prob; None where ids or log-probs are not there."""
    if tokenizer is None or ids is None or logprobs is None or len(ids) != len(logprobs):
        return None
    return coloured_text(token_bytes(tokenizer, ids), logprobs)


def _whole_value(value: Any) -> str:
    """Returns a value in full, on as many lines as it has."""
    if isinstance(value, str):
        return "\n".join(one_line(line) for line in value.split("\n"))
    if is_list(value):
        return f"[{', '.join(_whole_value(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return one_line(str(value))
