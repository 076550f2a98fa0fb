"""The main job: a data set of prompts → a run folder with completions or log-likelihoods.

    python jobs/score_dataset.py -C job.yaml [--flag value …]        every flag: --help
    ray job submit --working-dir . -- python jobs/score_dataset.py -C job.yaml

Exit codes: 0 all rows committed; 3 all committed, some with row errors within the budget; 4 error
budget exceeded; 2 bad arguments or data set, nothing was started; 75 interrupted or cluster lost:
the same command continues; 1 anything else.

Parses, plans, connects, runs, reports. Never imports JAX: that happens in the replicas.
"""

import math
import signal
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.errors import ClusterLostError, GrokBatchError
from jobs.cli.parser import parse
from jobs.run import dry_run, full_size
from jobs.run.cluster import ray_cluster
from jobs.run.config import ScoreConfig
from jobs.run.metrics import RunMetrics, run_label
from jobs.run.plan import Plan, describe, fingerprint_keys, make_plan, run_description
from jobs.run.report import reported
from jobs.run.summary import print_results
from pipeline.dispatch.dispatcher import DispatchConfig
from pipeline.dispatch.replicas import Replicas
from pipeline.errors import ErrorBudgetError, InterruptedRunError
from pipeline.input.shards import RunFolder, check_run, fingerprint, finish, remaining
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.progress_line import ProgressLine
from pipeline.monitoring.run_log import RunLog
from pipeline.output.schema import output_schema
from pipeline.output.writer import CommittedShard, Writer
from pipeline.records import Shard
from pipeline.run import Corridor, run
from pipeline.storage.retries import outages_waited_out

OK, FAILED, BAD_ARGUMENTS, ROW_ERRORS, OVER_BUDGET, INTERRUPTED = 0, 1, 2, 3, 4, 75
# on each replica: enough requests for all slots of its engine, although batches end row by row
BATCHES_IN_FLIGHT = 16


class StopSignals:
    """Remembers SIGTERM and the first Ctrl-C, so that the run ends where nothing is lost.

    A second Ctrl-C ends it at once.
    """

    def __init__(self) -> None:
        self.received = False

    def listen(self) -> None:
        """Takes the signals over; again after `ray.init`, which sets handlers of its own."""
        signal.signal(signal.SIGTERM, self._remember)
        signal.signal(signal.SIGINT, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True


class RunWatch:
    """Looks at the parts of a run while it goes on, and may have enough of them before its end.

    This one never has.
    """

    def wanted(self, todo: Sequence[Shard]) -> Sequence[Shard]:
        """Returns those of the shards that are to do that are to be done now."""
        return todo

    def satisfied(self, replica_hours: float) -> bool:
        """Whether the run may end now.

        Asked before it begins and after each commit; `replica_hours` are of this driver.
        """
        return False

    def note(self) -> str:
        """Returns a few words for the progress line."""
        return ""

    def close(self) -> None:
        """Ends whatever looks."""


UNWATCHED = RunWatch()


class _Watched(NamedTuple):
    """Who looks at a run."""

    watch: RunWatch
    log: RunLog


def main(arguments: Sequence[str]) -> int:
    """Runs the job of a command line and returns its exit code."""
    try:
        config = parse(
            ScoreConfig,
            arguments,
            program="score_dataset.py",
            description=str(__doc__).split("\n\n", maxsplit=1)[0],
        )
    except GrokBatchError as error:
        return RunLog().failed(error, BAD_ARGUMENTS)
    return run_job(config)


def run_job(config: ScoreConfig, watch: RunWatch = UNWATCHED) -> int:
    """Runs the job that a configuration describes, for the command line and for jobs made of this one; returns its exit code.

    A run that `watch` ends early is whole as far as its parts are, and has no _SUCCESS; another
    call goes on with it.
    """
    log = RunLog(config.log_format, run=run_label(str(config.output)))
    code = _run_job(config, watch, log)
    log.event("finished", level="info" if code in {OK, ROW_ERRORS} else "error", exit_code=code)
    return code


def _run_job(config: ScoreConfig, watch: RunWatch, log: RunLog) -> int:
    try:
        plan = make_plan(config)
        if config.dry_run:
            _print_lines(dry_run.lines(dry_run.estimate(plan)))
            if full_size.is_full_size(plan):
                _print_lines(full_size.lines(plan))
            return OK
        folder, keys = RunFolder(str(config.output)), fingerprint_keys(plan)
        existed = check_run(folder, keys, run_description(plan), resume=config.resume)
        identity = fingerprint(keys)
        left = remaining(
            plan.shards,
            folder,
            identity,
            partition=config.partition_pair(),
            retry_failed=config.retry_failed,
        )
        todo = watch.wanted(left)
    except GrokBatchError as error:
        return log.failed(error, BAD_ARGUMENTS)
    try:
        with outages_waited_out():
            return _execute(plan, folder, identity, todo, _Watched(watch, log), resumed=existed)
    except ErrorBudgetError as error:
        return log.failed(error, OVER_BUDGET)
    except (InterruptedRunError, ClusterLostError) as error:
        return log.failed(error, INTERRUPTED, "interrupted")
    except GrokBatchError as error:
        return log.failed(error, FAILED)


def _execute(
    plan: Plan,
    folder: RunFolder,
    identity: str,
    todo: Sequence[Shard],
    watched: "_Watched",
    *,
    resumed: bool,
) -> int:
    watch, log = watched
    if not todo and folder.finished():
        log.result("complete", f"nothing to do: the run in {folder.url} is complete")
        return OK
    if watch.satisfied(0.0):
        log.result("complete", f"nothing to do: the run in {folder.url} has enough rows")
        return _verdict(plan, folder, _failed_rows(plan, folder, identity), None, log)
    committed = len(plan.own_shards) - len(todo)
    told: dict[str, Any] = {
        **describe(plan),
        "fingerprint": identity,
        "shards": len(plan.own_shards),
    }
    log.event("started", **told, shards_committed=committed)
    for name, value in describe(plan).items():
        log.result(None, f"{name:<8} {value}")
    if resumed:
        log.result(
            None, f"resume   {committed:,} of {len(plan.own_shards):,} shards are committed already"
        )
    progress = _run_rows(plan, folder, identity, todo, watched) if todo else None
    counted = progress is not None and not progress.ended_early and not resumed
    failed = (
        progress.error_rows
        if progress is not None and counted
        else _failed_rows(plan, folder, identity)
    )
    print_results(folder, plan, _committed_shards(plan, folder), failed, log)
    return _verdict(plan, folder, failed, progress, log)


def _verdict(
    plan: Plan, folder: RunFolder, failed: int, progress: Progress | None, log: RunLog
) -> int:
    """Marks the run as complete if it is; returns the exit code."""
    if failed > _error_budget(plan):
        message = (
            progress.budget_message()
            if progress and progress.over_budget
            else f"{failed} rows failed, more than allowed"
        )
        raise ErrorBudgetError(message)
    done = len(_committed_shards(plan, folder))
    if done < len(plan.own_shards):
        log.result(
            "ended_early",
            f"ended early, with enough rows: {done:,} of {len(plan.own_shards):,} shards are "
            "committed",
        )
    elif not finish(folder, plan.shards):
        log.result("partitions", "other partitions of this run are not complete yet")
    return ROW_ERRORS if failed else OK


def _run_rows(
    plan: Plan, folder: RunFolder, identity: str, todo: Sequence[Shard], watched: "_Watched"
) -> Progress:
    """Starts replicas and runs the shards that are to do; the report is written however it ends."""
    from actors.pool.replica_pool import PoolConfig, ReplicaPool

    config, stop = plan.config, StopSignals()
    minimum, maximum = config.replica_range()
    devices = math.prod(config.mesh_shape())
    pool_config = PoolConfig(
        minimum,
        maximum,
        devices,
        BATCHES_IN_FLIGHT,
        config.device,
        step_timeout_s=config.step_timeout_s,
    )
    stop.listen()
    with ray_cluster(maximum) as where:
        stop.listen()
        watched.log.result(
            "cluster",
            f"cluster  {where}; waiting for {minimum} of {maximum} replicas",
            cluster=where,
        )
        with ReplicaPool(plan.replica_spec(), pool_config, notify=watched.log.event) as pool:
            progress = Progress(
                sum(shard.rows if shard.only is None else len(shard.only) for shard in todo),
                replicas=lambda: (pool.up, pool.wanted),
                max_error_rows=_error_budget(plan),
                cost_per_replica_hour=config.cost_per_replica_hour,
                note=watched.watch.note,
                log=watched.log,
            )
            corridor = _corridor(plan, folder, identity, pool, progress, stop)
            metrics = RunMetrics(
                progress, _run_info(plan, identity), cost_budget=config.cost_budget
            )
            with reported(progress, plan, folder, identity, len(todo)), metrics:
                pool.wait_for_minimum(metrics.published_until(lambda: stop.received))
                progress.begin()
                with ProgressLine(progress, sinks=[metrics.publish], log=watched.log):
                    _drive(run(todo, corridor), progress, watched.watch)
            return progress


def _drive(committed: Generator[CommittedShard], progress: Progress, watch: RunWatch) -> None:
    """Draws all shards through the corridor, or as many as are enough.

    Commits under way are waited for.
    """
    with closing(committed):
        for _ in committed:
            if watch.satisfied(progress.replica_hours):
                progress.end_early()
                return


def _committed_shards(plan: Plan, folder: RunFolder) -> list[Shard]:
    committed = folder.committed()
    return [shard for shard in plan.own_shards if shard.number in committed]


def _corridor(
    plan: Plan,
    folder: RunFolder,
    identity: str,
    replicas: Replicas,
    progress: Progress,
    stop: StopSignals,
) -> Corridor:
    schema = output_schema(
        plan.schema,
        task=plan.config.task,
        logprobs=plan.config.logprobs,
        prompt_logprobs=plan.config.prompt_logprobs,
        choices=plan.schema.has_choices,
    )
    return Corridor(
        schema=plan.schema,
        tokenizer=plan.tokenizer,
        rules=plan.rules,
        buckets=plan.bucket_config(),
        dispatch=DispatchConfig(BATCHES_IN_FLIGHT, plan.config.max_attempts),
        replicas=replicas,
        writer=Writer(folder, schema, identity),
        progress=progress,
        interrupted=lambda: stop.received,
    )


def _run_info(plan: Plan, identity: str) -> dict[str, str]:
    """Returns what metrics tell of the run beside its name."""
    config = plan.config
    return {
        "output": str(config.output),
        "model": config.model,
        "task": config.task,
        "fingerprint": identity,
    }


def _failed_rows(plan: Plan, folder: RunFolder, identity: str) -> int:
    """Returns how many rows of this partition's committed shards failed, whoever ran them."""
    partition = plan.config.partition_pair()
    failed = remaining(plan.shards, folder, identity, partition=partition, retry_failed=True)
    return sum(len(shard.only) for shard in failed if shard.only is not None)


def _error_budget(plan: Plan) -> float:
    """Returns how many rows of this partition may fail."""
    return plan.config.max_error_rate * sum(shard.rows for shard in plan.own_shards)


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
