from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.synthesis.rejections import STAGES
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Selection
from tests.pipeline.synthesis.sample_tables import KEPT, PLAIN, samples


def selection(**rules: Any) -> Selection:
    return Selection(SelectionRules(dedup_memory_mb=1, **rules), KEPT, logprobs=True)


ANSWERS = ("1", "2", "no", '{"v": 3}')


SAMPLE = st.fixed_dictionaries(
    {
        "completion": st.sampled_from(ANSWERS),
        "finish_reason": st.sampled_from(["stop", "length"]),
        "mean_logprob": st.sampled_from([-0.25, -1.0, -3.0]),
        "completion_tokens": st.integers(1, 5),
        "_status": st.sampled_from(["ok"] * 5 + ["error"]),
    }
)


ROWS = st.lists(st.lists(SAMPLE, min_size=1, max_size=4), max_size=8)


RULES: dict[str, Any] = {
    "max_completion_tokens": 4,
    "min_mean_logprob": -2.0,
    "must_not_match": ("^2$",),
    "parse_regex": r"(?P<v>\d+)",
    "fields": {"v": "int64"},
    "where": ("v < 3",),
    "finish_reasons": ("stop",),
}


SOME_RULES = st.lists(st.sampled_from(sorted(RULES)), unique=True).map(
    lambda names: {
        name: RULES[name]
        for name in names
        if "parse_regex" in names or name not in ("fields", "where")
    }
)


CHOICES: list[dict[str, Any]] = [
    {},
    {"choose": "best"},
    {"choose": "majority", "vote_on": "completion"},
]


STOPS: list[dict[str, Any]] = [
    {},
    {"target_rows": 3},
    {"max_total_tokens": 25},
    {"target_rows": 2, "max_total_tokens": 40},
]


def block(rows: list[list[dict[str, Any]]], first: int = 0) -> pa.Table:
    """Returns the samples of rows.

    A row whose first sample failed has failed as a whole, and stands for three samples.
    """
    flat = []
    for number, some in enumerate(rows, first):
        whole = some[0]["_status"] == "error"
        for index, sample in enumerate(some[:1] if whole else some):
            ok = sample["_status"] == "ok"
            error = (
                {}
                if ok
                else dict.fromkeys(
                    ("completion", "finish_reason", "mean_logprob", "completion_tokens")
                )
            )
            error |= (
                {}
                if ok
                else {"_error_code": "engine_crash", "_error_message": "x", "prompt_tokens": None}
            )
            own = {
                "id": f"r{number}",
                "sample_index": index,
                "a": number,
                "samples": 3 if whole else 1,
            }
            flat.append({**PLAIN, **sample, **own, **error})
    return samples(flat)


@settings(deadline=None, max_examples=150)
@given(
    ROWS,
    SOME_RULES,
    st.sampled_from(CHOICES),
    st.sampled_from(["none", "exact"]),
    st.sampled_from(STOPS),
    st.integers(1, 4),
)
def test_selection_accepts_or_rejects_every_sample_once(
    rows: list[list[dict[str, Any]]],
    rules: dict[str, Any],
    choice: dict[str, Any],
    dedup: str,
    stop: dict[str, Any],
    size: int,
) -> None:
    judge = selection(**rules, **choice, **stop, dedup=dedup)
    accepted, rejected, read = [], [], []
    for start in range(0, len(rows), size):
        if judge.stopped_by:
            break
        table = block(rows[start : start + size], start)
        outcome = judge.select(table)
        accepted += outcome.accepted.to_pylist()
        rejected += outcome.rejected.to_pylist()
        read += table.to_pylist()
        assert outcome.accepted.schema.equals(judge.schema)
        assert outcome.rejected.schema.equals(judge.rejected_schema)
    places = [(row["id"], row["sample_index"]) for row in accepted + rejected]
    assert sorted(places) == sorted((row["id"], row["sample_index"]) for row in read)
    assert len(places) == len(set(places))
    assert all(row["stage"] in STAGES and row["reason"] for row in rejected)
    counted = judge.statistics
    assert (
        counted.samples
        == sum(row["samples"] for row in read)
        == counted.accepted + counted.rejected + counted.failed
    )
    assert counted.accepted == len(accepted)
    assert counted.failed == sum(row["samples"] for row in rejected if row["stage"] == "generation")
    last = counted.stage_counts()[-1]
    assert last.samples - last.rejected == counted.accepted
    assert sum(each["accepted"] for each in counted.templates.values()) == counted.accepted
    assert counted.seed_rows == len({row["id"] for row in read})
    assert len(accepted) <= stop.get("target_rows", len(accepted))


@settings(deadline=None, max_examples=80)
@given(ROWS, ROWS, st.sampled_from(CHOICES), st.sampled_from(STOPS), st.integers(1, 3))
def test_selection_depends_on_earlier_rows_only(
    rows: list[list[dict[str, Any]]],
    later: list[list[dict[str, Any]]],
    choice: dict[str, Any],
    stop: dict[str, Any],
    size: int,
) -> None:
    def run(every: list[list[dict[str, Any]]], step: int) -> list[dict[str, Any]]:
        judge, accepted = selection(**choice, **stop), []
        for start in range(0, len(every), step):
            if not judge.stopped_by:
                accepted += judge.select(
                    block(every[start : start + step], start)
                ).accepted.to_pylist()
        return accepted

    whole = run(rows + later, 1)
    assert whole == run(rows + later, size)
    assert run(rows, 1) == [row for row in whole if int(row["id"][1:]) < len(rows)]


def test_selection_meets_target_to_the_row() -> None:
    judge = selection(target_rows=3, dedup="none")
    outcome = judge.select(samples([{} for _ in range(5)]))
    assert [row["id"] for row in outcome.accepted.to_pylist()] == ["r0", "r1", "r2"]
    assert [(row["id"], row["stage"], row["reason"]) for row in outcome.rejected.to_pylist()] == [
        ("r3", "stop", "target_rows"),
        ("r4", "stop", "target_rows"),
    ]
    assert judge.stopped_by == "target_rows"


def test_token_budget_takes_complete_rows_and_counts_prompts_once() -> None:
    rows = [{"id": f"r{row}", "sample_index": index} for row in range(4) for index in range(2)]
    judge = selection(max_total_tokens=8, dedup="none")
    outcome = judge.select(samples(rows))  # a row has 3 + 2 + 2 tokens
    assert [row["id"] for row in outcome.accepted.to_pylist()] == ["r0", "r0", "r1", "r1"]
    assert (judge.statistics.prompt_tokens, judge.statistics.completion_tokens) == (6, 8)
    assert {row["reason"] for row in outcome.rejected.to_pylist()} == {"max_total_tokens"}
    assert judge.stopped_by == "max_total_tokens"


def test_rejected_prompts_count_for_all_their_samples() -> None:
    judge = selection()
    rows = pa.table(
        {
            "id": ["x"],
            "a": [1],
            "template": ["t"],
            "stage": ["template"],
            "reason": ["null_value"],
            "samples": [4],
        }
    )
    outcome = judge.reject_prompts(rows)
    assert outcome.accepted.num_rows == 0
    assert (
        outcome.rejected.to_pylist()[0] | {"id": "x", "stage": "template", "completion": None}
        == outcome.rejected.to_pylist()[0]
    )
    assert (judge.statistics.samples, judge.statistics.rejected, judge.statistics.seed_rows) == (
        4,
        4,
        1,
    )


def test_parsed_fields_follow_completion_and_are_usable() -> None:
    judge = selection(
        parse_json=True, fields={"v": "int64", "w": "string?"}, where=("v == a",), dedup_on=("v",)
    )
    outcome = judge.select(samples([{"completion": f'{{"v": {n}}}', "a": 7} for n in (7, 8, 7)]))
    assert outcome.accepted.schema.names[7:10] == ["v", "w", "finish_reason"]
    assert [(row["id"], row["v"], row["w"]) for row in outcome.accepted.to_pylist()] == [
        ("r0", 7, None)
    ]
    assert [(row["id"], row["stage"], row["v"]) for row in outcome.rejected.to_pylist()] == [
        ("r1", "where", 8),
        ("r2", "duplicate", 7),
    ]


def test_condition_error_is_a_rejection_with_its_cause() -> None:
    (row,) = selection(where=("a + 1 > 0",)).select(samples([{"a": None}])).rejected.to_pylist()
    assert (row["stage"], row["reason"], row["detail"]) == (
        "where",
        "error in a + 1 > 0",
        "TypeError: arithmetic takes numbers, got NoneType",
    )


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"where": ("votes > 1",), "choose": "majority", "vote_on": "a"}, "no column 'votes'"),
        ({"vote_on": "z", "choose": "majority"}, "--vote-on: no column 'z'"),
        ({"dedup_on": ("z",)}, "--dedup-on: no column 'z'"),
        (
            {"parse_regex": "(?P<topic>x)"},
            "field 'topic': the data set has another column of that name",
        ),
        ({"parse_regex": "(?P<reason>x)"}, "field 'reason': the data set has another column"),
    ],
)
def test_selection_refuses_rules_with_unknown_columns(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        selection(**rules)
    assert message in str(raised.value)


@pytest.mark.parametrize("rules", [{"choose": "best"}, {"min_mean_logprob": -1.0}])
def test_selection_refuses_rules_without_needed_logprobs(rules: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="it needs log-probs, which the run did not write"):
        Selection(SelectionRules(**rules), KEPT, logprobs=False)
    Selection(SelectionRules(), KEPT, logprobs=False)


def test_token_budget_is_used_up_at_equality() -> None:
    judge = selection(max_total_tokens=5, dedup="none")
    outcome = judge.select(samples([{}, {}]))  # 3 tokens read and 2 generated in each row
    assert outcome.accepted["id"].to_pylist() == ["r0"]
    assert outcome.rejected["reason"].to_pylist() == ["max_total_tokens"]
    assert judge.stopped_by == "max_total_tokens"
