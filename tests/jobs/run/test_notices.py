"""What is logged before replicas start about what is probably not meant."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.run.config import ScoreConfig
from jobs.run.notices import (
    check_lengths,
    part_notices,
    plan_notices,
    row_faults,
    row_notices,
)
from jobs.run.plan import Plan, make_plan
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import RunFolder
from pipeline.records import Shard


def plan_of(tmp_path: Path, rows: Sequence[Mapping[str, Any]], **flags: Any) -> Plan:
    lines = [json.dumps({"id": number, **row}) for number, row in enumerate(rows)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    fixed: dict[str, Any] = {"model": "demo", "output": str(tmp_path / "out"), "max_tokens": 8}
    return make_plan(ScoreConfig(input=str(tmp_path / "in.jsonl"), **(fixed | flags)))


def notices_of(plan: Plan, shards: Sequence[Shard] | None = None) -> Iterator[str]:
    faults = row_faults(plan, shards or plan.shards, storage.DEFAULT_CLIENT)
    return row_notices(plan, faults)


@pytest.mark.parametrize("stop", ["\\n", "Q:\\n", "\\t"])
def test_stop_with_a_typed_escape_is_noticed(stop: str, tmp_path: Path) -> None:
    (notice,) = plan_notices(plan_of(tmp_path, [{"prompt": "2 + 3 ="}], stop=(stop,)))
    assert notice.startswith(f"--stop '{stop}' has a backslash and the letter {stop[-1]}")
    assert f"write $'{stop[-2:]}'" in notice


def test_usual_flags_and_columns_are_not_noticed(tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 3 =", "topic": "sums", "answer": 5}]
    plan = plan_of(tmp_path, rows, stop=("\n", "\\alpha"))
    assert list(plan_notices(plan)) == []
    assert list(notices_of(plan)) == []


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
    (notice,) = notices_of(plan)
    assert notice.startswith(
        "3 of 4 rows cannot run (prompt_too_long 2, invalid_parameter 1) and will be "
        "written as errors; row 1: prompt: expected at most"
    )
    retried = replace(plan.shards[0], only=(1,))
    assert list(notices_of(plan, [retried])) == []


LONG = {"prompt": "2 + 3 = " * 99}
SHORT = {"prompt": "2 + 3 ="}


def test_faults_are_sampled_from_all_shards(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [SHORT] * 20 + [LONG], max_len=32, shard_rows=5)

    (notice,) = notices_of(plan)

    assert notice.startswith("1 of 21 rows cannot run (prompt_too_long 1)")
    assert "; row 20: prompt: expected at most --max-len 32 tokens" in notice
    assert "exit code 4" not in notice


def test_notice_states_that_the_error_budget_is_too_small(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [SHORT] * 3 + [{"prompt": None}], max_error_rate=0.0)

    (notice,) = notices_of(plan)

    assert notice.endswith("ends with exit code 4: --max-error-rate allows 0 of 4 rows")


@pytest.mark.parametrize(
    ("flags", "cure"),
    [
        ({"max_len": 32}, "raise --max-len 32, lower --max-tokens, use --on-overflow"),
        (
            {"max_len": 32, "task": "perplexity", "max_tokens": None},
            "raise --max-len 32, use --on-overflow window, or raise",
        ),
    ],
)
def test_too_many_long_prompts_stop_a_run_before_it_starts(
    flags: dict[str, Any], cure: str, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, [SHORT] + [LONG] * 3, **flags)
    faults = row_faults(plan, plan.shards, storage.DEFAULT_CLIENT)

    with pytest.raises(ConfigError) as raised:
        check_lengths(plan, faults)

    message = str(raised.value)
    assert message.startswith("prompts are too long in 3 of 4 rows, the first one row 1: ")
    assert f"--max-error-rate allows 2 failed rows, so nothing was started: {cure}" in message


def test_long_prompts_within_the_error_budget_are_not_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [SHORT] * 3 + [LONG], max_len=32)
    check_lengths(plan, row_faults(plan, plan.shards, storage.DEFAULT_CLIENT))

    all_long = plan_of(tmp_path, [LONG] * 3, max_len=32, max_error_rate=1.0)
    check_lengths(all_long, row_faults(all_long, all_long.shards, storage.DEFAULT_CLIENT))


def test_parts_that_take_gigabytes_of_the_driver_are_noticed(tmp_path: Path) -> None:
    rows = [{"prompt_token_ids": list(range(1, 257))}] * 4
    plan = plan_of(tmp_path, rows, task="teach", max_tokens=None, max_len=256)
    assert not list(notices_of(plan))

    faults = row_faults(plan, plan.shards, storage.DEFAULT_CLIENT)
    assert faults.tokens == 4 * 256
    long_texts = replace(faults, tokens=4 * 2_000_000)
    (notice,) = row_notices(plan, long_texts)
    assert notice.startswith("a part of 4 rows has 4.1 GB of most likely tokens, which the driver")
    assert notice.endswith("--shard-rows 1 makes parts of 1 GB")


def test_parts_of_earlier_versions_without_text_logprobs_are_noticed(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"task": "perplexity", "prompt_logprobs": 0, "max_tokens": None}
    plan = plan_of(tmp_path, [SHORT], **flags)
    folder = RunFolder(str(tmp_path / "out"))

    def notices(*prompt_logprobs: list[float | None] | None) -> list[str]:
        tokens = [None if values is None else 2 for values in prompt_logprobs]
        columns = {"scored_tokens": tokens, "prompt_logprobs": list(prompt_logprobs)}
        storage.overwrite(folder.part_url(0), to_parquet(pa.table(columns)))
        return list(part_notices(plan, folder, {0}))

    assert notices([None, -1.0, -2.0], None) == []
    [notice] = notices([None], None)
    assert "new parts cover the whole text" in notice
    assert list(part_notices(plan, folder, ())) == []
