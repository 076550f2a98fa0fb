"""Counts accepted rows while the run goes on, in input order over what is committed, and ends it when there are enough.

Judging takes place in a thread of its own: replicas are not to wait for it. What it counts is what
the selection at the end will count; which shard was finished first does not matter.
"""

from concurrent.futures import Future, ThreadPoolExecutor

from jobs.run.early_stopping import EarlyStopping
from jobs.run.replica_hours import HourLedger
from jobs.synthesis.config import GenerateConfig
from pipeline import storage
from pipeline.input import formats
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.seed_rows import kept_columns
from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.selection import Selection
from pipeline.synthesis.selection.selection_pass import Fold


class TargetWatch(EarlyStopping):
    """Watches a run for --target-rows, --max-total-tokens and --max-replica-hours."""

    def __init__(self, config: GenerateConfig, prompts: PromptsFolder, url: str) -> None:
        """Reads nothing before the run is known to be the right one: the first question comes after that."""
        self._config, self._prompts, self._url = config, prompts, url
        self._fold: Fold | None = None
        self._ledger: HourLedger | None = None
        self._judging: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="select")

    def should_stop(self, replica_hours: float) -> bool:
        """Looks at what is committed by now; raises what judging raised."""
        if self._fold is None:
            self._fold = self._begin()
            if self._stopped():
                return True
            self._fold.advance()
        elif self._judging is None or self._judging.done():
            if self._judging is not None:
                self._judging.result()
            self._judging = self._pool.submit(self._fold.advance)
        return self._fold.selection.enough is not None or self._used_up(self._fold, replica_hours)

    def status(self) -> str:
        """Returns how many rows are accepted so far."""
        if self._fold is None:
            return ""
        target = self._config.target_rows
        wanted = f"/{target:,}" if target is not None else ""
        return f"accepted {self._fold.selection.statistics.accepted:,}{wanted}"

    def close(self) -> None:
        """Ends the thread; judging that is under way is waited for."""
        self._pool.shutdown()

    def _begin(self) -> Fold:
        client = storage.RUN_CLIENT
        prompts = PromptsFolder(self._prompts.url, client)
        completions = Completions(prompts, self._url, client)
        if self._config.max_replica_hours is not None:
            self._ledger = HourLedger(self._url, self._config.max_replica_hours, client)
        return Fold(completions, make_selection(self._config, completions))

    def _stopped(self) -> bool:
        return self._ledger is not None and self._ledger.stopped_at() is not None

    def _used_up(self, fold: Fold, replica_hours: float) -> bool:
        if self._ledger is None or not self._ledger.used_up(replica_hours):
            return False
        if self._judging is not None:
            self._judging.result()
        fold.advance()
        if fold.shards_read:
            self._ledger.stop_at(fold.position)
        return True


def check_rules(config: GenerateConfig, prompts: PromptsFolder) -> None:
    """Checks the selection's rules against prompts, before hours of computing.

    Raises:
        ConfigError: a rule names a column that is not there, or is no pattern or expression.
        DatasetError: the prompts are not complete.
    """
    requests = formats.parquet_schema(prompts.parts()[0].file.url)
    Selection(
        config.rules(), kept_columns(requests), logprobs=True, partition_by=config.partition_by
    )


def make_selection(config: GenerateConfig, completions: Completions) -> Selection:
    """Returns a fresh selection over a run.

    Raises:
        ConfigError: its rules do not fit the run.
    """
    return Selection(
        config.rules(),
        completions.kept,
        logprobs=completions.logprobs,
        partition_by=config.partition_by,
        examples=config.examples,
    )
