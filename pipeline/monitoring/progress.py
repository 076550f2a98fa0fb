"""Counts a run: snapshots for the progress line and the metrics, and the figures of report.json.

`Progress` counts what the stages report. Does not depend on Ray, files or texts.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from actors.protocol.events import Activity
from actors.protocol.messages import Completion, ReplicaInfo, ReplicaStats, RowRef, logprobs
from actors.protocol.plain_text import VALUE_CHARS, bare, plain_message
from pipeline.errors import ErrorBudgetError
from pipeline.monitoring.deprecated_keys import add_deprecated_keys
from pipeline.monitoring.length_bins import histogram, length_bin
from pipeline.monitoring.logprob_bins import LogprobCounts
from pipeline.monitoring.replica_use import ReplicaUse
from pipeline.monitoring.row_counts import RowCounts
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.sample_rows import SampleRows
from pipeline.monitoring.snapshot import Snapshot
from pipeline.monitoring.timeline import Timeline
from pipeline.monitoring.token_rates import TokenRates
from pipeline.monitoring.window_counts import WindowCounts
from pipeline.records import Passing
from pipeline.requests.tokenizer import Tokenizer

EXAMPLES = 3  # error rows of each code in the report
EXAMPLE_CHARS = VALUE_CHARS  # of their messages
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
    "compile_s",
    "load_s",
)
STARTING = "starting replicas"
RUNNING = "running"
# A share of fewer rows means little: a small run continues to its end and is judged there.
ROWS_BEFORE_EARLY_STOP = 1000


class Progress:
    """Counts one run; implements dispatch's `DispatchWatcher`.

    One thread reports, any thread may take snapshots: they only read.
    """

    def __init__(
        self,
        rows_total: int,
        *,
        replicas: Callable[[], tuple[int, int]] = lambda: (0, 0),
        max_error_rows: int | None = None,
        rows_before_early_stop: int = ROWS_BEFORE_EARLY_STOP,
        cost_per_replica_hour: float | None = None,
        note: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        job_began_s: float | None = None,
        log: RunLog | None = None,
    ) -> None:
        """Starts the clock, which `begin` starts again.

        Args:
            rows_total: rows that this driver has to run.
            replicas: returns how many replicas are up and how many are wanted.
            max_error_rows: rows that may fail; None: all.
            rows_before_early_stop: rows that a run answers before it stops over its error budget.
            cost_per_replica_hour: in any currency; None: costs are not reported.
            note: returns a few words for the progress line.
            clock: seconds, monotonic.
            now: time of day.
            job_began_s: when the job began, by `clock`; None: now.
            log: receives events of replicas, retries and shards. The pool logs losses itself.
        """
        self._rows_total = rows_total
        self._replicas = replicas
        self._max_error_rows = max_error_rows
        self._rows_before_early_stop = rows_before_early_stop
        self._cost_per_replica_hour = cost_per_replica_hour
        self._note = note
        self._activity: Callable[[], Activity] = Activity
        self._is_starting = False
        self._clock = clock
        self._now = now
        self._job_began_s = clock() if job_began_s is None else job_began_s
        self._ready_s: float | None = None
        self._log = log or RunLog()
        self.ended_early = False
        self.samples = SampleRows()
        self._rows = RowCounts()
        self._retries = 0
        self._tokens_in = 0
        self._tokens_out = 0
        self._cached_tokens = 0
        self._codes: Counter[str] = Counter()
        self._finish_reasons: Counter[str] = Counter()
        self._logprobs = LogprobCounts()
        self._score_logprobs = LogprobCounts()
        self._boundary_rows = 0
        self._windows = WindowCounts()
        self._prompt_lengths: Counter[int] = Counter()
        self._completion_lengths: Counter[int] = Counter()
        self._examples: dict[str, list[dict[str, object]]] = {}
        self._timeline = Timeline()
        self._replica_use = ReplicaUse(self._timeline)
        self._committed_shards = 0
        self._in_flight = 0
        self._start_clock()

    def follow_start(
        self, replicas: Callable[[], tuple[int, int]], activity: Callable[[], Activity]
    ) -> None:
        """Follows replicas that start, until `begin`, and as long as they run.

        Args:
            replicas: returns how many are up and how many are wanted.
            activity: returns what those do that load or compile.
        """
        self._replicas = replicas
        self._activity = activity
        self._is_starting = True

    def begin(self) -> None:
        """Starts the clock again: enough replicas are up, the first row comes."""
        self._ready_s = self._clock() - self._job_began_s
        self._is_starting = False
        self._start_clock()

    def _start_clock(self) -> None:
        self._began_s = self._clock()
        self._began = self._now()
        self._last_row_s = 0.0
        self._compile_s = 0.0  # of all replicas, as of their last answers
        self._rates = TokenRates()

    # -- reported by the stages --------------------------------------------------------------------

    def count(self, completions: Iterable[Completion | Passing]) -> Iterator[Completion | Passing]:
        """Yields the completions as they come, counted; all other items pass through.

        Raises:
            ErrorBudgetError: so many rows failed that the run cannot end within its error budget.
        """
        for completion in completions:
            if not isinstance(completion, Completion):
                yield completion
                continue
            self._count(completion)
            yield completion
            if self._rows.answered >= self._rows_before_early_stop and self.over_budget:
                raise ErrorBudgetError(self.budget_message())

    def shard_committed(self, shard: int | None = None, rows: int = 0, errors: int = 0) -> None:
        """Reports one more shard in the run folder, with its rows and failed samples."""
        self._committed_shards += 1
        self._log.event("shard_committed", shard=shard, rows=rows, errors=errors)

    def end_early(self) -> None:
        """Reports that the run ends before its last row because it has enough rows."""
        self.ended_early = True

    def replica_ready(self, replica: str, info: ReplicaInfo | None) -> None:
        """Reports a replica that can take batches."""
        self._replica_use.ready(replica, info, self._elapsed_s)
        figures: dict[str, Any] = {}
        if info is not None:
            figures = {"node": info.node, "load_s": round(info.load_s, 3), "mesh": info.mesh}
        self._log.event("replica_up", replica=replica, **figures)

    def replica_infos(self) -> list[ReplicaInfo]:
        """Returns the descriptions of all replicas that came up."""
        return self._replica_use.infos()

    def replica_lost(self, replica: str, reason: str) -> None:
        """Reports a replica that was lost, and why."""
        self._replica_use.lost(replica, plain_message(reason), self._elapsed_s)

    def replica_retired(self, replica: str, reason: str) -> None:
        """Reports a replica that was retired while it held no batch, and why."""
        self._replica_use.retired(replica, reason, self._elapsed_s)
        self._log.event("replica_retired", replica=replica, reason=reason)

    def replica_stats(self, replica: str, stats: ReplicaStats) -> None:
        """Reports the counters of a replica, as of its last answer."""
        self._compile_s += self._replica_use.stats(replica, stats, self._elapsed_s)

    def batch_retried(self, requests: int) -> None:
        """Reports how many requests were queued again."""
        self._retries += requests
        self._timeline.add("retries", self._elapsed_s, requests)
        self._log.event("requests_retried", level="warning", requests=requests)

    def batches_in_flight(self, count: int) -> None:
        """Reports how many batches replicas hold."""
        self._in_flight = count

    # -- read by any thread ------------------------------------------------------------------------

    @property
    def error_rows(self) -> int:
        """Rows with at least one failed sample, as far as this driver ran them."""
        return self._rows.failed

    @property
    def finish_reasons(self) -> dict[str, int]:
        """Samples without an error by their finish reason, the most frequent first."""
        return dict(self._finish_reasons.most_common())

    @property
    def boundary_rows(self) -> int:
        """Rows of task score in which a scored token covers the end of the prompt too."""
        return self._boundary_rows

    @property
    def over_budget(self) -> bool:
        """Whether more rows failed than may fail."""
        return self._max_error_rows is not None and self._rows.failed > self._max_error_rows

    def budget_message(self) -> str:
        """Returns the message of the error when the budget is exceeded."""
        codes = ", ".join(f"{code} {count}" for code, count in self._codes.most_common())
        return (
            f"{self.error_rows} of {self._rows_total} rows failed, more than the "
            f"{self._max_error_rows} that --max-error-rate allows ({codes}); look at error_message "
            "in the output, correct the rows or raise --max-error-rate"
        )

    @property
    def replica_hours(self) -> float:
        """Hours that replicas were up, all of them together."""
        return self._replica_use.hours(self._elapsed_s)

    @property
    def replicas_up(self) -> int:
        """Replicas that are up now and add to the hours."""
        return self._replica_use.up_count()

    def snapshot(self) -> Snapshot:
        """Returns the figures of this moment."""
        elapsed_s = self._elapsed_s
        in_per_s, out_per_s = self._rates.rates(elapsed_s)
        stats = self._replica_use.total()
        replicas_up, replicas_wanted = self._replicas()
        activity = self._activity()
        phase = self._phase(replicas_up, activity)
        eta_s = None
        if phase == RUNNING:
            eta_s = self._eta_s(elapsed_s, replicas_up)
        came_up, lost = self._replica_use.counts()
        return Snapshot(
            rows=self._rows.answered,
            rows_total=self._rows_total,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            tokens_in_per_s=in_per_s,
            tokens_out_per_s=out_per_s,
            padding=_padding(stats),
            errors=self.error_rows,
            retries=self._retries,
            up=replicas_up,
            wanted=replicas_wanted,
            elapsed_s=elapsed_s,
            eta_s=eta_s,
            replica_hours=self.replica_hours,
            cost=self._cost(),
            cached=self._cached_tokens,
            codes=dict(self._codes),
            shards_committed=self._committed_shards,
            in_flight=self._in_flight,
            came_up=came_up,
            lost=lost,
            progressed_at=self._began.timestamp() + self._last_row_s,
            engine=stats,
            note=self._note(),
            activity=activity.text,
            phase=phase,
            finish_reasons=self.finish_reasons,
            windows=replace(self._windows),
        )

    def report(self, tokenizer: Tokenizer | None = None) -> dict[str, object]:
        """Returns the content of report.json; its size is bounded but for the list of replicas.

        Args:
            tokenizer: of the run; without it, sample rows are not split into tokens.
        """
        now = self.snapshot()
        over_time = self._over_time(now.elapsed_s)
        tokens_in = now.tokens_in
        tokens_out = now.tokens_out
        return {
            "began_at": self._began.isoformat(timespec="seconds"),
            "ended_at": self._now().isoformat(timespec="seconds"),
            "rows": {
                "total": now.rows_total,
                "answered": now.rows,
                "failed": now.errors,
                "shards_committed": now.shards_committed,
            },
            "tokens": {
                "prompt": tokens_in,
                "completion": tokens_out,
                "cached": now.cached,
            },
            "elapsed_s": now.elapsed_s,
            "ready_s": self._ready_s,
            "load_s": self._replica_use.slowest_load_s(),
            "compile_s": now.engine.compile_s,
            "programs": now.engine.programs,
            "tokens_per_s": {
                "prompt": _ratio(tokens_in, now.elapsed_s),
                "completion": _ratio(tokens_out, now.elapsed_s),
                "over_time": _rates_over_time(over_time),
            },
            "over_time": add_deprecated_keys(over_time),
            "padding": now.padding,
            "prefix_reuse": now.prefix_reuse,
            "prompt_length_histogram": histogram(self._prompt_lengths),
            "completion_length_histogram": histogram(self._completion_lengths),
            "finish_reasons": self.finish_reasons,
            "logprob_histogram": self._logprobs.histogram(),
            "score_logprob_histogram": self._score_logprobs.histogram(),
            "samples": self.samples.report(tokenizer),
            "retries": self._retries,
            "boundary_rows": self._boundary_rows,
            "windows": asdict(self._windows),
            "errors_by_code": dict(self._codes.most_common()),
            "error_examples": self._examples,
            "engine": add_deprecated_keys(asdict(now.engine)),
            "replicas": self._replica_use.report(now.elapsed_s),
            "replica_hours": now.replica_hours,
            "cost": now.cost,
        }

    # -- internal ----------------------------------------------------------------------------------

    @property
    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s

    def _count(self, completion: Completion) -> None:
        at_s = self._elapsed_s
        is_error = completion.error_code is not None
        # Of the windows of a text, the first one that fails is the error of the row.
        is_repeated = completion.ref.windows > 1 and self._rows.has_failed(completion.ref)
        done = self._rows.add(completion.ref, is_error=is_error)
        if done.answered:
            self._last_row_s = at_s

        amounts: dict[str, float] = {"rows": done.answered}
        if done.failed:
            amounts["errors"] = done.failed
        if is_error and not is_repeated:
            self._count_error(completion)
        elif not is_error:
            amounts.update(self._count_tokens(completion, at_s))
        self._timeline.add_all(amounts, at_s)

    def _count_tokens(self, completion: Completion, at_s: float) -> dict[str, float]:
        """Counts a good sample; returns its amounts for the timeline."""
        prompt = completion.prompt_tokens or 0
        cached = completion.cached_tokens or 0
        generated = len(completion.token_ids)
        scored = 0
        for score in completion.scores:
            scored += score.tokens
            if score.tokens:
                self._score_logprobs.add(logprobs([score.loglikelihood / score.tokens]))
        if completion.finish_reason is not None:
            self._finish_reasons[completion.finish_reason] += 1
        if completion.token_logprobs is not None:
            self._logprobs.add(completion.token_logprobs)
        if any(score.boundary_chars for score in completion.scores):
            self._boundary_rows += 1
        if completion.ref.windows > 1:
            self._windows.add(completion.ref, prompt + scored, scored)

        self._tokens_in += prompt + scored  # scored tokens are read, not generated
        self._tokens_out += generated
        self._cached_tokens += cached
        self._rates.add(at_s, self._tokens_in, self._tokens_out, self._compile_s)
        self._prompt_lengths[length_bin(prompt)] += 1
        self._completion_lengths[length_bin(generated or scored)] += 1
        return {"prompt": prompt + scored, "completion": generated, "cached": cached}

    def _count_error(self, completion: Completion) -> None:
        code = str(completion.error_code)
        self._codes[code] += 1
        examples = self._examples.setdefault(code, [])
        if len(examples) >= EXAMPLES:
            return

        examples.append(error_example(completion.ref, completion.row_id, completion.error_message))

    def _over_time(self, now_s: float) -> dict[str, list[float]]:
        """Returns what happened in each of at most `MOST_SPANS` spans of time that end at `s`."""
        over_time = {"s": self._timeline.ends(now_s)}
        for name in SERIES:
            over_time[name] = [round(value, 3) for value in self._timeline.sums(name, now_s)]
        over_time["up_s"] = [round(up_s, 3) for up_s in self._replica_use.up_s(now_s)]
        return over_time

    def _phase(self, replicas_up: int, activity: Activity) -> str:
        """Returns what replicas do: start, load or compile, so that no row is computed, or run."""
        if self._is_starting or not replicas_up:
            return activity.doing or STARTING
        if activity.compiling >= replicas_up:
            return "compiling"
        return RUNNING

    def _eta_s(self, elapsed_s: float, replicas_up: int) -> float | None:
        """Returns the seconds that the other rows take; None where no rate is known yet.

        The time in which calls wait for programs does not count: it does not come again.
        """
        rows = self._rows.begun
        tokens = self._tokens_in + self._tokens_out
        tokens_per_s = self._rates.working_rate(elapsed_s, replicas_up)
        if not rows or not tokens or tokens_per_s <= 0:
            return None
        tokens_per_row = tokens / rows
        return max(self._rows_total - rows, 0.0) * tokens_per_row / tokens_per_s

    def _cost(self) -> float | None:
        if self._cost_per_replica_hour is None:
            return None
        return self.replica_hours * self._cost_per_replica_hour


def error_example(ref: RowRef, row_id: object, message: str | None) -> dict[str, object]:
    """Returns a failed row as the report shows it: without credentials, texts cut."""
    if isinstance(row_id, str):
        row_id = bare(row_id)
    example_message = bare(message or "", EXAMPLE_CHARS)
    return {"id": row_id, "shard": ref.shard, "row": ref.row, "message": example_message}


def _ratio(value: float, total: float) -> float:
    if not total:
        return 0.0
    return value / total


def _padding(stats: ReplicaStats) -> float:
    if not stats.prefill_positions:
        return 0.0
    return 1 - stats.prefill_tokens / stats.prefill_positions


def _rates_over_time(over_time: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Returns the tokens per second of each span that is not empty."""
    rates = []
    spans = pairwise([0.0, *over_time["s"]])
    tokens = zip(over_time["prompt"], over_time["completion"], strict=True)
    for (began_s, ended_s), (prompt, completion) in zip(spans, tokens, strict=True):
        span_s = ended_s - began_s
        if span_s > 0:
            rates.append(
                {"s": ended_s, "prompt": prompt / span_s, "completion": completion / span_s}
            )
    return rates
