"""Ends a run as soon as the selection has enough rows, or a budget is used up.

A selection reads the committed shards in input order during the run, in a separate thread,
so that replicas do not wait for it. It counts what the selection at the end will count, whichever
shard is committed first.
"""

import json
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from jobs.run.early_stopping import EarlyStopping
from jobs.synthesis.config import GenerateConfig
from pipeline import storage
from pipeline.input import formats
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.seed_rows import kept_columns
from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.selection import Selection
from pipeline.synthesis.selection.selection_pass import SelectionPass


class StoredStop:
    """The block at which a budget of hours ended a run: from then on its data set is fixed.

        <run>/stop-at-10-replica-hours.json     created once: blocks that count at 10 hours

    Hours differ between runs, and between calls of one run.
    """

    def __init__(
        self, url: str, budget_hours: float, client: storage.Client = storage.DEFAULT_CLIENT
    ) -> None:
        """Reads nothing."""
        self._url = storage.join(url, f"stop-at-{budget_hours:g}-replica-hours.json")
        self._client = client

    def store(self, blocks: int) -> None:
        """Stores the block at which the budget ended the run, if none is stored yet."""
        self._client.put_if_absent(self._url, (json.dumps({"blocks": blocks}) + "\n").encode())

    def blocks(self) -> int | None:
        """Returns the number of blocks that count; None while the budget has not ended the run."""
        if self._client.stat(self._url) is None:
            return None
        content = json.loads(self._client.read(self._url)[0])
        return int(content["blocks"])


class SelectionStopping(EarlyStopping):
    """Stops for --target-rows, --max-total-tokens and --max-replica-hours."""

    def __init__(
        self,
        config: GenerateConfig,
        prompts: PromptsFolder,
        url: str,
        executor: Executor | None = None,
    ) -> None:
        """Reads nothing: the run is checked before the first call of `should_stop`.

        Args:
            config: configuration with the rules and limits.
            prompts: folder of the prompts.
            url: run folder.
            executor: runs the selection; None: a thread.
        """
        self._config = config
        self._prompts = prompts
        self._url = url
        self._selection_pass: SelectionPass | None = None
        self._stored_stop: StoredStop | None = None
        self._advancing: Future[None] | None = None
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="select")

    def should_stop(self, replica_hours: float) -> bool:
        """Returns whether the shards committed so far are enough; raises errors of the thread."""
        selection_pass = self._selection_pass
        if selection_pass is None:
            selection_pass = self._start()
            if self._stored_stop is not None and self._stored_stop.blocks() is not None:
                return True
            selection_pass.advance()
        elif self._advancing is None:
            self._advancing = self._executor.submit(selection_pass.advance)
        elif self._advancing.done():
            self._advancing.result()
            self._advancing = self._executor.submit(selection_pass.advance)

        if selection_pass.selection.stopped_by is not None:
            return True
        return self._used_up(selection_pass, replica_hours)

    def status(self) -> str:
        """Returns the number of rows accepted so far, for the progress line."""
        if self._selection_pass is None:
            return ""
        accepted = f"accepted {self._selection_pass.selection.statistics.accepted:,}"
        if self._config.target_rows is None:
            return accepted
        return f"{accepted}/{self._config.target_rows:,}"

    def close(self) -> None:
        """Ends the thread after the shards that it is reading."""
        self._executor.shutdown()

    def _start(self) -> SelectionPass:
        client = storage.RUN_CLIENT
        prompts = PromptsFolder(self._prompts.url, client)
        completions = Completions(prompts, self._url, client)
        if self._config.max_replica_hours is not None:
            self._stored_stop = StoredStop(self._url, self._config.max_replica_hours, client)
        self._selection_pass = SelectionPass(completions, make_selection(self._config, completions))
        return self._selection_pass

    def _used_up(self, selection_pass: SelectionPass, replica_hours: float) -> bool:
        """Returns whether the budget of hours is used up, and stores the block at which it was."""
        budget_hours = self._config.max_replica_hours
        if self._stored_stop is None or budget_hours is None or replica_hours < budget_hours:
            return False
        if self._advancing is not None:
            self._advancing.result()
        selection_pass.advance()
        if selection_pass.shards_read:
            self._stored_stop.store(selection_pass.position)
        return True


def check_rules(config: GenerateConfig, prompts: PromptsFolder) -> None:
    """Checks the rules of the selection against prompts, before hours of computing.

    Raises:
        ConfigError: a rule names a column that is not there, or is not a valid pattern or
            expression.
        DatasetError: the prompts are not complete.
    """
    requests = formats.parquet_schema(prompts.parts()[0].file.url)
    Selection(
        config.rules(), kept_columns(requests), logprobs=True, partition_by=config.partition_by
    )


def make_selection(config: GenerateConfig, completions: Completions) -> Selection:
    """Returns a selection over a run, without earlier samples.

    Raises:
        ConfigError: the rules do not fit the run.
    """
    return Selection(
        config.rules(),
        completions.kept,
        logprobs=completions.logprobs,
        partition_by=config.partition_by,
        examples=config.examples,
    )
