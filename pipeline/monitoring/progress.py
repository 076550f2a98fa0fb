"""Completions and replica counters → snapshots while a run goes on (progress_line.py shows them), and report.json at its end.

`Progress` counts and tells events; stages call it, nobody reads rows twice. Knows no Ray, no files,
no text.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from actors.protocol.messages import Completion, ReplicaInfo, ReplicaStats
from pipeline.errors import ErrorBudgetError
from pipeline.monitoring.deprecated_keys import add_deprecated_keys
from pipeline.monitoring.length_bins import histogram, length_bin
from pipeline.monitoring.replica_use import ReplicaUse
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot
from pipeline.monitoring.timeline import Timeline
from pipeline.records import Passing
from pipeline.storage.redaction import redact_credentials

# error rows of each code in the report, and characters of their messages
EXAMPLES, EXAMPLE_CHARS = 3, 400
SERIES = (
    "rows",
    "prompt",
    "completion",
    "cached",
    "errors",
    "retries",
    "losses",
    "prefill_tokens",
    "prefill_positions",
    "busy_s",
)
WINDOW_S = 60.0  # tokens/s shown and used for the ETA are of the last minute
# a share says little about fewer rows: a small run goes to its end and is judged there
ROWS_BEFORE_EARLY_STOP = 1000


class Progress:
    """Counts one run.

    Fulfils dispatch's `DispatchWatcher`. One thread writes; others may read a snapshot at any time.
    """

    def __init__(
        self,
        rows_total: int,
        *,
        replicas: Callable[[], tuple[int, int]] = lambda: (0, 0),
        max_error_rows: float = math.inf,
        cost_per_replica_hour: float | None = None,
        note: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        log: RunLog | None = None,
    ) -> None:
        """Starts the clock, which `begin` starts again.

        `rows_total`: rows this driver has to run; `replicas` returns (up, wanted); `note` returns words for the progress line.
        `log` hears what happens to replicas, retries and shards; the pool tells of losses itself, with the cause in words.
        """
        self._rows_total, self._replicas, self._max_error_rows = (
            rows_total,
            replicas,
            max_error_rows,
        )
        self._cost_per_replica_hour, self._clock = cost_per_replica_hour, clock
        self._note, self._now, self._log = note, now, log or RunLog()
        self.ended_early = False
        self.begin()
        self._rows = 0.0
        self._error_rows = 0.0
        self._retries = 0
        self._tokens_in = self._tokens_out = self._cached = 0
        self._codes: Counter[str] = Counter()
        self._prompt_lengths: Counter[int] = Counter()
        self._completion_lengths: Counter[int] = Counter()
        self._examples: dict[str, list[dict[str, object]]] = {}
        self._timeline = Timeline()
        self._uses = ReplicaUse(self._timeline)
        self._committed = 0
        self._in_flight = 0

    def begin(self) -> None:
        """Starts the clock again: the replicas that were waited for are up, the first row comes."""
        self._began_s, self._began = self._clock(), self._now()
        self._samples = deque([(0.0, 0, 0)])  # (seconds, tokens in, tokens out), of the last minute
        self._seen = (0.0, self._began.timestamp())  # (rows, when a snapshot first saw so many)

    # -- what stages report ---------------------------------------------------------------------------------------------------

    def count(self, completions: Iterable[Completion | Passing]) -> Iterator[Completion | Passing]:
        """Yields the completions as they come, counted; all other items pass through.

        Raises:
            ErrorBudgetError: so many rows failed that the run cannot end within its error budget any more.
        """
        for completion in completions:
            if not isinstance(completion, Completion):
                yield completion
                continue
            self._count(completion)
            if completion.error_code is not None:
                self._count_error(completion)
            yield completion
            if self._rows >= ROWS_BEFORE_EARLY_STOP and self.over_budget:
                raise ErrorBudgetError(self.budget_message())

    def shard_committed(self, shard: int | None = None, rows: int = 0, errors: int = 0) -> None:
        """One more shard lies in the run folder, with so many rows and failed samples."""
        self._committed += 1
        self._log.event("shard_committed", shard=shard, rows=rows, errors=errors)

    def end_early(self) -> None:
        """Whoever watches the run has enough of it: the rows that are left are not missed."""
        self.ended_early = True

    def replica_ready(self, replica: str, info: ReplicaInfo | None) -> None:
        """A replica came up."""
        self._uses.ready(replica, info, self._elapsed_s)
        place: dict[str, Any] = (
            {"node": info.node, "load_s": round(info.load_s, 3), "mesh": info.mesh} if info else {}
        )
        self._log.event("replica_up", replica=replica, **place)

    def replica_lost(self, replica: str, reason: str) -> None:
        """A replica is gone."""
        self._uses.lost(replica, redact_credentials(reason), self._elapsed_s)

    def replica_retired(self, replica: str, reason: str) -> None:
        """A replica was let go; it held nothing."""
        self._uses.retired(replica, reason, self._elapsed_s)
        self._log.event("replica_retired", replica=replica, reason=reason)

    def replica_stats(self, replica: str, stats: ReplicaStats) -> None:
        """The counters of a replica, as of its last answer."""
        self._uses.stats(replica, stats, self._elapsed_s)

    def batch_retried(self, requests: int) -> None:
        """So many requests were queued again."""
        self._retries += requests
        self._timeline.add("retries", self._elapsed_s, requests)
        self._log.event("requests_retried", level="warning", requests=requests)

    def batches_in_flight(self, count: int) -> None:
        """So many batches are with replicas now."""
        self._in_flight = count

    # -- what people ask ------------------------------------------------------------------------------------------------------

    @property
    def error_rows(self) -> int:
        """Rows with at least one failed sample, as far as this driver ran them."""
        return round(self._error_rows + 0.4999)

    @property
    def over_budget(self) -> bool:
        """Whether more rows failed than may fail."""
        return self._error_rows > self._max_error_rows + 1e-6

    def budget_message(self) -> str:
        """Returns what to tell when the budget is exceeded."""
        codes = ", ".join(f"{code} {count}" for code, count in self._codes.most_common())
        return (
            f"{self.error_rows} of {self._rows_total} rows failed, more than the "
            f"{math.floor(self._max_error_rows)} that "
            f"--max-error-rate allows ({codes}); look at error_message in the output, correct the "
            "rows or raise --max-error-rate"
        )

    @property
    def replica_hours(self) -> float:
        """Hours that replicas were up, all of them together."""
        return self._uses.hours(self._elapsed_s)

    def snapshot(self) -> Snapshot:
        """Returns the figures of this moment."""
        elapsed_s = self._elapsed_s
        self._sample(elapsed_s)
        in_per_s, out_per_s = self._rates(elapsed_s)
        stats = self._uses.total()
        up, wanted = self._replicas()
        came_up, lost = self._uses.counts()
        return Snapshot(
            rows=round(self._rows),
            rows_total=self._rows_total,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            tokens_in_per_s=in_per_s,
            tokens_out_per_s=out_per_s,
            padding=1 - stats.prefill_tokens / stats.prefill_positions
            if stats.prefill_positions
            else 0.0,
            errors=self.error_rows,
            retries=self._retries,
            up=up,
            wanted=wanted,
            elapsed_s=elapsed_s,
            eta_s=self._eta_s(in_per_s + out_per_s),
            replica_hours=self.replica_hours,
            cost=self._cost(),
            cached=self._cached,
            codes=dict(self._codes),
            shards_committed=self._committed,
            in_flight=self._in_flight,
            came_up=came_up,
            lost=lost,
            progressed_at=self._progressed_at(),
            engine=stats,
            note=self._note(),
        )

    def report(self) -> dict[str, object]:
        """Returns the content of report.json; its size is bounded but for the list of replicas."""
        now, stats = self.snapshot(), self._uses.total()
        over_time = self._over_time(now.elapsed_s)
        return {
            "began_at": self._began.isoformat(timespec="seconds"),
            "ended_at": self._now().isoformat(timespec="seconds"),
            "rows": {
                "total": now.rows_total,
                "answered": now.rows,
                "failed": now.errors,
                "shards_committed": self._committed,
            },
            "tokens": {
                "prompt": self._tokens_in,
                "completion": self._tokens_out,
                "cached": self._cached,
            },
            "elapsed_s": now.elapsed_s,
            "tokens_per_s": {
                "prompt": self._tokens_in / now.elapsed_s if now.elapsed_s else 0.0,
                "completion": self._tokens_out / now.elapsed_s if now.elapsed_s else 0.0,
                "over_time": _rates_over_time(over_time),
            },
            "over_time": add_deprecated_keys(over_time),
            "padding": now.padding,
            "prefix_reuse": self._cached / self._tokens_in if self._tokens_in else 0.0,
            "prompt_length_histogram": histogram(self._prompt_lengths),
            "completion_length_histogram": histogram(self._completion_lengths),
            "retries": self._retries,
            "errors_by_code": dict(self._codes.most_common()),
            "error_examples": self._examples,
            "engine": add_deprecated_keys(asdict(stats)),
            "replicas": self._uses.report(now.elapsed_s),
            "replica_hours": now.replica_hours,
            "cost": now.cost,
        }

    # -- inside -----------------------------------------------------------------------------------------------------------------

    @property
    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s

    def _count(self, completion: Completion) -> None:
        at_s, share = self._elapsed_s, 1 / completion.ref.samples  # a row with n samples is one row
        self._rows += share
        if completion.error_code is not None:
            self._timeline.add("rows", at_s, share)
            return
        prompt = completion.prompt_tokens or 0
        cached = completion.cached_tokens or 0
        drawn, scored = len(completion.token_ids), sum(score.tokens for score in completion.scores)
        self._tokens_in += prompt + scored  # what is scored is read, not drawn
        self._tokens_out += drawn
        self._cached += cached
        self._timeline.add_all(
            {"rows": share, "prompt": prompt + scored, "completion": drawn, "cached": cached}, at_s
        )
        self._prompt_lengths[length_bin(prompt)] += 1
        self._completion_lengths[length_bin(drawn or scored)] += 1

    def _count_error(self, completion: Completion) -> None:
        code, ref = str(completion.error_code), completion.ref
        self._error_rows += 1 / ref.samples
        self._codes[code] += 1
        self._timeline.add("errors", self._elapsed_s, 1 / ref.samples)
        examples = self._examples.setdefault(code, [])
        if len(examples) < EXAMPLES:
            message = redact_credentials(completion.error_message or "")
            name = completion.row_id
            name = redact_credentials(name)[:EXAMPLE_CHARS] if isinstance(name, str) else name
            examples.append(
                {
                    "id": name,
                    "shard": ref.shard,
                    "row": ref.row,
                    "message": message
                    if len(message) <= EXAMPLE_CHARS
                    else message[: EXAMPLE_CHARS - 1] + "…",
                }
            )

    def _progressed_at(self) -> float:
        """Returns when rows last became more, as far as snapshots can tell: counting stays free of clocks."""
        rows, _ = self._seen
        if self._rows != rows:
            self._seen = (self._rows, self._now().timestamp())
        return self._seen[1]

    def _sample(self, elapsed_s: float) -> None:
        if elapsed_s - self._samples[-1][0] >= 1.0:
            self._samples.append((elapsed_s, self._tokens_in, self._tokens_out))
        while len(self._samples) > 1 and self._samples[1][0] <= elapsed_s - WINDOW_S:
            self._samples.popleft()

    def _rates(self, elapsed_s: float) -> tuple[float, float]:
        then_s, tokens_in, tokens_out = self._samples[0]
        span_s = elapsed_s - then_s
        return (
            ((self._tokens_in - tokens_in) / span_s, (self._tokens_out - tokens_out) / span_s)
            if span_s > 0
            else (0.0, 0.0)
        )

    def _over_time(self, now_s: float) -> dict[str, list[float]]:
        """Returns what happened in each of at most `MOST_SPANS` spans of time that end at `s`."""
        sums = {
            name: [round(value, 3) for value in self._timeline.sums(name, now_s)] for name in SERIES
        }
        return {
            "s": self._timeline.ends(now_s),
            **sums,
            "up_s": [round(up_s, 3) for up_s in self._uses.up_s(now_s)],
        }

    def _eta_s(self, tokens_per_s: float) -> float | None:
        done = self._tokens_in + self._tokens_out
        if not done or tokens_per_s <= 0:
            return None
        return (self._rows_total - self._rows) * (done / self._rows) / tokens_per_s

    def _cost(self) -> float | None:
        return (
            None
            if self._cost_per_replica_hour is None
            else self._uses.hours(self._elapsed_s) * self._cost_per_replica_hour
        )


def _rates_over_time(over_time: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    spans = zip(
        pairwise([0.0, *over_time["s"]]), over_time["prompt"], over_time["completion"], strict=True
    )
    return [
        {"s": ended, "prompt": prompt / (ended - began), "completion": completion / (ended - began)}
        for (began, ended), prompt, completion in spans
        if ended > began
    ]
