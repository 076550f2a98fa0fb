"""Sentences about what is probably not meant in a run, before any replica starts."""

import re
from collections import Counter
from collections.abc import Iterator

from actors.protocol.messages import Completion
from actors.protocol.parameter_names import column_notices
from actors.protocol.plain_text import bare, plain_message
from actors.protocol.sampling import SamplingParams
from jobs.run.plan import Plan
from pipeline import storage
from pipeline.input.reader import read_rows
from pipeline.records import Shard
from pipeline.requests.tokenize import to_requests

CHECKED_ROWS = 256
_ESCAPE = re.compile(r"\\[nrt]")


def plan_notices(plan: Plan) -> Iterator[str]:
    """Yields what the flags and the names of columns suggest."""
    yield from plan.schema.notices
    if plan.task.generates:
        yield from _escape_notices(plan.rules.defaults)
        yield from column_notices(plan.schema.passthrough.names[1:])


def _escape_notices(params: SamplingParams) -> Iterator[str]:
    for name, texts in (("stop", params.stop), ("bad-words", params.bad_words)):
        for text in texts:
            escape = _ESCAPE.search(text)
            if escape is not None:
                yield (
                    f"--{name} '{bare(text)}' has a backslash and the letter {escape[0][1]}, as "
                    f"typed; did you mean the control character? In a shell write $'{escape[0]}', "
                    f'in a job file "{escape[0]}"'
                )


def row_notices(plan: Plan, shard: Shard, client: storage.Client) -> Iterator[str]:
    """Yields how many of the first rows of a shard cannot run, and why the first of them cannot.

    Raises:
        OutageError: storage does not answer.
    """
    if shard.only is not None:
        return
    first_rows = shard.head(CHECKED_ROWS)
    codes: Counter[str] = Counter()
    message = ""
    rows = read_rows([first_rows], plan.schema, client)
    for item in to_requests(rows, plan.task, plan.tokenizer, plan.rules):
        if isinstance(item, Completion) and item.error_code is not None:
            message = message or f"row {shard.file_row(item.ref.row)}: {item.error_message}"
            codes[item.error_code] += 1

    if codes:
        counts = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        yield plain_message(
            f"{codes.total()} of the first {first_rows.rows} rows cannot run ({counts}) and will "
            f"be written as errors; {message}"
        )
