"""Rules that end a run before all of its rows are done; the main job itself has none."""

from collections.abc import Sequence

from pipeline.records import Shard


class EarlyStopping:
    """Decides which shards a run covers and when it may stop. This base class never stops a run."""

    def select_shards(self, remaining: Sequence[Shard]) -> Sequence[Shard]:
        """Returns the shards to run now, of those that are not committed."""
        return remaining

    def should_stop(self, replica_hours: float) -> bool:
        """Returns whether the run may stop now.

        Called before the run starts and after every commit.

        Args:
            replica_hours: hours that replicas were up, in all calls of the run so far.
        """
        return False

    def status(self) -> str:
        """Returns a short text for the progress line."""
        return ""

    def close(self) -> None:
        """Releases threads and files."""


NEVER_STOP = EarlyStopping()
