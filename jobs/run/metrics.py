"""Exports snapshots of a run as Ray metrics, which every node of the cluster offers to Prometheus.

docs/observability.md lists them. `METRICS` is the whole list; dashboard, alert rules and
documentation are tested against it. Ray adds the prefix `ray_` to every name. A counter stays on
its node's port when the driver is gone, a gauge disappears after some 20 s. Exporting costs nothing
per row: snapshots come every ten seconds.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

from jobs.run.report import ending
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.snapshot import Snapshot
from pipeline.storage.redaction import redact_credentials

PREFIX = "grok_batch_"
PRINTABLE_ASCII = "".join(map(chr, range(ord(" "), ord("~") + 1)))
MAX_TAG_CHARS = 255
CUT = "..."
STARTING_INTERVAL_S = 5.0  # between exports while replicas start


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    `value` reads it from a snapshot: None where it is unknown, a mapping by label where the metric
    has a label besides `run`.
    """

    name: str
    metric_type: Literal["counter", "gauge"]
    help: str
    value: Callable[[Snapshot], float | Mapping[str, float] | None]
    label: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels."""
        if self.label is None:
            return ("run",)
        return ("run", self.label)


METRICS = (
    Metric("rows_total", "counter", "Rows answered, failed ones included", lambda s: s.rows),
    Metric("rows_planned", "gauge", "Rows that this driver has to run", lambda s: s.rows_total),
    Metric("row_errors_total", "counter", "Rows that failed", lambda s: s.errors),
    Metric(
        "errors_total", "counter", "Samples that failed, by error code", lambda s: s.codes, "code"
    ),
    Metric(
        "shards_committed_total",
        "counter",
        "Output files that were committed",
        lambda s: s.shards_committed,
    ),
    Metric(
        "prompt_tokens_total",
        "counter",
        "Tokens read: prompts, scored texts, reused ones too",
        lambda s: s.tokens_in,
    ),
    Metric("completion_tokens_total", "counter", "Tokens generated", lambda s: s.tokens_out),
    Metric(
        "cached_tokens_total",
        "counter",
        "Tokens read that were not computed again",
        lambda s: s.cached,
    ),
    Metric(
        "prompt_tokens_per_second",
        "gauge",
        "Tokens read, of the last minute",
        lambda s: s.tokens_in_per_s,
    ),
    Metric(
        "completion_tokens_per_second",
        "gauge",
        "Tokens generated, of the last minute",
        lambda s: s.tokens_out_per_s,
    ),
    Metric(
        "padding_ratio",
        "gauge",
        "Share of computed prompt positions that held no token",
        lambda s: s.padding,
    ),
    Metric(
        "prefix_reuse_ratio",
        "gauge",
        "Share of the tokens read that were not computed again",
        lambda s: s.prefix_reuse,
    ),
    Metric(
        "request_retries_total", "counter", "Requests that were queued again", lambda s: s.retries
    ),
    Metric("batches_in_flight", "gauge", "Batches that replicas hold", lambda s: s.in_flight),
    Metric("replicas_up", "gauge", "Replicas that can take batches", lambda s: s.up),
    Metric(
        "replicas_wanted",
        "gauge",
        "Replicas that the run would use if the cluster had room",
        lambda s: s.wanted,
    ),
    Metric("replicas_started_total", "counter", "Replicas that came up", lambda s: s.came_up),
    Metric("replicas_lost_total", "counter", "Replicas that were lost", lambda s: s.lost),
    Metric(
        "replica_up_seconds_total",
        "counter",
        "Time that replicas were up, added up",
        lambda s: s.replica_hours * 3600,
    ),
    Metric(
        "replica_busy_seconds_total",
        "counter",
        "Time that replicas computed, without compilation",
        lambda s: s.engine.busy_s,
    ),
    Metric(
        "prefill_seconds_total",
        "counter",
        "Time in prefill and scoring",
        lambda s: s.engine.prefill_s,
    ),
    Metric("decode_seconds_total", "counter", "Time in decode", lambda s: s.engine.decode_s),
    Metric("compile_seconds_total", "counter", "Time in compilation", lambda s: s.engine.compile_s),
    Metric(
        "prefill_tokens_total",
        "counter",
        "Tokens computed by prefill and scoring",
        lambda s: s.engine.prefill_tokens,
    ),
    Metric(
        "prefill_positions_total",
        "counter",
        "The same with padding",
        lambda s: s.engine.prefill_positions,
    ),
    Metric(
        "prefill_calls_total",
        "counter",
        "Calls of the engine for prefill and scoring",
        lambda s: s.engine.prefill_calls,
    ),
    Metric(
        "decode_tokens_total",
        "counter",
        "Tokens drawn and kept by replicas",
        lambda s: s.engine.generated_tokens,
    ),
    Metric(
        "decode_positions_total",
        "counter",
        "Slots times steps, idle ones too",
        lambda s: s.engine.decode_positions,
    ),
    Metric(
        "decode_calls_total",
        "counter",
        "Calls of the engine for decode",
        lambda s: s.engine.decode_calls,
    ),
    Metric("elapsed_seconds", "gauge", "Time since this driver began", lambda s: s.elapsed_s),
    Metric(
        "eta_seconds",
        "gauge",
        "Time that the rest will take, from tokens and their rate",
        lambda s: s.eta_s,
    ),
    Metric(
        "last_progress_timestamp_seconds",
        "gauge",
        "When the last row was answered",
        lambda s: s.progressed_at,
    ),
    Metric(
        "cost_total",
        "counter",
        "Cost so far, in the currency of --cost-per-replica-hour",
        lambda s: s.cost,
    ),
)
# Not figures of a snapshot: what the run is, what it may cost, that it started and how it ended.
RUN_INFO = Metric("run_info", "gauge", "1; its labels say what the run is", lambda _: 1)
COST_BUDGET = Metric("cost_budget", "gauge", "What the run may cost: --cost-budget", lambda _: None)
RUNS_STARTED = Metric("runs_started_total", "counter", "Drivers that began", lambda _: None)
RUNS_ENDED = Metric(
    "runs_ended_total", "counter", "Drivers that ended, by outcome", lambda _: None, "outcome"
)
INFO_LABELS = ("output", "model", "task", "fingerprint")


def run_label(output: str) -> str:
    """Returns the name of a run in metrics and logs: its folder's, and a digest of its URL."""
    url = redact_credentials(output).rstrip("/")
    name = url.rsplit("/", 1)[-1]
    digest = hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()[:8]
    return tag_value(f"{name}-{digest}")


def tag_value(text: str) -> str:
    """Returns text as the value of a tag, for which Ray takes printable ASCII only.

    Other characters are percent-encoded, as in a URL; of long text the end is kept.
    """
    encoded = quote(text, safe=PRINTABLE_ASCII, errors="surrogateescape")
    if len(encoded) <= MAX_TAG_CHARS:
        return encoded
    return CUT + encoded[len(CUT) - MAX_TAG_CHARS :]


Register = Callable[[Metric, tuple[str, ...]], Any]


def register_with_ray(metric: Metric, labels: tuple[str, ...]) -> Any:
    """Returns Ray's counter or gauge for a metric."""
    from ray.util import metrics

    name = PREFIX + metric.name
    if metric.metric_type == "counter":
        return metrics.Counter(name, description=metric.help, tag_keys=labels)
    return metrics.Gauge(name, description=metric.help, tag_keys=labels)


class RunMetrics:
    """The metrics of one driver.

    As a context manager around the run it also counts how the run ended.
    """

    def __init__(
        self,
        progress: Progress,
        info: Mapping[str, str],
        *,
        cost_budget: float | None = None,
        register: Register = register_with_ray,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Registers the metrics; Ray must be connected.

        Args:
            progress: figures of the run.
            info: the labels of `run_info`; `output` is the run folder.
            cost_budget: --cost-budget.
            register: creates a counter or gauge with the given labels.
            now: clock, seconds.
        """
        self._progress = progress
        self._cost_budget = cost_budget
        self._now = now
        self._run = {"run": run_label(info["output"])}
        self._info = dict(self._run)
        for name in INFO_LABELS:
            self._info[name] = tag_value(redact_credentials(info[name]))

        self._exported: dict[tuple[str, str], float] = {}  # values of counters, by name and label
        self._metrics = {RUN_INFO.name: register(RUN_INFO, ("run", *INFO_LABELS))}
        for metric in (*METRICS, COST_BUDGET, RUNS_STARTED, RUNS_ENDED):
            self._metrics[metric.name] = register(metric, metric.labels)

    def __enter__(self) -> "RunMetrics":
        self._metrics[RUNS_STARTED.name].inc(1, tags=self._run)
        self.publish(self._progress.snapshot())
        return self

    def __exit__(
        self,
        error_class: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.publish(self._progress.snapshot())
        outcome = ending(self._progress, error)["status"]
        self._metrics[RUNS_ENDED.name].inc(1, tags=self._run | {"outcome": outcome})

    def published_until(self, ended: Callable[[], bool]) -> Callable[[], bool]:
        """Returns `ended`, extended: calls also publish the current figures every few seconds.

        Nothing else publishes while replicas start.
        """
        due_s = self._now()

        def publish_and_check() -> bool:
            nonlocal due_s
            if self._now() >= due_s:
                due_s = self._now() + STARTING_INTERVAL_S
                self.publish(self._progress.snapshot())
            return ended()

        return publish_and_check

    def publish(self, snapshot: Snapshot) -> None:
        """Exports the figures of a snapshot."""
        self._metrics[RUN_INFO.name].set(1, tags=self._info)
        if self._cost_budget is not None:
            self._metrics[COST_BUDGET.name].set(self._cost_budget, tags=self._run)

        for metric in METRICS:
            value = metric.value(snapshot)
            values = value if isinstance(value, Mapping) else {"": value}
            for label, number in values.items():
                if number is not None:
                    self._export(metric, label, float(number))

    def _export(self, metric: Metric, label: str, value: float) -> None:
        tags = dict(self._run)
        if metric.label is not None:
            tags[metric.label] = label
        if metric.metric_type == "gauge":
            self._metrics[metric.name].set(value, tags=tags)
            return

        increase = value - self._exported.get((metric.name, label), 0.0)
        if increase > 0:
            self._metrics[metric.name].inc(increase, tags=tags)
            self._exported[metric.name, label] = value
