import json
from typing import Any

import pytest

from jobs.cli.exit_codes import ExitCode
from jobs.planning import plan
from jobs.planning.config import PlanConfig
from jobs.planning.policies import POLICIES, policy_figures, policy_table

ROWS = 40
CONFIG = PlanConfig(
    rows=float(ROWS), prompt_tokens=60, completion_tokens=12, max_len=256, gpu="h100", policies=True
)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return policy_figures(CONFIG)


def test_policies_are_compared_on_the_rows_of_the_plan(figures: dict[str, Any]) -> None:
    policies = figures["policies"]
    assert figures["rows"] == ROWS
    titles = [(policy["policy"], policy["slots"]) for policy in policies]
    assert titles == [(policy.title, policy.slots) for policy in POLICIES]
    tokens_per_row = (figures["prompt_tokens"] + figures["generated_tokens"]) / ROWS
    for policy in policies:
        tokens_per_s = policy["rows_per_s"] * tokens_per_row
        assert policy["tokens_per_s"] == pytest.approx(tokens_per_s, rel=1e-3)
        waits_for_host = policy["policy"] in {"in turn", "ordered"}
        assert (policy["host_share"] > 0) == waits_for_host


def test_table_of_policies_has_80_columns_at_most(figures: dict[str, Any]) -> None:
    first, *others = figures["policies"]
    widest = first | {"rows_per_s": 1234.5, "tokens_per_s": 1e6, "share_of_roof": 1.0}

    header, *lines = policy_table([widest, *others])

    assert len(lines) == len(POLICIES)
    assert header.split()[:3] == ["machine", "mesh", "policy"]
    assert max(map(len, [header, *lines])) <= 80


def test_plan_prints_policies_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rows", "8", "--prompt-tokens", "20", "--max-len", "64", "--gpu", "h100"]

    assert plan.main([*arguments, "--policies", "--json"]) == ExitCode.OK

    figures = json.loads(capsys.readouterr().out)
    assert {policy["machine"] for policy in figures["policies"]} == {"8xH100"}
