"""What became of samples → figures of bounded size: counts at every stage, reasons, lengths, log-probs, a few examples.

Everything is counted in samples, so that sums can be checked: read = accepted + rejected + failed,
where failed are those that the stage `generation` left out. It knows no rules and no files.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.monitoring.length_bins import histogram, length_bin
from pipeline.synthesis.selection.rejections import STAGES
from pipeline.synthesis.selection.samples import SAMPLES

LOGPROB_STEP, LOWEST_LOGPROB = 0.25, -10.0
MOST_REASONS = 200  # of a stage, e.g. error codes; further ones are counted together
OTHER = "other reasons"
EXAMPLE_CHARS = 1000


@dataclass(slots=True)
class Statistics:
    """The figures so far."""

    examples_wanted: int = 5
    seed_rows: int = 0  # read
    samples: int = 0  # read: what the seed rows were to give
    accepted: int = 0
    reasons: dict[str, Counter[str]] = field(
        default_factory=lambda: {stage: Counter() for stage in STAGES}
    )
    templates: dict[str, Counter[str]] = field(default_factory=dict)  # name → samples, accepted
    prompt_tokens: int = 0  # of each prompt once, however many samples it has
    completion_tokens: int = 0
    lengths: dict[str, Counter[int]] = field(
        default_factory=lambda: {"accepted": Counter(), "rejected": Counter()}
    )
    logprobs: dict[str, Counter[float]] = field(
        default_factory=lambda: {"accepted": Counter(), "rejected": Counter()}
    )
    examples: list[dict[str, Any]] = field(default_factory=list)
    # the first of each reason
    rejected_examples: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Samples that were not generated, because of an error."""
        return sum(self.reasons["generation"].values())

    @property
    def rejected(self) -> int:
        """Samples that a stage left out, failed ones excepted."""
        return sum(
            sum(counts.values()) for stage, counts in self.reasons.items() if stage != "generation"
        )

    @property
    def tokens(self) -> int:
        """Tokens read and generated."""
        return self.prompt_tokens + self.completion_tokens

    def add_accepted(self, rows: pa.Table) -> None:
        """Counts accepted samples."""
        self.samples += rows.num_rows
        self.accepted += rows.num_rows
        self._count_templates(rows["template"].to_pylist(), [1] * rows.num_rows, accepted=True)
        self._count_lengths("accepted", rows)
        wanted = self.examples_wanted - len(self.examples)
        if wanted > 0:
            self.examples += map(_shown, rows.slice(0, wanted).to_pylist())

    def add_rejected(self, rows: pa.Table) -> None:
        """Counts rejected and failed samples; `rows` have the columns of rejected rows."""
        weights, stages, reasons = (_values(rows, name) for name in (SAMPLES, "stage", "reason"))
        self.samples += sum(weights)
        self._count_templates(rows["template"].to_pylist(), weights, accepted=False)
        self._count_lengths("rejected", rows)
        for place, (stage, reason) in enumerate(zip(stages, reasons, strict=True)):
            counts = self.reasons[stage]
            known = reason in counts or len(counts) < MOST_REASONS
            counts[reason if known else OTHER] += weights[place]
            if known and (stage, reason) not in self.rejected_examples:
                self.rejected_examples[stage, reason] = _shown(rows.slice(place, 1).to_pylist()[0])

    def funnel(self) -> list[tuple[str, int, int]]:
        """Returns for each stage how many samples came to it and how many it left out, in order.

        `stop` comes last.
        """
        left = self.samples
        steps: list[tuple[str, int, int]] = []
        for stage in STAGES:
            lost = sum(self.reasons[stage].values())
            steps.append((stage, left, lost))
            left -= lost
        return steps

    def report(self) -> dict[str, Any]:
        """Returns the figures as JSON can hold them."""
        return {
            "seed_rows": self.seed_rows,
            "samples": self.samples,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "failed": self.failed,
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "stages": [
                {"stage": stage, "samples": came, "left_out": lost}
                for stage, came, lost in self.funnel()
            ],
            "reasons": {
                stage: dict(_ranked(counts)) for stage, counts in self.reasons.items() if counts
            },
            "templates": {name: dict(counts) for name, counts in sorted(self.templates.items())},
            "completion_tokens_histogram": {
                name: histogram(counts) for name, counts in self.lengths.items()
            },
            "mean_logprob_histogram": {
                name: _logprob_bins(counts) for name, counts in self.logprobs.items()
            },
        }

    def _count_templates(
        self, names: list[str | None], weights: list[int], *, accepted: bool
    ) -> None:
        for name, weight in zip(names, weights, strict=True):
            if name is not None:
                counts = self.templates.setdefault(name, Counter(samples=0, accepted=0))
                counts["samples"] += weight
                counts["accepted"] += weight if accepted else 0

    def _count_lengths(self, kind: str, rows: pa.Table) -> None:
        for length, count in _counted(rows["completion_tokens"]).items():
            self.lengths[kind][length_bin(int(length))] += count
        for value, count in _counted(rows["mean_logprob"]).items():
            step = LOGPROB_STEP * np.floor(max(value, LOWEST_LOGPROB) / LOGPROB_STEP)
            self.logprobs[kind][min(float(step), -LOGPROB_STEP)] += count  # the bin below 0 holds 0


def _values(rows: pa.Table, name: str) -> list[Any]:
    return rows[name].to_pylist()


def _counted(column: Any) -> dict[float, int]:
    counts = Counter(value for value in column.to_pylist() if value is not None)
    return dict(counts)


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _logprob_bins(counts: Counter[float]) -> list[dict[str, float]]:
    return [{"from": low, "to": low + LOGPROB_STEP, "rows": counts[low]} for low in sorted(counts)]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _cut(value) for name, value in row.items() if value is not None}


def _cut(value: Any) -> Any:
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return value if len(told) <= EXAMPLE_CHARS else told[: EXAMPLE_CHARS - 1] + "…"
