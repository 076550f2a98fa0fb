"""The samples of a prompt → the one that is kept: the best by mean log-prob, or one with the answer that most of them give.

Log-probs are compared as the data set shows them, to two places; of equal ones the earliest sample
is kept. Samples that a stage before left out neither compete nor vote.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.synthesis.selection.rejections import Rejection
from pipeline.synthesis.selection.samples import Judged, numbers, row_groups

VOTE_FIELDS = (pa.field("votes", pa.int32()), pa.field("voters", pa.int32()))


def best(table: pa.Table) -> Judged:
    """Lets the likeliest sample of each prompt pass."""
    scores = numbers(table, "mean_logprob", -math.inf)
    verdicts: list[Rejection | None] = [Rejection("choose", "not the best")] * table.num_rows
    for first, end in row_groups(table):
        verdicts[first + int(np.argmax(scores[first:end]))] = None
    return Judged(table, verdicts)


@dataclass(frozen=True, slots=True)
class Majority:
    """Lets the likeliest sample with the most frequent value of a column pass, if enough samples agree on it."""

    column: str
    min_agreement: float = 0.0  # share of the voters

    def __call__(self, table: pa.Table) -> Judged:
        """Votes within each prompt.

        Adds the columns `votes`, for each sample's own value, and `voters`.
        """
        values = [
            json.dumps(value, default=str, sort_keys=True)
            for value in table[self.column].to_pylist()
        ]
        scores = numbers(table, "mean_logprob", -math.inf)
        verdicts: list[Rejection | None] = []
        votes: list[int] = []
        for first, end in row_groups(table):
            count = Counter(values[first:end])
            votes += [count[value] for value in values[first:end]]
            verdicts += self._of_prompt(values[first:end], count, scores[first:end].tolist())
        voters = [end - first for first, end in row_groups(table) for _ in range(first, end)]
        for field, counts in zip(VOTE_FIELDS, (votes, voters), strict=True):
            table = table.append_column(field, pa.array(counts, field.type))
        return Judged(table, verdicts)

    def _of_prompt(
        self, values: Sequence[str], count: Counter[str], scores: Sequence[float]
    ) -> list[Rejection | None]:
        most = max(count.values())
        # Of answers with equally many votes, the one that the likeliest sample gives; of equally
        # likely ones the earliest.
        winner = max(
            range(len(values)),
            key=lambda place: (count[values[place]] == most, scores[place], -place),
        )
        if most < self.min_agreement * len(values):
            return [Rejection("choose", "too little agreement", f"{most} of {len(values)}")] * len(
                values
            )
        outvoted, other = (
            Rejection("choose", "outvoted"),
            Rejection("choose", "not the best of the majority"),
        )
        return [
            None if place == winner else other if value == values[winner] else outvoted
            for place, value in enumerate(values)
        ]
