"""The comparison of two runs or evaluations as one HTML page without network and scripts."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from actors.protocol.errors import GrokBatchError
from actors.protocol.plain_text import bare, redact_credentials, shorten
from jobs.inspection.comparison import (
    ChoiceChange,
    Comparison,
    Divergence,
    RunPair,
    Tokens,
)
from jobs.inspection.distribution import BINS_PER_DECADE, Distribution
from jobs.inspection.prompts import read_prompts
from jobs.inspection.task_deltas import TaskDelta
from jobs.inspection.token_text import run_tokenizer
from pipeline.evals.report.documents import prompt_end
from pipeline.evals.report.plots import differences, metric_name
from pipeline.evals.suite import EvalRequest
from pipeline.monitoring.length_bins import histogram, length_bin
from pipeline.output.run_folder import RunFolder
from pipeline.report.drawing import IN, NARROW_WIDTH, Plot, svg
from pipeline.report.figures import percent
from pipeline.report.page import Status, coloured_tokens, render_template, text_block
from pipeline.report.plots import lengths
from pipeline.requests.token_text import text_pieces, token_bytes
from pipeline.requests.tokenizer import Tokenizer

MAX_CHARS = 1500  # of a text
BINS_PER_BAR = BINS_PER_DECADE // 4
EQUAL = Status("equal", "good")
DIFFERENT = Status("different", "warn")


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A row that differs: its prompt and both answers as HTML."""

    id: str
    note: str
    prompt: str | None
    a: Markup
    b: Markup


def render_page(
    url_a: str,
    url_b: str,
    pairs: Sequence[RunPair],
    deltas: Sequence[TaskDelta],
    requests: Mapping[str, EvalRequest],
    *,
    identical: bool,
) -> str:
    """Returns the page.

    Args:
        url_a: first folder.
        url_b: second folder.
        pairs: runs of both folders.
        deltas: of evaluations.
        requests: of evaluations, by id.
        identical: whether nothing differs.
    """
    return render_template(
        "comparison.html.j2",
        package="jobs.inspection",
        title=f"{_last_name(url_a)} and {_last_name(url_b)}",
        status=EQUAL if identical else DIFFERENT,
        url_a=url_a,
        url_b=url_b,
        delta_rows=[_delta_row(delta) for delta in deltas],
        delta_plot=_delta_plot(deltas),
        documents=[_documents(delta, requests) for delta in deltas if delta.changes],
        runs=[_run_context(pair, requests) for pair in pairs],
    )


def _last_name(url: str) -> str:
    return bare(url.rstrip("/").rsplit("/", 1)[-1])


# -- evaluations -----------------------------------------------------------------------------------


def _delta_row(delta: TaskDelta) -> tuple[str, ...]:
    difference = delta.difference
    verdict = ""
    if difference.certain:
        verdict = "better" if difference.value > 0 else "worse"
    return (
        metric_name(delta.task, delta.metric),
        verdict,
        f"{100 * delta.value_a:.2f}\u00a0%",
        f"{100 * delta.value_b:.2f}\u00a0%",
        f"{100 * difference.value:+.2f}",
        f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}",
        f"{difference.p_value:.3g}",
        f"{difference.documents:,}",
        f"{difference.better:,}",
        f"{difference.worse:,}",
        f"{delta.changed_answers:,}",
    )


def _delta_plot(deltas: Sequence[TaskDelta]) -> Plot | None:
    if not deltas:
        return None
    by_name = [(metric_name(delta.task, delta.metric), delta.difference) for delta in deltas]
    return differences(
        by_name,
        title="B less A over the same documents",
        explanation="In points, with 95\u00a0% confidence intervals, paired by document.",
    )


def _documents(delta: TaskDelta, requests: Mapping[str, EvalRequest]) -> dict[str, Any]:
    rows = []
    for change in delta.changes:
        request = requests.get(change.id)
        note = f"{change.a.value:g} in A, {change.b.value:g} in B"
        prompt = None
        if request is not None:
            prompt = prompt_end(request.prompt)
            note += f"; expected {bare(request.target)}"
        answer_a = _answer(change.a.answer, change.a.confidence)
        answer_b = _answer(change.b.answer, change.b.confidence)
        rows.append(SideBySide(change.id, note, prompt, answer_a, answer_b))
    changed = delta.difference.better + delta.difference.worse
    name = metric_name(delta.task, delta.metric)
    return {"summary": _first_of(f"{name}: documents that changed", changed, rows), "rows": rows}


def _answer(answer: str, probability: float | None) -> Markup:
    block = text_block(shorten(answer, MAX_CHARS))
    if probability is None:
        return block
    return block + Markup("\nprobability {}").format(percent(probability))


def _first_of(name: str, count: int, rows: Sequence[object]) -> str:
    if count > len(rows):
        return f"{name}: the first {len(rows)} of {count:,}"
    return f"{name}: {count:,}"


# -- runs ------------------------------------------------------------------------------------------


def _run_context(pair: RunPair, requests: Mapping[str, EvalRequest]) -> dict[str, Any]:
    """Returns the values that the template names for a pair of runs."""
    comparison = pair.comparison
    notes: list[str] = []
    tokenizer = _tokenizer(pair.folder_a, notes)
    prompts = _prompts(pair, tokenizer, requests, notes)
    divergences = [
        _divergence(row, prompts.get(row.id), tokenizer) for row in comparison.divergences
    ]
    choices = [
        _choice(change, prompts.get(change.id), requests.get(str(change.id)))
        for change in comparison.choice_changes
    ]
    return {
        "name": pair.name,
        "comparison": comparison,
        "notes": notes,
        "facts": list(_facts(comparison)),
        "plots": list(_plots(pair)),
        "divergences": divergences,
        "divergence_summary": _first_of(
            "Rows whose completions differ", comparison.diverging, divergences
        ),
        "choices": choices,
        "choice_summary": _first_of(
            "Rows that prefer another choice", comparison.changed_choices, choices
        ),
    }


def _tokenizer(folder: RunFolder, notes: list[str]) -> Tokenizer | None:
    try:
        return run_tokenizer(folder)
    except GrokBatchError as error:
        notes.append(f"Texts without log-probs: the tokenizer is not readable: {bare(error)}")
        return None


def _prompts(
    pair: RunPair,
    tokenizer: Tokenizer | None,
    requests: Mapping[str, EvalRequest],
    notes: list[str],
) -> dict[Any, str]:
    """Returns the prompts of the listed rows; where there are none, notes why."""
    rows = [(row.shard, row.id) for row in pair.comparison.divergences]
    rows += [(row.shard, row.id) for row in pair.comparison.choice_changes]
    if not rows:
        return {}
    if requests:
        return {name: request.prompt for name, request in requests.items()}
    try:
        return read_prompts(pair.folder_a, rows, tokenizer)
    except GrokBatchError as error:
        notes.append(f"Rows without prompts: {bare(error)}")
        return {}


def _facts(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    """Yields name, value and note of each box."""
    common = comparison.common
    rows = f"{comparison.rows_a:,} in A, {comparison.rows_b:,} in B"
    yield "Rows of both", f"{common:,}", rows
    share = 0.0
    if common:
        share = comparison.diverging / common
    yield "Completions differ", f"{comparison.diverging:,}", f"{percent(share)} of the common rows"
    if comparison.positions:
        earliest = min(comparison.positions) + 1
        yield "Earliest difference", f"token {earliest:,}", "token 1 begins the completion"
    for name, differences_of in (
        ("Log-probs", comparison.logprob_differences),
        ("Scores", comparison.likelihood_differences),
    ):
        if differences_of.count:
            largest = f"{differences_of.largest:.2g}"
            note = f"{differences_of.not_zero:,} of {differences_of.count:,} differ"
            yield f"{name}, largest difference", largest, note
    if comparison.likelihood_differences.count:
        yield "Other choice preferred", f"{comparison.changed_choices:,}", "rows"
        yield "is_greedy changed", f"{comparison.changed_greedy:,}", "texts"
    changes = sum(comparison.status_changes.values())
    if changes:
        parts = []
        for (status_a, status_b), count in sorted(comparison.status_changes.items()):
            parts.append(f"{count:,} from {status_a} to {status_b}")
        yield "Status changed", f"{changes:,}", ", ".join(parts)


def _divergence(row: Divergence, prompt: str | None, tokenizer: Tokenizer | None) -> SideBySide:
    note = "no token ids"
    if row.position is not None:
        note = f"token {row.position + 1:,} is the first that differs"
    if row.sample_index:
        note = f"sample {row.sample_index}, {note}"
    end = None
    if prompt is not None:
        end = prompt_end(prompt)
    a = _completion(row.text_a, row.tokens_a, row.position, tokenizer)
    b = _completion(row.text_b, row.tokens_b, row.position, tokenizer)
    return SideBySide(bare(row.id), note, end, a, b)


def _completion(
    text: str | None, tokens: Tokens, position: int | None, tokenizer: Tokenizer | None
) -> Markup:
    """Returns a completion coloured by probability, the first token that differs marked."""
    uncoloured = text_block(shorten(text or "", MAX_CHARS))
    if tokenizer is None or not tokens:
        return uncoloured
    ids = [token for token, _ in tokens]
    pieces = token_bytes(tokenizer, ids)
    joined = b"".join(pieces).decode(errors="replace")
    if redact_credentials(joined) != joined:
        return uncoloured
    logprobs = [logprob for _, logprob in tokens]
    if position is None or position >= len(tokens):
        return coloured_tokens(text_pieces(pieces, logprobs))

    before = coloured_tokens(text_pieces(pieces[:position], logprobs[:position]))
    after = coloured_tokens(text_pieces(pieces[position + 1 :], logprobs[position + 1 :]))
    first = escape(_visible(pieces[position]))
    note = "no log-prob"
    logprob = logprobs[position]
    if logprob is not None and not math.isnan(logprob):
        note = f"log-prob {logprob:.3f}"
    return before + Markup('<mark title="{}">{}</mark>').format(note, first) + after


def _visible(piece: bytes) -> str:
    """Returns the text of a token so that one without letters can be seen."""
    text = piece.decode(errors="replace")
    if not text:
        return "(end)"
    return bare(text)


def _choice(change: ChoiceChange, prompt: str | None, request: EvalRequest | None) -> SideBySide:
    names = None
    note = f"choice {change.choice_a} in A, choice {change.choice_b} in B"
    if request is not None and request.choices:
        names = request.choices
        note = f"expected {bare(request.target)}"
    end = None
    if prompt is not None:
        end = prompt_end(prompt)
    a = _scores(change.scores_a, change.choice_a, names)
    b = _scores(change.scores_b, change.choice_b, names)
    return SideBySide(bare(change.id), note, end, a, b)


def _scores(scores: Sequence[float], preferred: int, names: Sequence[str] | None) -> Markup:
    lines = []
    for number, score in enumerate(scores):
        name = f"choice {number}"
        if names is not None and number < len(names):
            name = bare(names[number])
        line = escape(f"{score:9.4f}  {name}")
        if number == preferred:
            line = Markup("<mark>{}</mark>").format(line)
        lines.append(line)
    return Markup("\n").join(lines)


# -- plots -----------------------------------------------------------------------------------------


def _plots(pair: RunPair) -> Iterator[Plot]:
    comparison = pair.comparison
    prefix = "run"
    if pair.name:
        prefix = pair.name
    for name, title, unit, differences_of in (
        ("logprobs", "Differences of log-probs", "tokens", comparison.logprob_differences),
        ("scores", "Differences of scores", "texts", comparison.likelihood_differences),
    ):
        if differences_of.bins:
            yield difference_plot(f"{prefix}-{name}", title, unit, differences_of)
    if comparison.positions:
        counts: Counter[int] = Counter()
        for position, rows in comparison.positions.items():
            counts[length_bin(position + 1)] += rows
        yield lengths(
            f"{prefix}-positions",
            "First token that differs",
            histogram(counts),
            "Token 1 begins the completion: rows on the left differ early.",
        )


def difference_plot(name: str, title: str, unit: str, distribution: Distribution) -> Plot:
    """Plots the distribution of absolute differences over a logarithmic axis.

    Args:
        name: of the plot, unique on the page.
        title: of the plot.
        unit: what is counted, in the plural.
        distribution: with at least one finite difference that is not zero.
    """
    bars: Counter[int] = Counter()
    for number, count in distribution.bins.items():
        bars[math.ceil(number / BINS_PER_BAR)] += count
    ends = sorted(bars)
    width = BINS_PER_BAR / BINS_PER_DECADE

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        starts = [(end - 1) * width for end in ends]
        shares = [bars[end] / distribution.count for end in ends]
        axes.bar(starts, shares, width=0.92 * width, align="edge", color=IN)
        axes.set(xlabel="absolute difference (natural logarithm)", ylabel=f"share of {unit}")
        middle = (starts[0] + starts[-1] + width) / 2
        half = max(1.0, (starts[-1] + width - starts[0]) / 2)
        axes.set_xlim(middle - half - 0.1, middle + half + 0.1)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{10**value:.0e}"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))

    rows = [("0", f"{distribution.count - distribution.not_zero:,}")]
    for end in ends:
        label = f"{10 ** ((end - 1) * width):.2g} to {10 ** (end * width):.2g}"
        rows.append((label, f"{bars[end]:,}"))
    equal_share = 1 - distribution.not_zero / distribution.count
    quantiles = [f"{name} <= {value:.2g}" for name, value in distribution.quantiles().items()]
    return Plot(
        name=name,
        title=title,
        explanation=(
            f"{percent(equal_share)} of {distribution.count:,} {unit} are equal and not drawn. "
            f"Quantiles: {', '.join(quantiles)}."
        ),
        svg=svg(name, draw, 2.2, NARROW_WIDTH),
        header=("difference", unit),
        rows=tuple(rows),
    )
