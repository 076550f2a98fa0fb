"""Completions and replica counters → what a person sees while a run goes on, and report.json at its end.

`Progress` counts; stages call it, nobody reads rows twice. A `ProgressLine` shows its snapshot: one live line on a terminal, a
plain line every 10 s elsewhere, and whatever sinks are given (Ray metrics, made in jobs). Knows no Ray, no files, no text.
"""

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from actors.messages import Completion, ReplicaInfo, ReplicaStats
from pipeline.errors import ErrorBudgetError

MOST_SAMPLES = 1000  # points of tokens/s over time in the report; beyond that every second one is dropped
WINDOW_S = 60.0  # tokens/s shown and used for the ETA are of the last minute
ROWS_BEFORE_EARLY_STOP = 1000  # a share says little about fewer rows: a small run goes to its end and is judged there


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one moment. Rates are of the last minute, all else is since the start of this driver."""

    rows: int  # rows answered, error rows included
    rows_total: int
    tokens_in: int
    tokens_out: int
    tokens_in_per_s: float
    tokens_out_per_s: float
    padding: float  # share of computed prompt positions that held no token
    errors: int  # rows
    retries: int  # requests queued again
    up: int
    wanted: int
    elapsed_s: float
    eta_s: float | None
    replica_hours: float
    cost: float | None

    def line(self) -> str:
        """Returns the figures as one line of text."""
        parts = [
            f"rows {self.rows:,}/{self.rows_total:,}",
            f"tokens/s in {self.tokens_in_per_s:,.0f} out {self.tokens_out_per_s:,.0f}",
            f"padding {self.padding:.1%}",
            f"errors {self.errors:,}",
            f"replicas {self.up}/{self.wanted}",
            f"ETA {_duration(self.eta_s)}",
        ]
        if self.retries:
            parts.insert(4, f"retries {self.retries:,}")
        if self.cost is not None:
            parts.append(f"cost {self.cost:,.2f}")
        return " | ".join(parts)


@dataclass(slots=True)
class _ReplicaUse:
    """What is known of one replica: when it came and went, and its counters as of its last answer."""

    since_s: float
    info: ReplicaInfo | None
    until_s: float | None = None
    reason: str | None = None
    stats: ReplicaStats = field(default_factory=ReplicaStats)


class Progress:
    """Counts one run. Fulfils dispatch's `DispatchWatcher`. One thread writes; others may read a snapshot at any time."""

    def __init__(
        self,
        rows_total: int,
        *,
        replicas: Callable[[], tuple[int, int]] = lambda: (0, 0),
        max_error_rows: float = math.inf,
        cost_per_replica_hour: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock. `rows_total`: rows this driver has to run; `replicas` returns (up, wanted)."""
        self._rows_total, self._replicas, self._max_error_rows = rows_total, replicas, max_error_rows
        self._cost_per_replica_hour, self._clock = cost_per_replica_hour, clock
        self._began_s = clock()
        self._rows = 0.0
        self._error_rows = 0.0
        self._retries = 0
        self._tokens_in = self._tokens_out = self._cached = 0
        self._codes: Counter[str] = Counter()
        self._prompt_lengths: Counter[int] = Counter()
        self._completion_lengths: Counter[int] = Counter()
        self._uses: dict[str, _ReplicaUse] = {}
        self._samples: list[tuple[float, int, int]] = [(0.0, 0, 0)]  # (seconds, tokens in, tokens out)
        self._sample_every_s = 1.0
        self._committed = 0

    # -- what stages report ---------------------------------------------------------------------------------------------------

    def count(self, completions: Iterable[Completion]) -> Iterator[Completion]:
        """Yields the completions as they come, counted.

        Raises:
            ErrorBudgetError: so many rows failed that the run cannot end within its error budget any more.
        """
        for completion in completions:
            self._count(completion)
            yield completion
            if self._rows >= ROWS_BEFORE_EARLY_STOP and self.over_budget:
                raise ErrorBudgetError(self.budget_message())

    def shard_committed(self) -> None:
        """One more shard lies in the run folder."""
        self._committed += 1

    def replica_ready(self, replica: str, info: ReplicaInfo | None) -> None:
        """A replica came up."""
        self._uses[replica] = _ReplicaUse(self._elapsed_s, info)

    def replica_lost(self, replica: str, reason: str) -> None:
        """A replica is gone."""
        if use := self._uses.get(replica):
            use.until_s, use.reason = self._elapsed_s, reason

    def replica_stats(self, replica: str, stats: ReplicaStats) -> None:
        """The counters of a replica, as of its last answer."""
        use = self._uses.get(replica)
        if use is not None and stats.up_s >= use.stats.up_s:  # answers of one replica may overtake each other
            use.stats = stats

    def batch_retried(self, requests: int) -> None:
        """So many requests were queued again."""
        self._retries += requests

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
            f"{self.error_rows} of {self._rows_total} rows failed, more than the {math.floor(self._max_error_rows)} that "
            f"--max-error-rate allows ({codes}); look at error_message in the output, correct the rows or raise --max-error-rate"
        )

    def snapshot(self) -> Snapshot:
        """Returns the figures of this moment."""
        elapsed_s = self._elapsed_s
        self._sample(elapsed_s)
        in_per_s, out_per_s = self._rates(elapsed_s)
        stats = self._total_stats()
        up, wanted = self._replicas()
        return Snapshot(
            rows=round(self._rows),
            rows_total=self._rows_total,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            tokens_in_per_s=in_per_s,
            tokens_out_per_s=out_per_s,
            padding=1 - stats.extend_tokens / stats.extend_positions if stats.extend_positions else 0.0,
            errors=self.error_rows,
            retries=self._retries,
            up=up,
            wanted=wanted,
            elapsed_s=elapsed_s,
            eta_s=self._eta_s(in_per_s + out_per_s),
            replica_hours=self._replica_hours(),
            cost=self._cost(),
        )

    def report(self) -> dict[str, object]:
        """Returns the content of report.json."""
        now, stats = self.snapshot(), self._total_stats()
        return {
            "rows": {"total": now.rows_total, "answered": now.rows, "failed": now.errors, "shards_committed": self._committed},
            "tokens": {"prompt": self._tokens_in, "completion": self._tokens_out, "cached": self._cached},
            "elapsed_s": now.elapsed_s,
            "tokens_per_s": {
                "prompt": self._tokens_in / now.elapsed_s if now.elapsed_s else 0.0,
                "completion": self._tokens_out / now.elapsed_s if now.elapsed_s else 0.0,
                "over_time": self._over_time(),
            },
            "padding": now.padding,
            "prefix_reuse": self._cached / self._tokens_in if self._tokens_in else 0.0,
            "prompt_length_histogram": _histogram(self._prompt_lengths),
            "completion_length_histogram": _histogram(self._completion_lengths),
            "retries": self._retries,
            "errors_by_code": dict(self._codes.most_common()),
            "engine": asdict(stats),
            "replicas": [self._replica_report(name, use) for name, use in self._uses.items()],
            "replica_hours": now.replica_hours,
            "cost": now.cost,
        }

    # -- inside -----------------------------------------------------------------------------------------------------------------

    @property
    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s

    def _count(self, completion: Completion) -> None:
        share = 1 / completion.ref.samples  # a row with n samples is one row
        self._rows += share
        if completion.error_code is not None:
            self._error_rows += share
            self._codes[completion.error_code] += 1
            return
        prompt = completion.prompt_tokens or 0
        drawn, scored = len(completion.token_ids), sum(score.tokens for score in completion.scores)
        self._tokens_in += prompt + scored  # what is scored is read, not drawn
        self._tokens_out += drawn
        self._cached += completion.cached_tokens or 0
        self._prompt_lengths[prompt.bit_length()] += 1
        self._completion_lengths[(drawn or scored).bit_length()] += 1

    def _sample(self, elapsed_s: float) -> None:
        if elapsed_s - self._samples[-1][0] >= self._sample_every_s:
            self._samples.append((elapsed_s, self._tokens_in, self._tokens_out))
        if len(self._samples) > MOST_SAMPLES:
            self._samples = self._samples[::2]
            self._sample_every_s *= 2

    def _rates(self, elapsed_s: float) -> tuple[float, float]:
        then = next((sample for sample in reversed(self._samples) if sample[0] <= elapsed_s - WINDOW_S), self._samples[0])
        span_s = elapsed_s - then[0]
        return ((self._tokens_in - then[1]) / span_s, (self._tokens_out - then[2]) / span_s) if span_s > 0 else (0.0, 0.0)

    def _over_time(self) -> list[dict[str, float]]:
        points = []
        for before, after in pairwise(self._samples):
            span_s = after[0] - before[0]
            points.append(
                {"s": after[0], "prompt": (after[1] - before[1]) / span_s, "completion": (after[2] - before[2]) / span_s}
            )
        return points

    def _eta_s(self, tokens_per_s: float) -> float | None:
        done = self._tokens_in + self._tokens_out
        if not done or tokens_per_s <= 0:
            return None
        return (self._rows_total - self._rows) * (done / self._rows) / tokens_per_s

    def _total_stats(self) -> ReplicaStats:
        every = [use.stats for use in list(self._uses.values())]
        return ReplicaStats(**{each.name: sum(getattr(stats, each.name) for stats in every) for each in fields(ReplicaStats)})

    def _replica_hours(self) -> float:
        now_s = self._elapsed_s
        return sum((use.until_s if use.until_s is not None else now_s) - use.since_s for use in list(self._uses.values())) / 3600

    def _cost(self) -> float | None:
        return None if self._cost_per_replica_hour is None else self._replica_hours() * self._cost_per_replica_hour

    def _replica_report(self, name: str, use: _ReplicaUse) -> dict[str, object]:
        until_s = use.until_s if use.until_s is not None else self._elapsed_s
        return {
            "name": name,
            "info": asdict(use.info) if use.info else None,
            "up_s": until_s - use.since_s,
            "utilisation": use.stats.busy_s / use.stats.up_s if use.stats.up_s else 0.0,
            "lost": use.reason,
            "stats": asdict(use.stats),
        }


class ProgressLine:
    """Shows a `Progress` while a `with` block runs: a live line on a terminal, otherwise a plain line every `every_s`."""

    def __init__(
        self,
        progress: Progress,
        *,
        stream: TextIO | None = None,
        every_s: float = 10.0,
        sinks: Sequence[Callable[[Snapshot], None]] = (),
    ) -> None:
        """Shows on `stream` (standard error by default); `sinks` get the same snapshots."""
        self._progress, self._every_s, self._sinks = progress, every_s, sinks
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> "ProgressLine":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _show(self) -> None:
        if not self._console.is_terminal:
            while not self._ended.wait(self._every_s):
                print(self._tell(), file=self._stream, flush=True)
            print(self._tell(), file=self._stream, flush=True)
            return
        with Live(Text(self._tell()), console=self._console, auto_refresh=False) as live:
            while not self._ended.wait(0.5):
                live.update(Text(self._tell()), refresh=True)
            live.update(Text(self._tell()), refresh=True)

    def _tell(self) -> str:
        snapshot = self._progress.snapshot()
        for sink in self._sinks:
            sink(snapshot)
        return snapshot.line()


def _histogram(counts: Counter[int]) -> list[dict[str, int]]:
    """Lengths by powers of two: `from` <= length <= `to`."""
    return [{"from": (1 << bits) >> 1, "to": (1 << bits) - 1, "rows": counts[bits]} for bits in sorted(counts)]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"
