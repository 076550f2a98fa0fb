"""Stage `choose`: keeps one sample of each prompt, the likeliest or one with the majority's answer.

Log-probs are compared as the data set shows them, to two places; of equal ones the earliest sample
is kept. Samples that an earlier stage rejected neither compete nor vote.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.synthesis.columns import VOTES
from pipeline.synthesis.rejections import Rejection
from pipeline.synthesis.selection.samples import StageResult, numbers, row_groups

ROUNDING = 1e-9  # of a product of a share and a count
_NOT_BEST = Rejection("choose", "not the best")
_OUTVOTED = Rejection("choose", "outvoted")
_NOT_BEST_OF_MAJORITY = Rejection("choose", "not the best of the majority")


def best(table: pa.Table) -> StageResult:
    """Passes the likeliest sample of each prompt."""
    scores = numbers(table, "mean_logprob", -math.inf)
    verdicts: list[Rejection | None] = [_NOT_BEST] * table.num_rows
    for first, end in row_groups(table):
        verdicts[first + int(np.argmax(scores[first:end]))] = None
    return StageResult(table, verdicts)


@dataclass(frozen=True, slots=True)
class Majority:
    """Passes the likeliest sample with the most frequent value of a column, if enough agree."""

    column: str
    min_agreement: float = 0.0  # share of the voters

    def __call__(self, table: pa.Table) -> StageResult:
        """Votes within each prompt.

        Adds the columns `votes` (samples with the value of this one) and `voters`.
        """
        answers = list(map(_comparable, table[self.column].to_pylist()))
        scores = numbers(table, "mean_logprob", -math.inf).tolist()

        verdicts: list[Rejection | None] = []
        votes: list[int] = []
        voters: list[int] = []
        for first, end in row_groups(table):
            prompt_answers = answers[first:end]
            counts = Counter(prompt_answers)
            votes += [counts[answer] for answer in prompt_answers]
            voters += [len(prompt_answers)] * len(prompt_answers)
            verdicts += self._verdicts(prompt_answers, counts, scores[first:end])

        table = table.append_column(VOTES.field("votes"), pa.array(votes, pa.int32()))
        table = table.append_column(VOTES.field("voters"), pa.array(voters, pa.int32()))
        return StageResult(table, verdicts)

    def _verdicts(
        self, answers: Sequence[str], counts: Counter[str], scores: Sequence[float]
    ) -> list[Rejection | None]:
        """Returns the verdicts on the samples of one prompt."""
        highest = max(counts.values())
        # 11 of 20 samples are a share of 0.55, although 0.55 * 20 is more than 11 in floating point
        if highest < self.min_agreement * len(answers) - ROUNDING:
            detail = f"{highest} of {len(answers)}"
            return [Rejection("choose", "too little agreement", detail)] * len(answers)

        # Of answers with equally many votes, the one of the likeliest sample; of equally likely
        # ones the earliest.
        candidates = [index for index, answer in enumerate(answers) if counts[answer] == highest]
        winner = max(candidates, key=lambda index: (scores[index], -index))

        verdicts: list[Rejection | None] = []
        for index, answer in enumerate(answers):
            if index == winner:
                verdicts.append(None)
            elif answer == answers[winner]:
                verdicts.append(_NOT_BEST_OF_MAJORITY)
            else:
                verdicts.append(_OUTVOTED)
        return verdicts


def _comparable(value: object) -> str:
    return json.dumps(value, default=str, sort_keys=True)
