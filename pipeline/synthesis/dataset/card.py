"""Statistics and provenance of a data set → its README.md: a data card as model hubs show it.

Every text that comes from data, models or the configuration is shown as code, so that none of it
takes effect; addresses are rid of credentials. Nothing in it depends on when or where it was
written: the same data set has the same card.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.report.figures import bin_label, percent, quantile, size_in_bytes
from pipeline.synthesis.dataset.files import WrittenFile
from pipeline.synthesis.dataset.markdown import bar, block, code, inline, table
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.selection.rejections import STAGES

SIZES = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (1e8, "10M<n<100M"),
)
MOST_REASONS, MOST_REJECTED_EXAMPLES = 30, 10
STAGE_WORDS = {
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
COLUMN_WORDS = {
    "id": "of the seed row", "sample_index": "which sample of the seed row, from 0 on", "template": "name of the template",
    "prompt": "what the model was given", "completion": "what it wrote, to the letter; a stop string is cut off",
    "finish_reason": "`stop`, `length` or `repetition`", "prompt_tokens": "", "completion_tokens": "end of text included",
    "mean_logprob": "of the completion's tokens under the model, natural log, two places", "seed": "of the sample",
    "votes": "samples of the prompt with this answer", "voters": "samples of the prompt that had an answer",
}  # fmt: skip
Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CardTexts:
    """What a card tells beside the figures."""

    title: str
    license: str | None
    provenance: Sequence[tuple[str, object]]  # what it was made with: name and value
    settings: Sequence[tuple[str, object]]  # flags of prompts, sampling and selection that were set
    templates: Sequence[TemplateSpec]
    fields: Sequence[str]  # columns that were parsed out of the completion
    partition_by: Sequence[str]


def render(
    texts: CardTexts, report: Report, schema: pa.Schema, files: Sequence[WrittenFile]
) -> str:
    """Returns the card.

    Args:
        texts: what it tells beside the figures.
        report: content of statistics.json.
        schema: of the accepted rows.
        files: of the accepted rows.
    """
    sections = (
        _front_matter(texts, report), f"# {inline(texts.title)}", _summary(texts, report, files), _columns(texts, schema),
        _examples(report), _counts(report), _reasons(report), _duplicates(report), _lengths(report), _logprobs(report),
        _made_with(texts), _rejected_examples(report),
    )  # fmt: skip
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(texts: CardTexts, report: Report) -> str:
    """YAML; quoted texts are JSON, which YAML includes."""
    accepted = report["accepted"]
    size = next((name for most, name in SIZES if accepted < most), "n>100M")
    data = "data/**/*.parquet" if texts.partition_by else "data/*.parquet"
    lines = [f"pretty_name: {json.dumps(texts.title)}"]
    lines += [f"license: {json.dumps(texts.license)}"] if texts.license else []
    lines += ["tags:", "- synthetic", "size_categories:", f"- {size}", "configs:"]
    for name, path in (("default", data), ("rejected", "rejected/*.parquet")):
        lines += [
            f"- config_name: {name}",
            "  data_files:",
            "  - split: train",
            f"    path: {json.dumps(path)}",
        ]
    return "\n".join(["---", *lines, "---"])


def _summary(texts: CardTexts, report: Report, files: Sequence[WrittenFile]) -> str:
    size = sum(file.size for file in files)
    where = (
        f", in folders by {', '.join(map(code, texts.partition_by))}" if texts.partition_by else ""
    )
    made = dict(texts.provenance)
    return (
        f"{report['accepted']:,} rows that {code(made.get('model', 'a model'))} wrote, of "
        f"{report['samples']:,} samples for "
        f"{report['seed_rows']:,} seed rows. {len(files):,} Parquet "
        f"file{'s' if len(files) != 1 else ''}, "
        f"{size_in_bytes(size)}{where}. What was left out is in "
        "`rejected/`, with stage and reason; all figures are in `statistics.json`."
    )


def _columns(texts: CardTexts, schema: pa.Schema) -> str:
    rows = []
    for field in schema:
        words = COLUMN_WORDS.get(
            field.name,
            "parsed out of the completion" if field.name in texts.fields else "of the seed row",
        )
        note = (
            "; the name of a folder, not in the files" if field.name in texts.partition_by else ""
        )
        rows.append((code(field.name), code(field.type), words + note))
    return f"## Columns\n\n{table(('column', 'type', ''), rows)}"


def _examples(report: Report) -> str:
    shown = "\n\n".join(_example(row) for row in report["examples"])
    return f"## Examples\n\nThe first rows; ⟦…⟧ is the completion.\n\n{shown}" if shown else ""


def _example(row: Mapping[str, Any]) -> str:
    others = {name: value for name, value in row.items() if name not in {"prompt", "completion"}}
    told = json.dumps(others, ensure_ascii=False, default=str)
    whole = (
        f"{row.get('prompt', '')}⟦{row['completion']}⟧"
        if "completion" in row
        else row.get("prompt", "")
    )
    return f"{block(whole)}\n\n{block(told, 'json')}" if whole else block(told, "json")


def _counts(report: Report) -> str:
    rows = [
        (
            f"`{step['stage']}`",
            STAGE_WORDS[step["stage"]],
            f"{step['samples']:,}",
            f"{step['left_out']:,}",
        )
        for step in report["stages"]
        if step["left_out"]
    ]
    rows.append(("**accepted**", "", f"**{report['accepted']:,}**", ""))
    words = (
        f"{report['samples']:,} samples = {report['accepted']:,} accepted + {report['rejected']:,} "
        "rejected + "
        f"{report['failed']:,} failed. {_unread(report)}Tokens: {report['tokens']['prompt']:,} "
        "read, each prompt counted once, "
        f"and {report['tokens']['completion']:,} generated."
    )
    templates = [
        (
            code(name),
            f"{each['samples']:,}",
            f"{each['accepted']:,}",
            percent(each["accepted"] / max(1, each["samples"])),
        )
        for name, each in report["templates"].items()
    ]
    by_template = table(("template", "samples", "accepted", "share"), templates)
    return f"## Counts\n\n{words}\n\n{table(('stage', 'left out because', 'came', 'left out'), rows)}\n\n{by_template}"


def _unread(report: Report) -> str:
    if not report["seed_rows_not_needed"]:
        return ""
    return f"{report['seed_rows_not_needed']:,} further seed rows were not needed ({code(report['stopped_by'])}). "


def _reasons(report: Report) -> str:
    ranked = [
        (stage, reason, count)
        for stage in STAGES
        for reason, count in report["reasons"].get(stage, {}).items()
    ]
    rows = [
        (f"`{stage}`", code(reason), f"{count:,}") for stage, reason, count in ranked[:MOST_REASONS]
    ]
    more = (
        f"\n\nThe first {MOST_REASONS} of {len(ranked)} reasons."
        if len(ranked) > MOST_REASONS
        else ""
    )
    return f"## Reasons\n\n{table(('stage', 'reason', 'samples'), rows)}{more}" if rows else ""


def _duplicates(report: Report) -> str:
    found = report["duplicates"]
    if found is None:
        return "## Duplicates\n\nNot looked for."
    columns = ", ".join(map(code, found["columns"]))
    near = (
        f", {found['near']:,} similar to one to {found['threshold']:g} or more (estimated Jaccard)"
        if found["threshold"]
        else ""
    )
    forgotten = (
        f"Each sample was compared with the {found['capacity']:,} accepted ones before it, for "
        "which there was memory; "
        f"{found['forgotten']:,} had to make room."
        if found["forgotten"]
        else "Each sample was compared with every accepted one before it."
    )
    return f"## Duplicates\n\nBy {columns}: {found['exact']:,} equal to an accepted sample{near}. {forgotten}"


def _lengths(report: Report) -> str:
    both = report["completion_tokens_histogram"]
    if not any(both.values()):
        return ""
    labels = {
        (each["from"], each["to"]): bin_label(each["from"], each["to"])
        for bins in both.values()
        for each in bins
    }
    words = "; ".join(
        f"half of the {kind} ones have up to {quantile(bins, 0.5):,}, 99\u00a0% up to "
        f"{quantile(bins, 0.99):,}"
        for kind, bins in both.items()
        if bins
    )
    return f"## Lengths\n\nTokens of completions: {words}.\n\n{_histogram('tokens', labels, both)}"


def _logprobs(report: Report) -> str:
    both = report["mean_logprob_histogram"]
    if not any(both.values()):
        return ""
    labels = {
        (each["from"], each["to"]): f"{each['from']:.2f} to {each['to']:.2f}"
        for bins in both.values()
        for each in bins
    }
    return f"## Mean log-probs\n\n{_histogram('mean log-prob', labels, both)}"


def _histogram(
    what: str,
    labels: Mapping[tuple[float, float], str],
    both: Mapping[str, Sequence[Mapping[str, float]]],
) -> str:
    counts = {
        kind: {(each["from"], each["to"]): each["rows"] for each in bins}
        for kind, bins in both.items()
    }
    most = max(max(bins.values(), default=0) for bins in counts.values())
    rows = []
    for key in sorted(labels):
        accepted, rejected = counts["accepted"].get(key, 0), counts["rejected"].get(key, 0)
        rows.append(
            (
                labels[key],
                f"{accepted:,}",
                bar(accepted / most),
                f"{rejected:,}",
                bar(rejected / most),
            )
        )
    return table((what, "accepted", "", "rejected", ""), rows)


def _made_with(texts: CardTexts) -> str:
    return "\n\n".join(_made_with_parts(texts))


def _made_with_parts(texts: CardTexts) -> Iterator[str]:
    yield "## Made with"
    yield table(
        ("", ""),
        [(inline(name), code(value)) for name, value in texts.provenance if value is not None],
    )
    yield table(
        ("setting", "value"),
        [(code(name), code(_setting(value))) for name, value in texts.settings],
    )
    for each in texts.templates:
        told = f"Weight {each.weight:g}, SHA-256 {code(each.digest)}."
        yield f"### Template {code(each.name)}\n\n{told}\n\n{block(each.text, 'jinja')}"


def _setting(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _rejected_examples(report: Report) -> str:
    ordered = sorted(report["rejected_examples"], key=lambda row: STAGES.index(row["stage"]))
    examples = ordered[:MOST_REJECTED_EXAMPLES]
    shown = "\n\n".join(
        f"{code(row['stage'])}: {code(row['reason'])}\n\n{_example(row)}" for row in examples
    )
    return f"## Rejected: the first of each reason\n\n{shown}" if shown else ""
