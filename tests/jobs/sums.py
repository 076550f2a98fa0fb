"""A stand-in for the demo model that answers sums, and seeds to ask it with.

For the tests of jobs/generate_dataset.py.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.messages import Completion, Request
from pipeline.requests.tokenizer import Tokenizer
from tests.fakes import ended_text
from tests.jobs.runs import DEMO

TEMPLATE = "{{ a }} + {{ b }} ="


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer((DEMO / "tokenizer.model").read_bytes())


def answer(request: Request) -> Completion:
    """The sum at the end of a prompt, a third of the time one too high; fixed per request."""
    assert request.sampling is not None
    asked = re.findall(r"(\d+) \+ (\d+)", tokenizer().text(request.prompt_ids))
    one, other = map(int, asked[-1])
    wrong = request.sampling.seed % 3 == 0
    ids = tokenizer().encode([str(one + other + wrong)])[0][: request.sampling.max_tokens]
    return ended_text(request, ids, -(request.sampling.seed % 7) / 4)


def seeds(path: Path, rows: int = 40, **more: Any) -> Path:
    """Writes seeds; every 13th has no `b`, so that no prompt can be made of it."""
    b = [None if number % 13 == 5 else number % 7 for number in range(rows)]
    table = pa.table(
        {
            "id": [f"s{number}" for number in range(rows)],
            "a": list(range(rows)),
            "b": pa.array(b, pa.int64()),
            **more,
        }
    )
    pq.write_table(table, path, row_group_size=9)
    return path
