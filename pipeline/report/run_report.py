"""Renders report.json as report.html, one page that needs neither network nor scripts.

The size of the page is bounded for runs of any size. Every figure on it is in report.json
or follows from figures there.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.monitoring.deprecated_keys import rename_deprecated_keys
from pipeline.monitoring.window_counts import WindowCounts
from pipeline.report import answer_plots
from pipeline.report.drawing import Plot
from pipeline.report.figures import compact, duration, idle_tails, percent, quantile
from pipeline.report.page import Status, render_template, text
from pipeline.report.plots import (
    capacity,
    failures,
    lengths,
    replica_map,
    shares,
    tail,
    throughput,
)

MAX_REASONS = 12  # rows of the table of lost replicas
MAX_NODES = 3  # of the replicas that were lost for one reason
# beyond these, the page has a remark about the figure
HIGH_PADDING = 0.05
LOW_UTILISATION = 0.9
HIGH_TAIL = 0.05
HIGH_COMPILE = 0.1
Report = Mapping[str, Any]
Replica = Mapping[str, Any]


STATUS = {
    "complete": Status("complete", "good"),
    "row_errors": Status("complete, some rows failed", "warn"),
    "enough": Status("ended early, with enough rows", "good"),
    "over_budget": Status("stopped: too many rows failed", "bad"),
    "interrupted": Status("interrupted: the same command continues it", "warn"),
    "failed": Status("failed", "bad"),
}


def render(report: Report) -> str:
    """Returns the page for the content of report.json.

    Args:
        report: as from `Progress.report`, plus optionally `status` (a key of `STATUS`), `message`
            (why it ended early) and `run`: what was run, with `fingerprint`, `config`, `versions`
            and `git_commit`.
    """
    return render_template("run_report.html.j2", **context_of(rename_deprecated_keys(report)))


def context_of(report: Report) -> dict[str, Any]:
    """Returns the values that the template names."""
    run = report.get("run") or {}
    config = run.get("config") or {}
    losses, loss_reasons = _losses(report["replicas"], _start_s(report))
    return {
        "report": report,
        "run": run,
        "config": config,
        "title": _title(config),
        "status": STATUS.get(report.get("status", "")),
        "message": report.get("message"),
        "partition": _partition(config),
        "shards_before": _shards_before(run),
        "began_at": _moment(report["began_at"]),
        "ended_at": _moment(report["ended_at"]),
        "cards": list(_cards(report)),
        "remarks": list(_remarks(report)),
        "samples": report.get("samples", ()),
        "answer_plots": list(_answer_plots(report)),
        "ready_s": report.get("ready_s"),
        "throughput_plots": _throughput_plots(report),
        "length_plots": list(_length_plots(report)),
        "replica_plots": _replica_plots(report),
        "tail_share": _tail_share(report),
        "losses": losses,
        "loss_reasons": loss_reasons,
        "failure_plot": failures(report["over_time"], _start_s(report)),
        "error_counts": _error_counts(report),
        "error_examples": list(_error_examples(report)),
        "engine_times": _engine_times(report),
        "cost": _cost(report),
        "flags": list(_flags(config)),
        "versions": _versions(run),
    }


# -- header ----------------------------------------------------------------------------------------


def _title(config: Mapping[str, Any]) -> str:
    if not config:
        return "run"
    return f"{config['model']}, {config['task']}"


def _partition(config: Mapping[str, Any]) -> dict[str, int] | None:
    index, count = str(config.get("partition") or "0/1").split("/")
    if count == "1":
        return None
    return {"index": int(index), "count": int(count)}


def _shards_before(run: Mapping[str, Any]) -> int:
    """Returns how many shards of the run were committed before this driver began."""
    if not run:
        return 0
    before: int = run["shards"]["own"] - run["shards"]["to_do"]
    return before


def _moment(iso: str) -> str:
    return iso.replace("T", " ").replace("+00:00", " UTC")


def _cards(report: Report) -> Iterator[tuple[str, str, str]]:
    rows = report["rows"]
    tokens = report["tokens"]
    per_s = report["tokens_per_s"]
    failed_share = 0.0
    if rows["answered"]:
        failed_share = rows["failed"] / rows["answered"]
    committed = f"{rows['shards_committed']:,} shards committed"

    total_s = _start_s(report) + report["elapsed_s"]
    start = f"{duration(_start_s(report))} of it before the first batch"
    yield "Time", duration(total_s), start
    yield "Rows answered", f"{rows['answered']:,}", f"of {rows['total']:,} to do; {committed}"
    yield "Rows failed", f"{rows['failed']:,}", f"{percent(failed_share)} of the answered ones"
    yield "Tokens read", compact(tokens["prompt"]), f"{per_s['prompt']:,.0f} per s"
    yield "Tokens generated", compact(tokens["completion"]), f"{per_s['completion']:,.0f} per s"
    yield "Padding", percent(report["padding"]), "of computed prompt positions"
    reused = f"{compact(tokens['cached'])} tokens not computed again"
    yield "Prefix reuse", percent(report["prefix_reuse"]), reused
    yield "Replicas busy", percent(_busy_share(report)), "of the time they were up"
    yield "Replica time", duration(_up_s(report)), f"{_hours(report)} replica-hours"
    lost = f"{_lost_count(report):,} replicas lost"
    yield "Requests run again", f"{report['retries']:,}", lost
    if report["cost"] is not None:
        yield "Cost", f"{report['cost']:,.2f}", _cost_per_token(report)


def _cost_per_token(report: Report) -> str:
    tokens = report["tokens"]["prompt"] + report["tokens"]["completion"]
    if not tokens:
        return "no tokens"
    return f"{1e6 * report['cost'] / tokens:,.3g} per million tokens"


def _remarks(report: Report) -> Iterator[str]:
    """Yields remarks about unusual values; `Markup` if they have elements."""
    rows = report["rows"]
    codes = report["errors_by_code"]
    unanswered = rows["total"] - rows["answered"]
    if unanswered > 0 and report.get("status") != "enough":
        yield f"{unanswered:,} rows were not answered; the same command continues the run."
    if codes:
        code, count = next(iter(codes.items()))
        yield Markup(
            "{:,} rows failed, most often with <code>{}</code> ({:,}): see “Errors by code”."
        ).format(rows["failed"], text(code), count)
    lost = _lost_count(report)
    if lost:
        yield (
            f"{lost:,} replicas were lost, and {report['retries']:,} requests ran again on others."
        )
    if report["padding"] > HIGH_PADDING:
        yield (
            f"Padding is {percent(report['padding'])} of computed prompt positions: short prompts "
            "fill compiled shapes least."
        )
    windows = WindowCounts(**report.get("windows", {}))
    if windows.windows:
        yield f"Long texts: {windows.text}; a larger --window-stride computes fewer."
    busy_share = _busy_share(report)
    if busy_share < LOW_UTILISATION:
        yield (
            f"Replicas were busy for {percent(busy_share)} of their time: see “Replicas” for when "
            "they were not."
        )
    tail_share = _tail_share(report)
    if tail_share > HIGH_TAIL:
        yield (
            f"{percent(tail_share)} of the replicas' time went by after they had run dry, waiting "
            "for the last one."
        )
    compile_share = _share_of_up_time(report, report["engine"]["compile_s"])
    if compile_share > HIGH_COMPILE:
        yield (
            f"Compilation took {percent(min(compile_share, 1))} of the replicas' time: compiled "
            "programs are kept in ~/.cache/grok-batch/jax, or at the folder or URL that "
            "JAX_COMPILATION_CACHE_DIR names, which saves most of it the next time."
        )


# -- plots -----------------------------------------------------------------------------------------


def _answer_plots(report: Report) -> Iterator[Plot]:
    """Yields plots of what was answered; reports of earlier versions do not have their figures."""
    reasons = report.get("finish_reasons")
    if reasons:
        yield answer_plots.finish_reasons(reasons)
    for key, name, title, unit in (
        ("logprob_histogram", "logprobs", "Log-probs of generated tokens", "tokens"),
        (
            "score_logprob_histogram",
            "score-logprobs",
            "Log-prob per token of scored texts",
            "texts",
        ),
    ):
        histogram = report.get(key)
        if histogram:
            yield answer_plots.logprobs(name, title, unit, histogram)


def _throughput_plots(report: Report) -> list[Plot]:
    if not report["tokens"]["prompt"]:
        return []
    over_time = report["over_time"]
    start_s = _start_s(report)
    return [throughput(over_time, start_s), shares(over_time, start_s)]


def _length_plots(report: Report) -> Iterator[Plot]:
    for name, title, texts in (
        ("prompt", "Prompt lengths", "prompts"),
        ("completion", "Completion lengths", "completions (scored texts)"),
    ):
        histogram = report[f"{name}_length_histogram"]
        if histogram:
            median = quantile(histogram, 0.5)
            percentile_99 = quantile(histogram, 0.99)
            explanation = (
                f"Half of the {texts} have up to {median:,} tokens, "
                f"99\u00a0% up to {percentile_99:,}. Four bars to each doubling."
            )
            yield lengths(f"{name}-lengths", title, histogram, explanation)


def _replica_plots(report: Report) -> list[Plot]:
    replicas = report["replicas"]
    if not replicas:
        return []
    over_time = report["over_time"]
    start_s = _start_s(report)
    plots = [
        capacity(over_time, start_s),
        replica_map(over_time, replicas, start_s),
        tail(replicas, report["elapsed_s"]),
    ]
    return [plot for plot in plots if plot is not None]


# -- tables ----------------------------------------------------------------------------------------


def _losses(replicas: Sequence[Replica], start_s: float) -> tuple[list[tuple[str, ...]], int]:
    """Returns a row for each of the most frequent reasons of losses, and the number of reasons.

    Reasons that differ in numbers only are one.
    """
    by_reason: dict[str, list[Replica]] = {}
    for replica in replicas:
        if replica["lost"] is not None:
            reason = re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "#", replica["lost"])
            by_reason.setdefault(reason, []).append(replica)

    most_frequent = sorted(by_reason.values(), key=len, reverse=True)[:MAX_REASONS]
    return [_loss_row(lost, start_s) for lost in most_frequent], len(by_reason)


def _loss_row(lost: Sequence[Replica], start_s: float) -> tuple[str, ...]:
    return f"{len(lost):,}", _loss_times(lost, start_s), _loss_nodes(lost), lost[0]["lost"]


def _loss_times(lost: Sequence[Replica], start_s: float) -> str:
    """Returns when replicas were lost, since the job began."""
    first = duration(start_s + lost[0]["since_s"] + lost[0]["up_s"])
    if len(lost) == 1:
        return first
    last = duration(start_s + lost[-1]["since_s"] + lost[-1]["up_s"])
    return f"{first} to {last}"


def _loss_nodes(lost: Sequence[Replica]) -> str:
    distinct_nodes: dict[str, None] = {}  # in the order of the losses
    for replica in lost:
        if replica["info"]:
            distinct_nodes[str(replica["info"]["node"])] = None
    nodes = list(distinct_nodes)
    names = ", ".join(nodes[:MAX_NODES])
    if len(nodes) <= MAX_NODES:
        return names
    return f"{names} and {len(nodes) - MAX_NODES:,} more"


def _error_counts(report: Report) -> list[tuple[str, str, str]]:
    codes = report["errors_by_code"]
    total = sum(codes.values())
    return [(code, f"{count:,}", percent(count / total)) for code, count in codes.items()]


def _error_examples(report: Report) -> Iterator[tuple[str, object, str, str]]:
    for code in report["errors_by_code"]:
        for example in report["error_examples"][code]:
            row_id = example["id"]
            if row_id is None:
                row_id = "–"
            address = f"part-{example['shard']:05d}, row {example['row']:,}"
            yield code, row_id, address, example["message"]


def _engine_times(report: Report) -> list[tuple[str, str, str]]:
    stats = report["engine"]
    padding = percent(report["padding"])
    slots_used = math.nan
    if stats["decode_positions"]:
        slots_used = stats["generated_tokens"] / stats["decode_positions"]

    busy = f"{percent(_busy_share(report))} of the time they were up"
    prefill = f"{stats['prefill_tokens']:,} tokens computed, {padding} padding"
    decode = (
        f"{stats['generated_tokens']:,} tokens drawn, by {percent(slots_used)} of slots × steps"
    )
    return [
        ("Up", duration(_up_s(report)), f"{_hours(report)} replica-hours"),
        ("Busy", duration(stats["busy_s"]), busy),
        ("In prefill and scoring", duration(stats["prefill_s"]), prefill),
        ("In decode", duration(stats["decode_s"]), decode),
        (
            "In compilation, not part of these",
            duration(stats["compile_s"]),
            _describe_programs(stats),
        ),
        (
            "Loading the model",
            _slowest_load(report["replicas"]),
            "the slowest replica; before it counted as up",
        ),
    ]


def _describe_programs(stats: Mapping[str, Any]) -> str:
    """Returns how many programs replicas made ready, and in which time."""
    description = f"waiting for {stats['programs']:,} programs"
    # Reports of earlier versions do not have the rest.
    if "program_s" in stats:
        description += (
            f", {stats['programs_cached']:,} of them from the cache; "
            f"{duration(stats['program_s'])} in all threads"
        )
    return description


def _slowest_load(replicas: Sequence[Replica]) -> str:
    load_s = [replica["info"]["load_s"] for replica in replicas if replica["info"]]
    if not load_s:
        return "–"
    return duration(max(load_s))


def _cost(report: Report) -> str | None:
    if report["cost"] is None:
        return None
    return f"{report['cost']:,.2f}"


def _flags(config: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in config.items():
        if value is not None:
            yield name.replace("_", "-"), value


def _versions(run: Mapping[str, Any]) -> list[tuple[str, object]]:
    if not run:
        return []
    return [*run["versions"].items(), ("git commit", run["git_commit"])]


# -- figures ---------------------------------------------------------------------------------------


def _start_s(report: Report) -> float:
    """Returns the time before the first batch; 0 in reports of earlier versions."""
    return report.get("ready_s") or 0.0


def _lost_count(report: Report) -> int:
    lost = [replica for replica in report["replicas"] if replica["lost"] is not None]
    return len(lost)


def _up_s(report: Report) -> float:
    up_s: float = 3600 * report["replica_hours"]
    return up_s


def _hours(report: Report) -> str:
    hours = report["replica_hours"]
    if hours >= 10:
        return f"{hours:,.1f}"
    return f"{hours:.3g}"


def _share_of_up_time(report: Report, seconds: float) -> float:
    up_s = _up_s(report)
    if not up_s:
        return 0.0
    return seconds / up_s


def _busy_share(report: Report) -> float:
    return min(1.0, _share_of_up_time(report, report["engine"]["busy_s"]))


def _tail_share(report: Report) -> float:
    """Returns the share of the replicas' time that came after their last answer."""
    idle_s = sum(idle_s for _, idle_s in idle_tails(report["replicas"]))
    return _share_of_up_time(report, idle_s)
