from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.choice import Majority, best
from pipeline.synthesis.selection.filters import Filters, generation
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import Judged
from tests.pipeline.synthesis.sample_tables import samples, texts


def reasons(judged: Judged) -> list[str | None]:
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
def test_a_filter_leaves_out_what_it_is_there_for(
    rules: dict[str, Any], row: dict[str, Any], reason: str | None
) -> None:
    assert judged(**rules)(samples([row, row])) == [reason, reason]


def test_the_first_filter_that_fails_is_the_reason() -> None:
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


def test_failed_rows_keep_their_error() -> None:
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
def test_rules_that_contradict_each_other_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="--") as raised:
        SelectionRules(**rules)
    assert message in str(raised.value)


def test_a_pattern_that_is_none_is_refused_under_its_flag() -> None:
    with pytest.raises(ConfigError, match="--must-not-match: "):
        Filters(SelectionRules(must_not_match=("(",)))
    assert judged()(texts("x")) == [None]


# -- the sample that is kept ----------------------------------------------------------------------------------------------------

Row = list[tuple[float | None, str]]  # (mean log-prob, answer) of each sample of a row


def prompt_samples(rows: list[Row]) -> Any:
    return samples(
        [
            {"id": f"r{row}", "sample_index": index, "mean_logprob": logprob, "completion": answer}
            for row, some in enumerate(rows)
            for index, (logprob, answer) in enumerate(some)
        ]
    )


ROWS = st.lists(
    st.lists(
        st.tuples(st.none() | st.integers(-4, 0).map(lambda n: n / 2), st.sampled_from("abc")),
        min_size=1,
        max_size=5,
    ),
    max_size=4,
)


@settings(deadline=None)
@given(ROWS)
def test_the_best_of_each_prompt_is_the_likeliest_and_of_equal_ones_the_first(
    rows: list[Row],
) -> None:
    found = best(prompt_samples(rows)).passed.tolist()
    for some in rows:
        kept, found = found[: len(some)], found[len(some) :]
        scores = [float("-inf") if logprob is None else logprob for logprob, _ in some]
        assert kept == [place == scores.index(max(scores)) for place in range(len(some))]


@settings(deadline=None)
@given(ROWS, st.floats(0, 1))
def test_the_majority_of_each_prompt_is_kept_once(rows: list[Row], agreement: float) -> None:
    judged = Majority("completion", agreement)(prompt_samples(rows))
    found, table = judged.passed.tolist(), judged.table.to_pylist()
    for some in rows:
        kept, found = found[: len(some)], found[len(some) :]
        own, table = table[: len(some)], table[len(some) :]
        answers = [answer for _, answer in some]
        counts = {answer: answers.count(answer) for answer in answers}
        assert [(row["votes"], row["voters"]) for row in own] == [
            (counts[answer], len(some)) for answer in answers
        ]
        if max(counts.values()) < agreement * len(some):
            assert kept == [False] * len(some)
            continue
        assert sum(kept) == 1
        winner = kept.index(True)
        assert counts[answers[winner]] == max(counts.values())
        scores = [float("-inf") if logprob is None else logprob for logprob, _ in some]
        rivals = [
            place for place, answer in enumerate(answers) if counts[answer] == max(counts.values())
        ]
        assert (scores[winner], -winner) == max((scores[place], -place) for place in rivals)


def test_why_samples_lost_a_vote() -> None:
    rows: list[Row] = [
        [(-1.0, "a"), (-0.5, "a"), (-0.1, "b")],
        [(0.0, "a"), (0.0, "b"), (0.0, "c")],
    ]
    lost = reasons(Majority("completion", 0.5)(prompt_samples(rows)))
    assert lost == ["not the best of the majority", None, "outvoted", *["too little agreement"] * 3]
