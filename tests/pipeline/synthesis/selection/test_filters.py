from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.filters import Filters, generation
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import StageResult
from tests.pipeline.synthesis.sample_tables import samples, texts


def reasons(judged: StageResult) -> list[str | None]:
    return [None if verdict is None else verdict.reason for verdict in judged.verdicts]


def judged(**rules: Any) -> Any:
    return lambda table: reasons(Filters(SelectionRules(**rules))(table))


@pytest.mark.parametrize(
    ("rules", "row", "reason"),
    [
        ({"min_chars": 3}, {"completion": "日本"}, "chars below 3"),
        ({"min_chars": 2, "max_chars": 2}, {"completion": "日本"}, None),
        ({"max_chars": 1}, {"completion": "日本"}, "chars above 1"),
        ({"min_completion_tokens": 3}, {"completion_tokens": 2}, "completion_tokens below 3"),
        ({"max_completion_tokens": 2}, {"completion_tokens": 2}, None),
        ({"min_mean_logprob": -1.0}, {"mean_logprob": -1.01}, "mean_logprob below -1.0"),
        ({"min_mean_logprob": -1.0}, {"mean_logprob": -1.0}, None),
        ({"max_mean_logprob": -0.1}, {"mean_logprob": -0.05}, "mean_logprob above -0.1"),
        ({"min_mean_logprob": -1.0}, {"mean_logprob": None}, "mean_logprob below -1.0"),
        ({"finish_reasons": ("stop", "length")}, {"finish_reason": "repetition"}, "finish_reason"),
        ({"finish_reasons": ("stop",)}, {"finish_reason": "stop"}, None),
        ({"must_match": (r"^\s*\d+$",)}, {"completion": " 12"}, None),
        ({"must_match": (r"^\s*\d+$", "x")}, {"completion": " 12"}, "no match: x"),
        ({"must_not_match": ("(?i)sorry",)}, {"completion": "I am SORRY"}, "match: (?i)sorry"),
        ({"must_match": ("a",), "must_not_match": ("b",)}, {"completion": None}, "no match: a"),
    ],
)
def test_filter_rejects_samples_outside_its_bounds(
    rules: dict[str, Any], row: dict[str, Any], reason: str | None
) -> None:
    assert judged(**rules)(samples([row, row])) == [reason, reason]


def test_filters_give_first_failed_filter_as_reason() -> None:
    table = samples(
        [
            {"completion": "aaaa", "finish_reason": "length"},
            {"completion": "a"},
            {"completion": "aaaa"},
        ]
    )
    found = Filters(SelectionRules(min_chars=2, finish_reasons=("stop",), must_match=("b",)))(table)
    assert reasons(found) == ["finish_reason", "chars below 2", "no match: b"]
    assert found.verdicts[0] is not None
    assert found.verdicts[0].detail == "length"


def test_generation_rejects_failed_rows_with_their_error() -> None:
    table = samples(
        [{}, {"_status": "error", "_error_code": "engine_crash", "_error_message": "it died"}]
    )
    found = generation(table)
    assert found.passed.tolist() == [True, False]
    assert found.verdicts[1] is not None
    assert (found.verdicts[1].stage, found.verdicts[1].reason, found.verdicts[1].detail) == (
        "generation",
        "engine_crash",
        "it died",
    )


def test_filters_refuse_invalid_pattern_with_its_flag() -> None:
    with pytest.raises(ConfigError, match="--must-not-match: "):
        Filters(SelectionRules(must_not_match=("(",)))
    assert judged()(texts("x")) == [None]
