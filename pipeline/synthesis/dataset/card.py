"""README.md of a data set: a data card as model hubs show it, from card.md.j2.

Every text from data, models or the configuration appears as code, so that none of it takes effect;
addresses have no credentials. Nothing depends on when or where the card is written: the same data
set has the same card.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pyarrow as pa

from pipeline.report.figures import bin_label, percent, quantile, size_in_bytes
from pipeline.synthesis.dataset.files import WrittenFile
from pipeline.synthesis.dataset.markdown import bar, block, code, inline
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.rejections import STAGES

SIZE_CATEGORIES = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (1e8, "10M<n<100M"),
)
LARGEST_CATEGORY = "n>100M"
MAX_REASONS = 30
MAX_REJECTED_EXAMPLES = 10
STAGE_DESCRIPTIONS = {
    "template": "no prompt could be made of the seed row",
    "generation": "the row failed in the run",
    "filter": "length, finish reason, patterns, log-prob",
    "parse": "the fields are not in the completion",
    "where": "a condition does not hold",
    "choose": "another sample of the prompt was kept",
    "partition": "its value can be no folder's name",
    "duplicate": "it repeats an accepted sample",
    "stop": "there were enough rows",
}
COLUMN_DESCRIPTIONS = {
    "id": "of the seed row",
    "sample_index": "which sample of the seed row, from 0 on",
    "template": "name of the template",
    "prompt": "what the model was given",
    "completion": "what it wrote, to the letter; a stop string is cut off",
    "finish_reason": "`stop`, `length` or `repetition`",
    "prompt_tokens": "",
    "completion_tokens": "end of text included",
    "mean_logprob": "of the completion's tokens under the model, natural log, two places",
    "seed": "of the sample",
    "votes": "samples of the prompt with this answer",
    "voters": "samples of the prompt that had an answer",
}
Report = Mapping[str, Any]
Bins = Sequence[Mapping[str, Any]]  # from, to, rows


@dataclass(frozen=True, slots=True)
class CardTexts:
    """Content of a card beside the figures."""

    title: str
    license: str | None
    provenance: Sequence[tuple[str, object]]  # name and value of what the data set was made with
    settings: Sequence[tuple[str, object]]  # flags of prompts, sampling and selection that were set
    templates: Sequence[TemplateSpec]
    fields: Sequence[str]  # columns that were parsed out of the completion
    partition_by: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    description: str


@dataclass(frozen=True, slots=True)
class _Example:
    text: str  # prompt and completion
    columns: str  # the other columns, as JSON
    stage: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class _Reason:
    stage: str
    text: str
    samples: int


@dataclass(frozen=True, slots=True)
class _LengthSummary:
    outcome: str
    median: int
    percentile_99: int


@dataclass(frozen=True, slots=True)
class _HistogramBin:
    label: str
    accepted: int
    rejected: int
    highest: int  # of all bins

    @property
    def accepted_share(self) -> float:
        return self.accepted / self.highest

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.highest


def render(
    texts: CardTexts, report: Report, schema: pa.Schema, files: Sequence[WrittenFile]
) -> str:
    """Returns the card.

    Args:
        texts: content beside the figures.
        report: content of statistics.json.
        schema: columns of the accepted rows.
        files: files of the accepted rows.
    """
    lengths = report["completion_tokens_histogram"]
    logprobs = report["mean_logprob_histogram"]
    data_path = "data/*.parquet"
    if texts.partition_by:
        data_path = "data/**/*.parquet"
    ordered = sorted(report["rejected_examples"], key=lambda row: STAGES.index(row["stage"]))
    template = _environment().get_template("card.md.j2")
    card = template.render(
        texts=texts,
        report=report,
        files=files,
        size=size_in_bytes(sum(file.size for file in files)),
        size_category=_size_category(report["accepted"]),
        data_path=data_path,
        model=dict(texts.provenance).get("model", "a model"),
        columns=[_column(field, texts) for field in schema],
        examples=list(map(_example, report["examples"])),
        stage_descriptions=STAGE_DESCRIPTIONS,
        reasons=_reasons(report),
        max_reasons=MAX_REASONS,
        duplicates=report["duplicates"],
        length_summaries=_length_summaries(lengths),
        length_bins=_histogram_bins(lengths, bin_label),
        logprob_bins=_histogram_bins(logprobs, _logprob_label),
        rejected_examples=list(map(_example, ordered[:MAX_REJECTED_EXAMPLES])),
    )
    return card.rstrip("\n") + "\n"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.synthesis.dataset", "."),
        autoescape=False,  # Markdown: see markdown.py
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bar": bar,
        "block": block,
        "code": code,
        "general": "{:g}".format,
        "inline": inline,
        "json": json.dumps,
        "percent": percent,
        "setting": _setting,
        "thousands": "{:,}".format,
    }
    return environment


def _size_category(rows: int) -> str:
    for limit, name in SIZE_CATEGORIES:
        if rows < limit:
            return name
    return LARGEST_CATEGORY


def _column(field: Any, texts: CardTexts) -> _Column:
    description = "of the seed row"
    if field.name in texts.fields:
        description = "parsed out of the completion"
    description = COLUMN_DESCRIPTIONS.get(field.name, description)
    if field.name in texts.partition_by:
        description += "; the name of a folder, not in the files"
    return _Column(field.name, str(field.type), description)


def _example(row: Mapping[str, Any]) -> _Example:
    text = row.get("prompt", "")
    if "completion" in row:
        text = f"{text}⟦{row['completion']}⟧"
    columns = dict(row)
    columns.pop("prompt", None)
    columns.pop("completion", None)
    return _Example(
        text,
        json.dumps(columns, ensure_ascii=False, default=str),
        row.get("stage"),
        row.get("reason"),
    )


def _reasons(report: Report) -> list[_Reason]:
    """Returns the reasons by stage, then by frequency."""
    reasons = []
    for stage in STAGES:
        for text, samples in report["reasons"].get(stage, {}).items():
            reasons.append(_Reason(stage, text, samples))
    return reasons


def _length_summaries(histograms: Mapping[str, Bins]) -> list[_LengthSummary]:
    summaries = []
    for outcome, bins in histograms.items():
        if bins:
            summary = _LengthSummary(outcome, quantile(bins, 0.5), quantile(bins, 0.99))
            summaries.append(summary)
    return summaries


def _histogram_bins(histograms: Mapping[str, Bins], label: Any) -> list[_HistogramBin]:
    """Returns the bins of accepted and rejected samples side by side."""
    counts: dict[tuple[float, float], dict[str, Any]] = {}
    for outcome, bins in histograms.items():
        for entry in bins:
            counts.setdefault((entry["from"], entry["to"]), {})[outcome] = entry["rows"]

    highest = 0
    for by_outcome in counts.values():
        highest = max(highest, *by_outcome.values())
    rows = []
    for (low, high), by_outcome in sorted(counts.items()):
        accepted = by_outcome.get("accepted", 0)
        rejected = by_outcome.get("rejected", 0)
        rows.append(_HistogramBin(label(low, high), accepted, rejected, highest))
    return rows


def _logprob_label(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"


def _setting(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
