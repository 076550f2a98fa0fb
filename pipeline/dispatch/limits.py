"""What dispatch needs of the limits on time and money, which jobs/run/limits.py sets."""

from typing import Protocol

from pipeline.errors import LimitReachedError

LIMIT_REACHED = "a limit of the run is reached"  # why a replica is let go before the end of a run


class Limits(Protocol):
    """Limits on the time and money of a run."""

    def reached(self, within_s: float = 0.0) -> bool:
        """Returns whether a limit is reached within a time if all replicas that are up stay up."""

    def expired(self) -> bool:
        """Returns whether even the time that is kept for the last commits is over."""

    def error(self) -> LimitReachedError:
        """Returns the error that names the limit that is reached."""


class NoLimits:
    """A run that goes on until all rows are done."""

    def reached(self, within_s: float = 0.0) -> bool:
        """Returns False."""
        return False

    def expired(self) -> bool:
        """Returns False."""
        return False

    def error(self) -> LimitReachedError:
        """Returns an error without a limit, which nothing raises."""
        return LimitReachedError("no limit is set")


NO_LIMITS = NoLimits()
