"""The figures of one moment of a run.

`pipeline/monitoring/progress.py` takes it; nothing is counted here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.protocol.messages import ReplicaStats
from pipeline.monitoring.window_counts import WindowCounts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of one moment.

    Rates are of the last minute, all else is since the start of this driver.
    """

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
    cached: int = 0  # tokens in that were not computed again
    codes: Mapping[str, int] = field(default_factory=dict)  # samples with an error, by its code
    shards_committed: int = 0
    in_flight: int = 0  # batches that replicas hold
    came_up: int = 0  # replicas so far: the first ones and those that took the place of lost ones
    lost: int = 0  # replicas so far
    # when the last new row was seen, in seconds since 1970; before the first one, the start
    progressed_at: float = 0.0
    engine: ReplicaStats = field(default_factory=ReplicaStats)  # counters of all replicas together
    note: str = ""  # of whoever watches the run
    activity: str = ""  # of replicas that load or compile
    phase: str = "running"  # or what replicas do while no row is computed: start, load, compile
    finish_reasons: Mapping[str, int] = field(default_factory=dict)  # samples without an error
    # of texts longer than the context
    windows: WindowCounts = field(default_factory=WindowCounts)

    @property
    def prefix_reuse(self) -> float:
        """Share of the tokens in that were not computed again."""
        if not self.tokens_in:
            return 0.0
        return self.cached / self.tokens_in
