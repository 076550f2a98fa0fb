"""Figures of a selection, of bounded size: counts per stage and reason, histograms, examples.

The unit is the sample, so that sums can be checked: read = accepted + rejected + failed, where the
failed ones are those that the stage `generation` rejects.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.monitoring.length_bins import histogram, length_bin
from pipeline.synthesis.columns import SAMPLES
from pipeline.synthesis.rejections import STAGES

LOGPROB_STEP = 0.25
LOWEST_LOGPROB = -10.0
MAX_REASONS = 200  # of a stage, e.g. error codes; further ones are counted together
OTHER_REASONS = "other reasons"
EXAMPLE_CHARS = 1000


def _stage_counters() -> dict[str, Counter[str]]:
    return {stage: Counter() for stage in STAGES}


def _outcome_counters() -> dict[str, Counter[Any]]:
    return {"accepted": Counter(), "rejected": Counter()}


@dataclass(frozen=True, slots=True)
class StageCount:
    """Samples that reached a stage, and those that it rejected."""

    stage: str
    samples: int
    rejected: int

    def report(self) -> dict[str, Any]:
        """Returns the figures as JSON values."""
        return {"stage": self.stage, "samples": self.samples, "left_out": self.rejected}


@dataclass(slots=True)
class Statistics:
    """The figures of the samples so far."""

    max_examples: int = 5
    seed_rows: int = 0  # read
    samples: int = 0  # read: those that the seed rows were to give
    accepted: int = 0
    reasons: dict[str, Counter[str]] = field(default_factory=_stage_counters)
    templates: dict[str, Counter[str]] = field(default_factory=dict)  # name → samples, accepted
    prompt_tokens: int = 0  # of each prompt once, however many samples it has
    completion_tokens: int = 0
    lengths: dict[str, Counter[int]] = field(default_factory=_outcome_counters)
    logprobs: dict[str, Counter[float]] = field(default_factory=_outcome_counters)
    examples: list[dict[str, Any]] = field(default_factory=list)
    # the first of each reason
    rejected_examples: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Samples that were not generated because of an error."""
        return self.reasons["generation"].total()

    @property
    def rejected(self) -> int:
        """Samples that a stage rejected, without the failed ones."""
        total = sum(counts.total() for counts in self.reasons.values())
        return total - self.failed

    @property
    def tokens(self) -> int:
        """Tokens read and generated."""
        return self.prompt_tokens + self.completion_tokens

    def add_accepted(self, rows: pa.Table) -> None:
        """Counts accepted samples."""
        self.samples += rows.num_rows
        self.accepted += rows.num_rows
        for name in _values(rows, "template"):
            self._count_template(name, samples=1, accepted=1)
        self._count_distributions("accepted", rows)
        missing = self.max_examples - len(self.examples)
        for row in rows.slice(0, max(0, missing)).to_pylist():
            self.examples.append(_example(row))

    def add_rejected(self, rows: pa.Table) -> None:
        """Counts rejected and failed samples.

        Args:
            rows: rejected rows with all their columns.
        """
        weights = _values(rows, SAMPLES)
        self.samples += sum(weights)
        for name, weight in zip(_values(rows, "template"), weights, strict=True):
            self._count_template(name, samples=weight, accepted=0)
        self._count_distributions("rejected", rows)

        stages = _values(rows, "stage")
        reasons = _values(rows, "reason")
        for position, (stage, reason) in enumerate(zip(stages, reasons, strict=True)):
            counts = self.reasons[stage]
            if reason not in counts and len(counts) >= MAX_REASONS:
                counts[OTHER_REASONS] += weights[position]
                continue
            counts[reason] += weights[position]
            if (stage, reason) not in self.rejected_examples:
                (row,) = rows.slice(position, 1).to_pylist()
                self.rejected_examples[stage, reason] = _example(row)

    def stage_counts(self) -> list[StageCount]:
        """Returns the samples at each stage, in order; `stop` comes last."""
        remaining = self.samples
        counts = []
        for stage in STAGES:
            rejected = self.reasons[stage].total()
            counts.append(StageCount(stage, remaining, rejected))
            remaining -= rejected
        return counts

    def report(self) -> dict[str, Any]:
        """Returns the figures as JSON values."""
        stages = [count.report() for count in self.stage_counts()]
        reasons = {}
        for stage, counts in self.reasons.items():
            if counts:
                reasons[stage] = _ranked(counts)
        return {
            "seed_rows": self.seed_rows,
            "samples": self.samples,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "failed": self.failed,
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "stages": stages,
            "reasons": reasons,
            "templates": {name: dict(counts) for name, counts in sorted(self.templates.items())},
            "completion_tokens_histogram": {
                name: histogram(counts) for name, counts in self.lengths.items()
            },
            "mean_logprob_histogram": {
                name: _logprob_bins(counts) for name, counts in self.logprobs.items()
            },
        }

    def _count_template(self, name: str | None, *, samples: int, accepted: int) -> None:
        if name is None:
            return
        counts = self.templates.setdefault(name, Counter(samples=0, accepted=0))
        counts["samples"] += samples
        counts["accepted"] += accepted

    def _count_distributions(self, outcome: str, rows: pa.Table) -> None:
        for length in _non_null(rows["completion_tokens"]):
            self.lengths[outcome][length_bin(int(length))] += 1
        for value in _non_null(rows["mean_logprob"]):
            low = LOGPROB_STEP * np.floor(max(value, LOWEST_LOGPROB) / LOGPROB_STEP)
            # the bin below 0 holds 0
            self.logprobs[outcome][min(float(low), -LOGPROB_STEP)] += 1


def _values(rows: pa.Table, name: str) -> list[Any]:
    return rows[name].to_pylist()


def _non_null(column: Any) -> list[Any]:
    values: list[Any] = column.drop_null().to_pylist()
    return values


def _ranked(counts: Counter[str]) -> dict[str, int]:
    """Returns counts by frequency, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _logprob_bins(counts: Counter[float]) -> list[dict[str, float]]:
    return [{"from": low, "to": low + LOGPROB_STEP, "rows": counts[low]} for low in sorted(counts)]


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row without nulls, its values shortened."""
    return {name: _shortened(value) for name, value in row.items() if value is not None}


def _shortened(value: Any) -> Any:
    text = value
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= EXAMPLE_CHARS:
        return value
    return text[: EXAMPLE_CHARS - 1] + "…"
