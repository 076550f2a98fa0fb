"""Whether prefill or decode waits, where a call costs nearly the same however empty it is.

On GPUs, a prefill call with few tokens takes as long as its size, and a decode step reads all
weights whatever the number of sequences. So prefill waits until it can fill a call or many slots
are idle, and decode waits until most slots have a prompt. Found with the simulation,
docs/benchmarks/simulation.md. No sequence waits for ever: one of the two always runs.
"""

from dataclasses import dataclass

# Share of the slots in use that do not decode before prefill runs calls that are not full.
MAX_IDLE_SHARE = 0.25
# Share of the slots in use that decode waits for while there is something to prefill.
MIN_DECODING_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the data shards of an engine have to do."""

    prefill_tokens: int  # that remain, on the data shard with the most
    prefill_generates: bool  # whether all sequences to prefill generate afterwards
    prefill_can_run: bool
    slots_used: int  # of all data shards: as many as there are slots and pages
    decoding: int  # sequences of all data shards
    decode_can_run: bool


def prefill_waits(backlog: Backlog, call_tokens: int) -> bool:
    """Returns whether decode runs alone because a prefill call would be mostly empty.

    Args:
        backlog: what there is to do.
        call_tokens: tokens of a full prefill call of one data shard.
    """
    if not backlog.decode_can_run or not backlog.prefill_generates:
        return False
    idle_slots = backlog.slots_used - backlog.decoding
    has_idle_slots = idle_slots >= MAX_IDLE_SHARE * backlog.slots_used
    return backlog.prefill_tokens < call_tokens and not has_idle_slots


def decode_waits(backlog: Backlog, call_tokens: int) -> bool:
    """Returns whether prefill runs again because too few slots are in use.

    Args and result as in `prefill_waits`; never both are true.
    """
    if not backlog.prefill_can_run or not backlog.prefill_generates:
        return False
    if prefill_waits(backlog, call_tokens):
        return False
    return backlog.decoding < MIN_DECODING_SHARE * backlog.slots_used
