"""What is logged before replicas start about what is probably not meant."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.run.config import ScoreConfig
from jobs.run.notices import plan_notices, row_notices
from jobs.run.plan import Plan, make_plan
from pipeline import storage


def plan_of(tmp_path: Path, rows: Sequence[Mapping[str, Any]], **flags: Any) -> Plan:
    lines = [json.dumps({"id": number, **row}) for number, row in enumerate(rows)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    fixed: dict[str, Any] = {"model": "demo", "output": str(tmp_path / "out"), "max_tokens": 8}
    return make_plan(ScoreConfig(input=str(tmp_path / "in.jsonl"), **(fixed | flags)))


@pytest.mark.parametrize("stop", ["\\n", "Q:\\n", "\\t"])
def test_stop_with_a_typed_escape_is_noticed(stop: str, tmp_path: Path) -> None:
    (notice,) = plan_notices(plan_of(tmp_path, [{"prompt": "2 + 3 ="}], stop=(stop,)))
    assert notice.startswith(f"--stop '{stop}' has a backslash and the letter {stop[-1]}")
    assert f"write $'{stop[-2:]}'" in notice


def test_usual_flags_and_columns_are_not_noticed(tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 3 =", "topic": "sums", "answer": 5}]
    plan = plan_of(tmp_path, rows, stop=("\n", "\\alpha"))
    assert list(plan_notices(plan)) == []
    assert list(row_notices(plan, plan.shards[0], storage.DEFAULT_CLIENT)) == []


def test_columns_of_other_tools_are_noticed(tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 3 =", "max_new_tokens": 1, "sampling_params": {"top_k": 1}}]
    notices = "\n".join(plan_notices(plan_of(tmp_path, rows)))
    assert "'max_new_tokens' passes through and sets nothing; did you mean max_tokens?" in notices
    assert "'sampling_params' passes through and sets nothing" in notices


def test_first_rows_that_cannot_run_are_noticed(tmp_path: Path) -> None:
    rows = [
        {"prompt": "2 + 3 =", "top_k": 5},
        {"prompt": "2 + 3 = " * 99, "top_k": 5},
        {"prompt": "2 + 3 =", "top_k": -1},
        {"prompt": "2 + 3 = " * 99, "top_k": 5},
    ]
    plan = plan_of(tmp_path, rows, max_len=32)
    (notice,) = row_notices(plan, plan.shards[0], storage.DEFAULT_CLIENT)
    assert notice.startswith(
        "3 of the first 4 rows cannot run (prompt_too_long 2, invalid_parameter 1) and will be "
        "written as errors; row 1: prompt: expected at most"
    )
    retried = replace(plan.shards[0], only=(1,))
    assert list(row_notices(plan, retried, storage.DEFAULT_CLIENT)) == []
