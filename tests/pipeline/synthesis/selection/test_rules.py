from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.rules import SelectionRules


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"min_chars": 3, "max_chars": 2}, "--min-chars 3 is above --max-chars 2"),
        ({"min_completion_tokens": -1}, "--min-completion-tokens: expected at least 0, got -1"),
        ({"max_mean_logprob": 0.5}, "--max-mean-logprob: expected at most 0, got 0.5"),
        (
            {"finish_reasons": ("end",)},
            "--finish-reasons: expected stop, length, repetition, got 'end'",
        ),
        ({"target_rows": 0}, "--target-rows: expected at least 1, got 0"),
        ({"parse_json": True, "parse_regex": "(?P<a>x)"}, "give one of them"),
        ({"fields": {"a": "string"}}, "give --parse-regex or --parse-json too"),
        ({"choose": "majority"}, "give --vote-on too"),
        ({"vote_on": "a"}, "--vote-on: it belongs to --choose majority, got --choose all"),
        (
            {"min_agreement": 0.5, "choose": "best"},
            "--min-agreement: it belongs to --choose majority",
        ),
        (
            {"choose": "majority", "vote_on": "a", "min_agreement": 1.5},
            "expected a share from 0 to 1, got 1.5",
        ),
        ({"dedup": "none", "dedup_on": ("a",)}, "--dedup none compares nothing"),
        ({"dedup": "near"}, "--dedup near: name the columns"),
        ({"dedup_threshold": 0.1}, "--dedup-threshold: expected from 0.3 to 1, got 0.1"),
    ],
)
def test_rules_refuse_contradictions(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="--") as raised:
        SelectionRules(**rules)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "rules",
    [
        {"min_chars": 2, "max_chars": 2},
        {"min_chars": 0},
        {"max_mean_logprob": 0.0},
        {"target_rows": 1},
        {"dedup_threshold": 0.3},
        {"dedup_threshold": 1.0},
        {"choose": "majority", "vote_on": "a", "min_agreement": 1.0},
    ],
)
def test_rules_accept_values_at_their_bounds(rules: dict[str, Any]) -> None:
    assert SelectionRules(**rules) is not None
