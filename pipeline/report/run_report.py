"""The content of report.json → report.html: one page that needs nothing else, neither network nor script.

Every text that comes from data, replicas or the configuration is escaped. Size is bounded whatever
the size of the run. Knows no files, and computes nothing that is not in report.json.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.monitoring.deprecated_keys import rename_deprecated_keys
from pipeline.report.figures import compact, duration, idle_tails, percent, quantile
from pipeline.report.page import cards, figure, page, remarks, table, text
from pipeline.report.plots import capacity, lengths, replica_map, shares, tail, throughput, troubles

MOST_REASONS = 12  # rows of the table of lost replicas
STATUS = {
    "complete": ("complete", "good"),
    "row_errors": ("complete, some rows failed", "warn"),
    "enough": ("ended early, with enough rows", "good"),
    "over_budget": ("stopped: too many rows failed", "bad"),
    "interrupted": ("interrupted: the same command continues it", "warn"),
    "failed": ("failed", "bad"),
}
# beyond these a figure is pointed out
HIGH_PADDING, LOW_UTILISATION, HIGH_TAIL, HIGH_COMPILE = 0.05, 0.9, 0.05, 0.1
Report = Mapping[str, Any]


def render(report: Report) -> str:
    """Returns the page for the content of report.json.

    Args:
        report: as from `Progress.report`, plus optionally `status` (a key of `STATUS`), `message` (why it ended early) and
            `run`: what was run, with `fingerprint`, `config`, `versions`, `git_commit`; URLs in it without credentials.
    """
    report = rename_deprecated_keys(report)
    config = report.get("run", {}).get("config", {})
    title = (
        f"Run report: {text(config.get('model', 'run'))}, {text(config.get('task', ''))}".rstrip(
            ", "
        )
    )
    sections = (
        _header(report),
        _cards(report),
        remarks(_worth_a_look(report)),
        _rates(report),
        _lengths(report),
        _replicas(report),
    )
    body = "\n".join((*sections, _failures(report), _engine(report), _run(report)))
    return page(title, body)


# -- sections -------------------------------------------------------------------------------------------------------------------


def _header(report: Report) -> str:
    run, config = report.get("run", {}), report.get("run", {}).get("config", {})
    before = run["shards"]["own"] - run["shards"]["to_do"] if run else 0
    words, color = STATUS.get(report.get("status", ""), ("", ""))
    badge = f'<span class="status {color}">{words}</span>' if words else ""
    message = f'<p class="{color}">{text(report["message"])}</p>' if report.get("message") else ""
    index, count = str(config.get("partition") or "0/1").split("/")
    part = (
        f", partition {int(index)} of {int(count)} (this report is of it alone)"
        if count != "1"
        else ""
    )
    facts = {
        "Run": f"model {text(config['model'])}, task {text(config['task'])}{part}"
        if config
        else None,
        "Input": text(config["input"]) if config else None,
        "Output": text(config["output"]) if config else None,
        "Fingerprint": f"<code>{text(run['fingerprint'])}</code>" if run else None,
        "Resumed": f"{before:,} of {run['shards']['own']:,} shards were there before; the figures are of the rest"
        if before
        else None,
        "Time": f"{_moment(report['began_at'])} to {_moment(report['ended_at'])}: {duration(report['elapsed_s'])} from the first "
        "replica to the end of the run",
    }
    lines = "".join(f"<p><b>{name}</b> {value}</p>" for name, value in facts.items() if value)
    return f"<header>\n<h1>Run report {badge}</h1>\n{message}{lines}</header>"


def _cards(report: Report) -> str:
    rows, tokens, rates = report["rows"], report["tokens"], report["tokens_per_s"]
    failed = rows["failed"] / rows["answered"] if rows["answered"] else 0.0
    lost = sum(replica["lost"] is not None for replica in report["replicas"])
    up_s = 3600 * report["replica_hours"]
    entries = [
        (
            "Rows answered",
            f"{rows['answered']:,}",
            f"of {rows['total']:,} to do; {rows['shards_committed']:,} shards committed",
        ),
        ("Rows failed", f"{rows['failed']:,}", percent(failed) + " of the answered ones"),
        ("Tokens read", compact(tokens["prompt"]), f"{rates['prompt']:,.0f} per s"),
        ("Tokens generated", compact(tokens["completion"]), f"{rates['completion']:,.0f} per s"),
        ("Padding", percent(report["padding"]), "of computed prompt positions"),
        (
            "Prefix reuse",
            percent(report["prefix_reuse"]),
            f"{compact(tokens['cached'])} tokens not computed again",
        ),
        ("Replicas busy", percent(_busy_share(report)), "of the time they were up"),
        ("Replica time", duration(up_s), f"{_hours(report)} replica-hours"),
        ("Requests run again", f"{report['retries']:,}", f"{lost:,} replicas lost"),
    ]
    if report["cost"] is not None:
        read_and_drawn = tokens["prompt"] + tokens["completion"]
        each = (
            f"{1e6 * report['cost'] / read_and_drawn:,.3g} per million tokens"
            if read_and_drawn
            else "no tokens"
        )
        entries.append(("Cost", f"{report['cost']:,.2f}", each))
    return cards(entries)


def _worth_a_look(report: Report) -> Iterator[str]:
    rows, codes = report["rows"], report["errors_by_code"]
    if rows["answered"] < rows["total"] and report.get("status") != "enough":
        yield f"{rows['total'] - rows['answered']:,} rows were not answered; the same command continues the run."
    if codes:
        code, count = next(iter(codes.items()))
        yield f"{rows['failed']:,} rows failed, most often with <code>{text(code)}</code> ({count:,}): see “Errors by code”."
    if lost := sum(replica["lost"] is not None for replica in report["replicas"]):
        yield f"{lost:,} replicas were lost, and {report['retries']:,} requests ran again on others."
    if report["padding"] > HIGH_PADDING:
        yield f"Padding is {percent(report['padding'])} of computed prompt positions: short prompts fill compiled shapes least."
    if (busy := _busy_share(report)) < LOW_UTILISATION:
        yield f"Replicas were busy for {percent(busy)} of their time: see “Replicas” for when they were not."
    if (idle := _tail_share(report)) > HIGH_TAIL:
        yield f"{percent(idle)} of the replicas' time went by after they had run dry, waiting for the last one."
    compiling = (
        report["engine"]["compile_s"] / (3600 * report["replica_hours"])
        if report["replica_hours"]
        else 0.0
    )
    if compiling > HIGH_COMPILE:
        yield (
            f"Compilation took {percent(min(compiling, 1))} of the replicas' time: a persistent "
            "JAX compilation cache "
            "(JAX_COMPILATION_CACHE_DIR) saves most of it the next time."
        )


def _rates(report: Report) -> str:
    if not report["tokens"]["prompt"]:
        return "<h2>Throughput</h2><p>No row was answered with tokens.</p>"
    over = report["over_time"]
    return f"<h2>Throughput</h2>{figure(throughput(over))}{figure(shares(over))}"


def _lengths(report: Report) -> str:
    plots = []
    for name, title, what in (
        ("prompt-lengths", "Prompt lengths", "prompts"),
        ("completion-lengths", "Completion lengths", "completions (scored texts)"),
    ):
        if histogram := report[f"{name.removesuffix('s').replace('-', '_')}_histogram"]:
            half, most = quantile(histogram, 0.5), quantile(histogram, 0.99)
            words = f"Half of the {what} have up to {half:,} tokens, 99\u00a0% up to {most:,}. Areas are numbers of samples."
            plots.append(figure(lengths(name, title, histogram, words)))
    return f'<h2>Lengths</h2><div class="pair">{"".join(plots)}</div>' if plots else ""


def _replicas(report: Report) -> str:
    over, replicas = report["over_time"], report["replicas"]
    plots = (
        (capacity(over), replica_map(over, replicas), tail(replicas, report["elapsed_s"]))
        if replicas
        else ()
    )
    drawn = "".join(figure(plot) for plot in plots if plot)
    last = (
        "<p>After their last answer, replicas waited for the end for "
        f"{percent(_tail_share(report))} of their time.</p>"
        if len(replicas) > 1
        else ""
    )
    return f"<h2>Replicas</h2>{drawn or '<p>No replica came up.</p>'}{last}{_losses(replicas)}"


def _losses(replicas: Sequence[Mapping[str, Any]]) -> str:
    """Lost replicas by reason; reasons that differ in numbers only are one."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for replica in replicas:
        if replica["lost"] is not None:
            kinds.setdefault(re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "#", replica["lost"]), []).append(
                replica
            )
    if not kinds:
        return ""
    most = sorted(kinds.values(), key=len, reverse=True)[:MOST_REASONS]
    rows = [(f"{len(lost):,}", _moments(lost), _places(lost), lost[0]["lost"]) for lost in most]
    more = (
        f"<p>The {MOST_REASONS} most frequent of {len(kinds):,} reasons.</p>"
        if len(kinds) > MOST_REASONS
        else ""
    )
    return f"<h3>Lost replicas</h3>{more}{table(('lost', 'at', 'on nodes', 'reason, of the first'), rows)}"


def _moments(lost: Sequence[Mapping[str, Any]]) -> str:
    ends = [duration(replica["since_s"] + replica["up_s"]) for replica in lost]
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def _places(lost: Sequence[Mapping[str, Any]]) -> str:
    nodes = list(dict.fromkeys(str(replica["info"]["node"]) for replica in lost if replica["info"]))
    return ", ".join(nodes[:3]) + (f" and {len(nodes) - 3:,} more" if len(nodes) > 3 else "")


def _failures(report: Report) -> str:
    plot = troubles(report["over_time"])
    codes = report["errors_by_code"]
    if not codes:
        return f"<h2>Errors and retries</h2>{figure(plot) if plot else ''}<p>No row failed.</p>"
    total = sum(codes.values())
    counts = table(
        ("code", "samples", "share"),
        [(code, f"{count:,}", percent(count / total)) for code, count in codes.items()],
    )
    examples = [
        (
            code,
            "–" if each["id"] is None else each["id"],
            f"part-{each['shard']:05d}, row {each['row']:,}",
            each["message"],
        )
        for code in codes
        for each in report["error_examples"][code]
    ]
    shown = table(("code", "row id", "where", "message"), examples)
    return (
        f"<h2>Errors and retries</h2>{figure(plot) if plot else ''}<h3>Errors by code</h3>{counts}"
        "<h3>The first of each code</h3><p class='soft'>All are in the output: rows with "
        "<code>status = 'error'</code>.</p>"
        f"{shown}"
    )


def _engine(report: Report) -> str:
    stats, hours, padded = report["engine"], report["replica_hours"], percent(report["padding"])
    drawn = percent(
        stats["generated_tokens"] / stats["decode_positions"]
        if stats["decode_positions"]
        else math.nan
    )
    loads = [replica["info"]["load_s"] for replica in report["replicas"] if replica["info"]]
    rows = [
        ("Up", duration(3600 * hours), f"{_hours(report)} replica-hours"),
        (
            "Busy",
            duration(stats["busy_s"]),
            f"{percent(_busy_share(report))} of the time they were up",
        ),
        (
            "In prefill and scoring",
            duration(stats["prefill_s"]),
            f"{stats['prefill_tokens']:,} tokens computed, {padded} padding",
        ),
        (
            "In decode",
            duration(stats["decode_s"]),
            f"{stats['generated_tokens']:,} tokens drawn, by {drawn} of slots × steps",
        ),
        (
            "In compilation, part of these",
            duration(stats["compile_s"]),
            f"{stats['programs']:,} programs",
        ),
        (
            "Loading the model",
            duration(max(loads)) if loads else "–",
            "the slowest replica; before it counted as up",
        ),
    ]
    cost = (
        ""
        if report["cost"] is None
        else f"<p>Cost: {report['cost']:,.2f}, at --cost-per-replica-hour for the time up.</p>"
    )
    return f"<h2>Where the replicas' time went</h2>{table(('all replicas together', 'time', 'work'), rows)}{cost}"


def _run(report: Report) -> str:
    run = report.get("run")
    if not run:
        return ""
    config = [
        (name.replace("_", "-"), value)
        for name, value in run["config"].items()
        if value is not None
    ]
    versions = [*run["versions"].items(), ("git commit", run["git_commit"])]
    return (
        "<h2>What was run</h2><p>Everything that is needed to run it again is in run.json.</p>"
        f"<details><summary>Configuration</summary>{table(('flag', 'value'), config)}</details>"
        f"<details><summary>Versions</summary>{table(('of', 'version'), versions)}</details>"
    )


# -- parts ----------------------------------------------------------------------------------------------------------------------


def _hours(report: Report) -> str:
    hours = report["replica_hours"]
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3g}"


def _moment(iso: str) -> str:
    return text(iso.replace("T", " ").replace("+00:00", " UTC"))


def _busy_share(report: Report) -> float:
    up_s = 3600 * report["replica_hours"]
    return min(1.0, report["engine"]["busy_s"] / up_s) if up_s else 0.0


def _tail_share(report: Report) -> float:
    """Which share of the replicas' time went by after their last answer, at the end of the run."""
    up_s = 3600 * report["replica_hours"]
    return sum(idle_s for _, idle_s in idle_tails(report["replicas"])) / up_s if up_s else 0.0
