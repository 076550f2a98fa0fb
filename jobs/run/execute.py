"""Runs a job from its configuration to its exit code: plan, check, run the shards, report.

The driver never imports JAX; replicas do.
"""

import contextlib
import json
import math
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from actors.pool.config import PoolConfig
from actors.protocol.errors import ClusterLostError, GrokBatchError
from jobs.cli.exit_codes import ExitCode, write_limit_note
from jobs.cli.signals import StopSignals, stop_at_once
from jobs.cluster.address import ClusterConfigError
from jobs.run import dry_run, full_size
from jobs.run.backend import RAY, Backend, Pool
from jobs.run.config import ScoreConfig
from jobs.run.description import describe, run_description
from jobs.run.early_stopping import NEVER_STOP, EarlyStopping
from jobs.run.fingerprint import fingerprint_keys, row_context
from jobs.run.limits import RunLimits
from jobs.run.metrics import run_label
from jobs.run.notices import (
    RowFaults,
    check_lengths,
    part_notices,
    plan_notices,
    row_faults,
    row_notices,
)
from jobs.run.plan import Plan, make_plan
from jobs.run.report import complete_report, reported
from jobs.run.reuse.copying import CopiedShards, ReuseFigures, copy_shards, count_reuse
from jobs.run.reuse.older_runs import OlderRuns, open_older_runs
from jobs.run.summary import print_results
from pipeline import storage
from pipeline.dispatch.dispatcher import DispatchConfig
from pipeline.errors import (
    ConfigError,
    DatasetError,
    ErrorBudgetError,
    InterruptedRunError,
)
from pipeline.input.listing import SkippedFile, describe_skipped
from pipeline.monitoring.live_view import LiveView
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.row_counts import allowed_failures
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot
from pipeline.output.input_content import content_digests, run_input_keys
from pipeline.output.run_folder import RunFolder, check_run, fingerprint
from pipeline.output.run_state import RunState, finish, read_state, remaining
from pipeline.output.writer import CommittedShard, Writer
from pipeline.records import Shard
from pipeline.run import Pipeline, run

NAMED_PARTS = 3  # in a message


@dataclass(frozen=True)
class DriverRun:
    """What this driver ran."""

    progress: Progress
    last_snapshot: Snapshot  # as of the last commit
    committed: frozenset[int]  # shards that came to their end in this driver


@dataclass(frozen=True)
class Job:
    """A run that is planned and whose folder is checked."""

    plan: Plan
    folder: RunFolder
    fingerprint: str
    shards: Sequence[Shard]  # to run now, of this driver's partition
    resumed: bool  # the folder existed before
    start_state: RunState
    backend: Backend
    early_stopping: EarlyStopping
    limits: RunLimits
    log: RunLog
    view: LiveView
    row_context: bytes  # stands in digests of rows for the settings of the run
    older: OlderRuns | None = None  # runs of --reuse

    @property
    def batches_in_flight(self) -> int:
        """Batches that one replica holds at most."""
        return self.backend.batches_in_flight or self.plan.sizes.batches_in_flight

    @property
    def error_budget(self) -> int:
        """Rows of this partition that may fail."""
        return allowed_failures(self.plan.own_row_count, self.plan.config.max_error_rate)

    def read_end_state(self, *, count_failures: bool) -> RunState:
        """Reads the committed state at the end of the run.

        Args:
            count_failures: also count the failed rows of this partition, of any run.
        """
        failures_in: Sequence[Shard] = ()
        if count_failures:
            failures_in = self.plan.own_shards
        return read_state(self.folder, self.plan.shards, self.fingerprint, failures_in=failures_in)


def run_job(
    config: ScoreConfig,
    backend: Backend = RAY,
    early_stopping: EarlyStopping = NEVER_STOP,
    log: RunLog | None = None,
    shares_limits_with: Sequence[str] = (),
    other_outputs: Sequence[str] = (),
) -> ExitCode:
    """Runs the main job; the command line, evaluation and synthesis call this.

    Errors of known kinds are logged as one line and become an exit code.

    Args:
        config: the job.
        backend: starts replicas and exports metrics.
        early_stopping: may stop the run early. Such a run has no _SUCCESS, all shards that are
            written are complete, and another call continues it.
        log: receives events, results and known errors; None: one for the command line.
        shares_limits_with: other run folders that count for --max-cost and --max-replica-hours.
        other_outputs: run folders that are no input, beside the output folder.
    """
    began = datetime.now(UTC)
    if log is None:
        log = RunLog(config.log_format)
    log = log.of_run(run_label(str(config.output or config.input)))
    with LiveView(log) as view:
        limits = RunLimits(config, shares_limits_with, log, began)
        code = _run_logged(config, backend, early_stopping, limits, log, view, other_outputs)

    log.event("finished", level="info" if code.is_complete else "error", exit_code=code)
    return code


def _run_logged(
    config: ScoreConfig,
    backend: Backend,
    early_stopping: EarlyStopping,
    limits: RunLimits,
    log: RunLog,
    view: LiveView,
    other_outputs: Sequence[str],
) -> ExitCode:
    try:
        with stop_at_once():
            view.begin("reading the input")
            plan = make_plan(config, other_outputs)
            log_skipped_files(plan.skipped, log)
            for notice in plan_notices(plan):
                log.event("notice", f"note: {notice}")
            if config.dry_run:
                view.begin("estimating")
                print_dry_run(plan, reuse=_planned_reuse(plan, log))
                return ExitCode.OK
            view.begin("reading the run folder")
            job = _prepare(plan, backend, early_stopping, limits, log, view)
    except InterruptedRunError as error:
        return _failed(log, error, ExitCode.INTERRUPTED, "interrupted")
    except GrokBatchError as error:
        return _failed(log, error, ExitCode.BAD_ARGUMENTS)

    try:
        return _execute(job)
    except ErrorBudgetError as error:
        return _failed(log, error, ExitCode.OVER_BUDGET)
    except (InterruptedRunError, ClusterLostError) as error:
        return _failed(log, error, ExitCode.INTERRUPTED, "interrupted")
    except KeyboardInterrupt:
        return _failed(log, _stopped_at_once(), ExitCode.INTERRUPTED, "interrupted")
    except ClusterConfigError as error:
        return _failed(log, error, ExitCode.BAD_ARGUMENTS)
    except GrokBatchError as error:
        return _failed(log, error, ExitCode.FAILED)


def _stopped_at_once() -> InterruptedRunError:
    """Returns the error of a run that a second Ctrl-C has ended."""
    return InterruptedRunError(
        "the run was stopped at once; committed shards are kept, the same command continues it"
    )


def log_skipped_files(skipped: Sequence[SkippedFile], log: RunLog) -> None:
    """Logs which files of the input are not read, if there are any."""
    if skipped:
        log.event("input_skipped", describe_skipped(skipped), files=len(skipped))


def _failed(log: RunLog, error: GrokBatchError, code: ExitCode, event: str = "error") -> ExitCode:
    log.failed(error, code, event)
    write_limit_note(error)
    return code


def _planned_reuse(plan: Plan, log: RunLog) -> ReuseFigures | None:
    """Returns what the run would copy from the runs of --reuse; None without any.

    Raises:
        ConfigError: no row of a run can be copied, or the checkpoint is missing.
    """
    if not plan.config.reuse:
        return None
    if plan.config.checkpoint is None:
        raise ConfigError(
            "--reuse needs --checkpoint in a dry run too: rows are copied only if the older run "
            "has the same"
        )
    keys = fingerprint_keys(plan)
    older = open_older_runs(plan, keys)
    _log_notices(older.notices, log)
    return count_reuse(plan, older, plan.own_shards, row_context(keys))


def print_dry_run(
    plan: Plan,
    compiler: full_size.Compiler | None = None,
    reuse: ReuseFigures | None = None,
) -> None:
    """Prints the estimate of a run and, for a model that needs GPUs, its memory plan.

    Args:
        plan: the run.
        compiler: compiles the step functions of the memory plan; None: `full_size.compile_plan`.
        reuse: rows that are copied from older runs; the estimate is of the others.
    """
    rows = None
    if reuse is not None:
        rows = reuse.computed
    estimate = dry_run.estimate(plan, rows, reuse)
    is_full_size = full_size.is_full_size(plan)
    if plan.config.json:
        figures = estimate.figures()
        if is_full_size:
            figures["full_size"] = full_size.memory_plan(plan, compiler)
        print(json.dumps(figures, indent=2))
        return
    _print_lines(estimate.lines())
    if is_full_size:
        _print_lines(full_size.lines(plan, compiler))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _prepare(
    plan: Plan,
    backend: Backend,
    early_stopping: EarlyStopping,
    limits: RunLimits,
    log: RunLog,
    view: LiveView,
) -> Job:
    """Creates or checks the run folder and lists the shards to run.

    Raises:
        ConfigError: the folder holds a run of another configuration, or a new run has too many
            prompts that are too long.
    """
    config = plan.config
    folder = RunFolder(str(config.output))
    keys = fingerprint_keys(plan)
    keys["input"] = run_input_keys(folder, plan.files)
    context = row_context(keys)
    digests: dict[str, str] = {}
    faults = None
    older = None
    if not folder.exists():
        if config.reuse:
            older = open_older_runs(plan, keys)
        faults = row_faults(plan, plan.own_shards, storage.DEFAULT_CLIENT)
        check_lengths(plan, faults)
        digests = content_digests(plan.files)
    description = run_description(plan, digests)
    if older is not None:
        description["reuse"] = older.description()
    resumed = check_run(folder, keys, description, resume=config.resume)
    if faults is not None:
        _log_faults(faults, plan, log)

    identity = fingerprint(keys)
    folder.remove_abandoned()
    failures_in: Sequence[Shard] = ()
    if config.retry_failed:
        failures_in = plan.own_shards
        folder.client.check_conditional_writes(folder.run_url, replaces=True)
    state = read_state(folder, plan.shards, identity, failures_in=failures_in)
    _warn_of_removed_parts(plan, folder, state, log)
    for notice in part_notices(plan, folder, state.committed):
        log.event("notice", f"note: {notice}", level="warning")
    unfinished = remaining(
        plan.shards,
        state,
        partition=config.partition_pair(),
        retry_failed=config.retry_failed,
    )
    if config.reuse and unfinished and older is None:
        older = open_older_runs(plan, keys)
    if older is not None:
        _log_notices(older.notices, log)
    limits.read_usage()
    shards = early_stopping.select_shards(unfinished)
    run_folder = RunFolder(folder.url, storage.RUN_CLIENT)
    return Job(
        plan=plan,
        folder=run_folder,
        fingerprint=identity,
        shards=shards,
        resumed=resumed,
        start_state=state,
        backend=backend,
        early_stopping=early_stopping,
        limits=limits,
        log=log,
        view=view,
        row_context=context,
        older=older,
    )


def _log_faults(faults: RowFaults, plan: Plan, log: RunLog) -> None:
    _log_notices(row_notices(plan, faults), log)


def _log_notices(notices: Iterable[str], log: RunLog) -> None:
    for notice in notices:
        log.event("notice", f"note: {notice}", level="warning")


def _warn_of_removed_parts(plan: Plan, folder: RunFolder, state: RunState, log: RunLog) -> None:
    missing = len(plan.shards) - len(state.committed)
    if state.finished and missing:
        log.event(
            "parts_missing",
            f"warning: {missing:,} of {len(plan.shards):,} parts of the complete run in "
            f"{folder.data_url} were removed; their rows run again",
            level="warning",
        )


def _execute(job: Job) -> ExitCode:
    url = job.folder.url
    if not job.shards and job.start_state.finished:
        job.log.result("complete", f"nothing to do: the run in {url} is complete")
        state = job.read_end_state(count_failures=True)
        return _verdict(job, state, state.failed_row_count, None)
    if job.early_stopping.should_stop(job.limits.replica_hours()):
        job.log.result("complete", f"nothing to do: the run in {url} has enough rows")
        state = job.read_end_state(count_failures=True)
        return _verdict(job, state, state.failed_row_count, None)

    if job.shards and job.limits.reached():
        raise job.limits.error()

    _log_start(job)
    with StopSignals() as signals:
        progress = None
        last_snapshot = None
        reuse = None
        committed = job.start_state.committed
        if job.shards:
            if job.resumed:
                _log_faults(row_faults(job.plan, job.shards, job.folder.client), job.plan, job.log)
            copied = _copy_shards(job, signals)
            reuse = copied.figures
            committed |= copied.committed
            driver_run = _run_shards(replace(job, shards=copied.remaining), signals, reuse)
            progress = driver_run.progress
            last_snapshot = driver_run.last_snapshot
            committed |= driver_run.committed

        job.view.begin("reading the output")
        # Rows of a resumed run that failed before are recorded in the output files only.
        count_failures = progress is None or progress.ended_early or job.resumed
        state = job.read_end_state(count_failures=count_failures)
        _check_parts(job, committed, state.committed)
        failed = state.failed_row_count
        if progress is not None and not count_failures:
            failed = progress.error_rows

        own_shards = state.committed_of(job.plan.own_shards)
        job.view.close()
        print_results(job.folder, job.plan, own_shards, failed, last_snapshot, job.log, reuse)
        if progress is not None:
            _log_boundary_rows(job, progress.boundary_rows)
        return _verdict(job, state, failed, progress)


def _log_boundary_rows(job: Job, rows: int) -> None:
    """Logs how many rows were scored from a token that begins in the prompt."""
    if not rows:
        return
    column = "column boundary_chars has the characters of each"
    if not job.plan.config.boundary_chars:
        column = "--boundary-chars true in a new run writes the characters of each"
    job.log.event(
        "boundary_rows",
        f"boundary: in {rows:,} rows the first scored token covers the end of the prompt too; "
        f"{column}",
        rows=rows,
    )


def _check_parts(job: Job, committed: Collection[int], listed: Collection[int]) -> None:
    """Checks that parts that were committed are still in the run folder.

    Args:
        job: the run.
        committed: shards that were committed before the run or by this driver.
        listed: shards whose parts the run folder holds.

    Raises:
        DatasetError: parts or run.json vanished.
    """
    vanished = sorted(set(committed) - set(listed))
    if vanished:
        names = [job.folder.part_url(number).rsplit("/", 1)[-1] for number in vanished]
        listing = ", ".join(names[:NAMED_PARTS])
        if len(names) > NAMED_PARTS:
            listing += " …"
        raise DatasetError(
            f"{len(vanished):,} of {len(committed):,} committed parts vanished from "
            f"{job.folder.data_url} during the run ({listing}): another program removes files "
            "there; stop it, then repeat the command, which computes them again"
        )
    if job.folder.client.stat(job.folder.run_url) is None:
        raise DatasetError(
            f"{job.folder.run_url} vanished during the run: another program removes files there; "
            "stop it, then repeat the command, which writes it again"
        )


def _log_start(job: Job) -> None:
    description = describe(job.plan)
    shards = len(job.plan.own_shards)
    committed = shards - len(job.shards)

    figures: dict[str, Any] = {
        **description,
        "fingerprint": job.fingerprint,
        "shards": shards,
        "shards_committed": committed,
    }
    job.log.event("started", **figures)
    for name, value in description.items():
        job.log.result(None, f"{name:<8} {value}")
    if job.resumed:
        job.log.result(None, f"resume   {committed:,} of {shards:,} shards are committed already")


def _copy_shards(job: Job, signals: StopSignals) -> CopiedShards:
    """Copies the shards that the runs of --reuse have; returns what is left to run.

    Raises:
        InterruptedRunError: a signal arrived; what was copied is committed.
    """
    if job.older is None:
        return CopiedShards(tuple(job.shards), frozenset(), None)

    def advance(rows: int) -> None:
        job.view.advance(rows)
        if signals.received:
            raise InterruptedRunError(
                "the run was interrupted while it copied rows; committed shards are kept, the same "
                "command continues it"
            )

    rows_total = sum(shard.rows for shard in job.shards)
    job.view.begin("copying rows of older runs", rows_total)
    copied = copy_shards(
        job.plan,
        job.older,
        job.shards,
        job.row_context,
        job.folder,
        job.fingerprint,
        advance,
    )
    if copied.figures is not None:
        figures = copied.figures
        job.log.event("rows_copied", f"reuse    {figures.plan_text()}", **figures.as_json())
    return copied


def _run_shards(job: Job, signals: StopSignals, reuse: ReuseFigures | None) -> DriverRun:
    """Starts replicas and runs the shards; writes the report however the run ends.

    Without a shard, no replica starts: all rows were copied.
    """
    config = job.plan.config
    minimum, maximum = config.replica_range()
    pool_config = PoolConfig(
        minimum,
        maximum,
        devices=math.prod(config.mesh_shape()),
        in_flight=job.batches_in_flight,
        device=config.device,
        step_timeout_s=config.step_timeout_s,
    )
    progress = _progress(job, maximum, signals)
    # The report covers the start of the cluster, and is written before the cluster ends.
    with (
        contextlib.ExitStack() as cluster,
        reported(
            progress,
            job.plan,
            job.folder,
            job.fingerprint,
            len(job.shards),
            job.log,
            job.backend.render_report,
            reuse,
        ),
        job.limits.counting(progress),
    ):
        if not job.shards:
            return DriverRun(progress, progress.snapshot(), frozenset())

        job.view.begin("starting Ray")
        open_pool = job.backend.open_pool(job.plan.replica_spec(), pool_config, job.log)
        pool = cluster.enter_context(open_pool)
        cluster.callback(job.view.begin, "stopping Ray")
        progress.follow_start(lambda: (pool.up, pool.wanted), pool.activity)
        pipeline = _pipeline(job, pool, progress, signals)

        def is_over() -> bool:
            return signals.received or job.limits.reached()

        with job.backend.open_metrics(progress, _run_info(job), config.cost_budget) as metrics:
            with job.view.following(progress, next_phase="running", keeps_last=False):
                pool.wait_for_minimum(metrics.published_until(is_over))
            progress.begin()
            with job.view.following(progress, [metrics.publish], next_phase="writing the report"):
                committed = _drain(run(job.shards, pipeline), progress, job)
            last_snapshot = progress.snapshot()
        expected = job.start_state.committed | committed
        _check_parts(job, expected, job.folder.committed())
    return DriverRun(progress, last_snapshot, committed)


def _drain(pipeline: Generator[CommittedShard], progress: Progress, job: Job) -> frozenset[int]:
    """Runs the pipeline until all shards are committed or the run may stop early.

    Commits that have started are completed.

    Returns:
        The numbers of the shards that were committed.
    """
    committed: set[int] = set()
    with contextlib.closing(pipeline):
        for shard in pipeline:
            committed.add(shard.shard)
            job.limits.record()
            if job.early_stopping.should_stop(job.limits.replica_hours()):
                progress.end_early()
                break
    return frozenset(committed)


def _progress(job: Job, replicas: int, signals: StopSignals) -> Progress:
    """Returns the counters of the run; no replica is up of the number that is wanted."""

    def note() -> str:
        if signals.received:
            return "stopping after the batches that replicas hold"
        return job.early_stopping.status()

    rows = 0
    for shard in job.shards:
        if shard.only is None:
            rows += shard.rows
        else:
            rows += len(shard.only)

    return Progress(
        rows,
        replicas=lambda: (0, replicas),
        max_error_rows=job.error_budget,
        cost_per_replica_hour=job.plan.config.cost_per_replica_hour,
        note=note,
        job_began_s=job.view.began_s,
        log=job.log,
    )


def _pipeline(job: Job, pool: Pool, progress: Progress, signals: StopSignals) -> Pipeline:
    plan = job.plan
    config = plan.config
    return Pipeline(
        task=plan.task,
        schema=plan.schema,
        tokenizer=plan.tokenizer,
        rules=plan.rules,
        buckets=plan.bucket_config(),
        dispatch=DispatchConfig(job.batches_in_flight, config.max_attempts),
        replicas=pool,
        writer=Writer(job.folder, plan.output_schema(), job.fingerprint, progress.replica_infos),
        progress=progress,
        interrupted=lambda: signals.received,
        limits=job.limits,
        client=job.folder.client,
        row_context=job.row_context,
    )


def _run_info(job: Job) -> dict[str, str]:
    """Returns the labels of the metric `run_info`."""
    config = job.plan.config
    return {
        "output": str(config.output),
        "model": config.model,
        "task": config.task,
        "fingerprint": job.fingerprint,
    }


def _verdict(job: Job, state: RunState, failed: int, progress: Progress | None) -> ExitCode:
    """Marks the run as complete if it is, and returns the exit code.

    Raises:
        ErrorBudgetError: more rows failed than --max-error-rate allows.
    """
    committed = len(state.committed_of(job.plan.own_shards))
    shards = len(job.plan.own_shards)
    if progress is None and committed == shards:
        status = _status(failed, job.error_budget)
        render = job.backend.render_report
        complete_report(job.plan, job.folder, job.fingerprint, status, render)

    if failed > job.error_budget:
        if progress is not None and progress.over_budget:
            raise ErrorBudgetError(progress.budget_message())
        raise ErrorBudgetError(
            f"{failed} of {job.plan.own_row_count} rows failed, more than the {job.error_budget} "
            "that --max-error-rate allows; check error_message in the output, correct the rows or "
            "raise --max-error-rate"
        )
    if committed < shards:
        job.log.result(
            "ended_early",
            f"ended early, with enough rows: {committed:,} of {shards:,} shards are committed",
        )
    elif not state.finished and not finish(job.folder, job.plan.shards, state.committed):
        job.log.result("partitions", "other partitions of this run are not complete yet")
    if failed:
        return ExitCode.ROW_ERRORS
    return ExitCode.OK


def _status(failed: int, budget: int) -> str:
    """Returns the status of a complete run for its report."""
    if failed > budget:
        return "over_budget"
    if failed:
        return "row_errors"
    return "complete"
