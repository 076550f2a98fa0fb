from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.selection.choice import Majority, best
from pipeline.synthesis.selection.samples import StageResult
from tests.pipeline.synthesis.sample_tables import samples


def reasons(judged: StageResult) -> list[str | None]:
    return [None if verdict is None else verdict.reason for verdict in judged.verdicts]


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
def test_best_passes_first_of_the_likeliest_samples(
    rows: list[Row],
) -> None:
    found = best(prompt_samples(rows)).passed.tolist()
    for some in rows:
        kept, found = found[: len(some)], found[len(some) :]
        scores = [float("-inf") if logprob is None else logprob for logprob, _ in some]
        assert kept == [place == scores.index(max(scores)) for place in range(len(some))]


@settings(deadline=None)
@given(ROWS, st.floats(0, 1))
def test_majority_passes_likeliest_sample_of_the_winning_answer(
    rows: list[Row], agreement: float
) -> None:
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
        if max(counts.values()) < agreement * len(some) - 1e-9:
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


def test_majority_gives_reasons_for_rejected_samples() -> None:
    rows: list[Row] = [
        [(-1.0, "a"), (-0.5, "a"), (-0.1, "b")],
        [(0.0, "a"), (0.0, "b"), (0.0, "c")],
    ]
    lost = reasons(Majority("completion", 0.5)(prompt_samples(rows)))
    assert lost == ["not the best of the majority", None, "outvoted", *["too little agreement"] * 3]


@pytest.mark.parametrize("voters", range(1, 65))
def test_majority_accepts_exact_share_in_spite_of_rounding(voters: int) -> None:
    for votes in range(voters // 2 + 1, voters + 1):
        answers = ["a"] * votes + ["b"] * (voters - votes)
        row: Row = [(-1.0, answer) for answer in answers]
        result = Majority("completion", round(votes / voters, 15))(prompt_samples([row]))
        assert result.passed.tolist() == [True] + [False] * (voters - 1)


def test_majority_rejects_smaller_shares() -> None:
    row: Row = [(-1.0, "a" if sample < 11 else "b") for sample in range(20)]
    rows: list[Row] = [row]
    assert Majority("completion", 0.55)(prompt_samples(rows)).passed.sum() == 1
    assert Majority("completion", 0.551)(prompt_samples(rows)).passed.sum() == 0
