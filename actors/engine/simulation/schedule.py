"""The calls that an engine makes for given requests: the real scheduler, without devices.

Mirrors `Engine.step` and the way in which a replica takes batches in. Which calls are made does
not depend on how long they take, so one schedule serves every device. Where calls overlap, an end
before max_tokens is found one step late, as in the engine.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from itertools import chain

from actors.engine.config import EngineConfig
from actors.engine.scheduling.call_sizes import bucket_size
from actors.engine.scheduling.scheduler import DecodePlan, PrefillPlan, Scheduler
from actors.engine.scheduling.sequence import Sequence
from actors.engine.scoring import request_sequences
from actors.protocol.messages import Request, RowRef

# A request → how many tokens it generates before it ends, 1 … max_tokens.
CompletionTokens = Callable[[Request], int]


def longest_completion(request: Request) -> int:
    """Returns the tokens that a request generates where it does not end early."""
    if request.sampling is None:
        return 0
    return request.sampling.max_tokens


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How an engine makes calls, as its scheduler and its engine take it."""

    few_sizes: bool
    orders_calls: bool
    overlaps_calls: bool


GPU_POLICY = CallPolicy(few_sizes=True, orders_calls=True, overlaps_calls=True)
CPU_POLICY = CallPolicy(few_sizes=False, orders_calls=True, overlaps_calls=False)


def call_policy(*, on_gpus: bool) -> CallPolicy:
    """Returns how engines make calls on GPUs or on CPUs."""
    return GPU_POLICY if on_gpus else CPU_POLICY


@dataclass(frozen=True, slots=True)
class PrefillCall:
    """One prefill call, and the score calls over its output."""

    positions: int  # of one data shard, padding included
    tokens: int  # of all data shards, without padding
    context: float  # keys that a token sees on average
    score_calls: tuple[int, ...]  # positions of each, of one data shard


@dataclass(frozen=True, slots=True)
class DecodeCall:
    """One decode call."""

    rows: int  # of one data shard, empty ones included
    sequences: int  # rows that generate on the fullest data shard
    steps: int  # 0 where all sequences ended in the call before
    context: float  # keys that a sequence sees on average
    tokens: int  # generated on all data shards
    sorts: bool  # whether a sequence samples with a temperature


@dataclass(frozen=True, slots=True)
class Schedule:
    """The calls of one engine, and what they computed."""

    calls: tuple[PrefillCall | DecodeCall, ...]
    requests: int
    prompt_tokens: int
    cached_tokens: int  # of these, not recomputed
    data_shards: int
    slots: int  # of all data shards
    overlaps_calls: bool = False  # the host works while the devices run

    @property
    def prefill_calls(self) -> list[PrefillCall]:
        """The prefill calls, in order."""
        return [call for call in self.calls if isinstance(call, PrefillCall)]

    @property
    def decode_calls(self) -> list[DecodeCall]:
        """The decode calls, in order."""
        return [call for call in self.calls if isinstance(call, DecodeCall)]

    @property
    def prefill_tokens(self) -> int:
        """Tokens that prefill computed."""
        return sum(call.tokens for call in self.prefill_calls)

    @property
    def prefill_positions(self) -> int:
        """Positions of all prefill calls, padding included."""
        return self.data_shards * sum(call.positions for call in self.prefill_calls)

    @property
    def generated_tokens(self) -> int:
        """Tokens that decode generated."""
        return sum(call.tokens for call in self.decode_calls)

    @property
    def decode_positions(self) -> int:
        """Rows times steps of all decode calls, empty rows included."""
        return self.data_shards * sum(call.rows * call.steps for call in self.decode_calls)

    @property
    def idle_slot_share(self) -> float:
        """Share of slots times steps in which a slot generated nothing."""
        steps = sum(call.steps for call in self.decode_calls)
        if not steps:
            return 0.0
        return 1 - self.generated_tokens / (steps * self.slots)


def simulate(
    engine: EngineConfig,
    batches: Iterable[Items[Request]],
    *,
    pages: int,
    data_shards: int = 1,
    policy: CallPolicy = GPU_POLICY,
    batches_in_flight: int | None = None,
    completion_tokens: CompletionTokens = longest_completion,
) -> Schedule:
    """Returns the calls of one engine for all batches.

    Args:
        engine: sizes of the engine.
        batches: requests that travel together, in the order in which they arrive. The references
            of the requests must differ.
        pages: of the KV cache of one data shard.
        data_shards: positions along the mesh's data axis.
        policy: how calls are made.
        batches_in_flight: batches that the engine holds at the same time; None: all.
        completion_tokens: how many tokens a request generates.

    Raises:
        ValueError: a request does not fit the cache.
    """
    scheduler = Scheduler(
        engine,
        data_shards,
        pages,
        few_sizes=policy.few_sizes,
        orders_calls=policy.orders_calls,
    )
    simulation = _Simulation(
        engine,
        scheduler,
        deque(batches),
        policy.overlaps_calls,
        batches_in_flight,
        completion_tokens,
    )
    calls = tuple(simulation.run())
    return Schedule(
        calls=calls,
        requests=simulation.requests,
        prompt_tokens=simulation.prompt_tokens,
        cached_tokens=simulation.cached_tokens,
        data_shards=data_shards,
        slots=engine.shard_slots(data_shards) * data_shards,
        overlaps_calls=policy.overlaps_calls,
    )


@dataclass(slots=True)
class _Batch:
    """A batch in the engine."""

    unfinished: int  # sequences


@dataclass(slots=True)
class _Simulation:
    """One engine: the requests that wait, and those in the scheduler."""

    engine: EngineConfig
    scheduler: Scheduler
    waiting: deque[Items[Request]]
    overlaps_calls: bool
    batches_in_flight: int | None
    completion_tokens: CompletionTokens
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    _in_flight: int = 0
    _batches: dict[RowRef, _Batch] = field(default_factory=dict)
    _first_sequences: set[int] = field(default_factory=set)  # by identity
    _remaining: dict[int, int] = field(default_factory=dict)  # tokens, by identity of the sequence

    def run(self) -> Iterator[PrefillCall | DecodeCall]:
        """Yields the calls until nothing waits and nothing runs."""
        in_flight: list[Sequence] = []  # sequences that end with the step in flight
        self._take_in()
        while in_flight or not self.scheduler.idle:
            self.scheduler.admit()
            ended: list[Sequence] = []
            prefill = self.scheduler.next_prefill()
            if prefill is not None:
                yield self._prefill_call(prefill)
                for sequence in self.scheduler.advance_prefill(prefill):
                    self.scheduler.release(sequence)
                    ended.append(sequence)

            decode = self.scheduler.next_decode()
            if decode is not None:
                call, finished = self._decode_call(decode)
                yield call
                ended += finished
            if prefill is None and decode is None and not in_flight:
                raise ValueError("simulation: a request does not fit the cache")

            found = ended
            if self.overlaps_calls:
                found = in_flight
                in_flight = ended
            for sequence in found:
                self._finish(sequence)
            self._take_in()

    def _take_in(self) -> None:
        """Submits waiting batches while the engine may hold more."""
        limit = self.batches_in_flight
        while self.waiting and (limit is None or self._in_flight < limit):
            self._submit(self.waiting.popleft())

    def _submit(self, requests: Items[Request]) -> None:
        batch = _Batch(unfinished=0)
        for request in requests:
            with_prompt = self.engine.prompt_logprobs is not None
            sequences, _ = request_sequences(request, with_prompt=with_prompt)
            self._first_sequences.add(id(sequences[0]))
            for sequence in sequences:
                if sequence.generates:
                    self._remaining[id(sequence)] = self.completion_tokens(request)
                self.scheduler.submit(sequence)
            batch.unfinished += len(sequences)
            self._batches[request.ref] = batch
            self.requests += 1
            self.prompt_tokens += len(request.prompt_ids)
        if batch.unfinished:
            self._in_flight += 1

    def _finish(self, sequence: Sequence) -> None:
        if id(sequence) in self._first_sequences:
            self._first_sequences.remove(id(sequence))
            self.cached_tokens += sequence.shared_pages * self.engine.page_size
        self._remaining.pop(id(sequence), None)
        if sequence.holds_pages:
            self.scheduler.release(sequence)

        batch = self._batches[sequence.request.ref]
        batch.unfinished -= 1
        if not batch.unfinished:
            self._in_flight -= 1

    def _prefill_call(self, plan: PrefillPlan) -> PrefillCall:
        tokens = 0
        pairs = 0.0
        targets = 0
        for chunks in plan.data_shards:
            shard_targets = 0
            for chunk in chunks:
                tokens += chunk.count
                pairs += chunk.count * (chunk.start + chunk.end + 1) / 2
                shard_targets += len(chunk.sequence.targets.within(chunk.start, chunk.end))
            targets = max(targets, shard_targets)
        return PrefillCall(
            positions=plan.rows * self.engine.chunk,
            tokens=tokens,
            context=pairs / tokens,
            score_calls=tuple(self._score_calls(targets)),
        )

    def _score_calls(self, targets: int) -> Iterator[int]:
        """Yields the positions of each score call over `targets` positions."""
        first = 0
        while first < targets:
            size = bucket_size(targets - first, self.scheduler.sizes.score_positions)
            yield size
            first += size

    def _decode_call(self, plan: DecodePlan) -> tuple[DecodeCall, list[Sequence]]:
        """Returns a decode call and the sequences that ended with it."""
        generating = [list(filter(self._generates, shard)) for shard in plan.data_shards]
        sequences = list(chain.from_iterable(generating))
        remaining_tokens = [self._remaining[id(sequence)] for sequence in sequences]
        steps = min(self.engine.decode_steps, max(remaining_tokens, default=0))

        ended: list[Sequence] = []
        tokens = 0
        cached = 0.0
        sorts = False
        for sequence, remaining in zip(sequences, remaining_tokens, strict=True):
            generated = min(steps, remaining)
            cached += sequence.computed + (generated + 1) / 2
            tokens += generated
            self._remaining[id(sequence)] = remaining - generated
            if remaining == generated:
                ended.append(sequence)
            sampling = sequence.request.sampling
            sorts = sorts or (sampling is not None and sampling.temperature > 0)
        for sequence in self.scheduler.advance_decode(plan):
            self.scheduler.release(sequence)

        call = DecodeCall(
            rows=plan.rows,
            sequences=max(map(len, generating)),
            steps=steps,
            context=cached / max(1, len(sequences)),
            tokens=tokens,
            sorts=sorts,
        )
        return call, ended

    def _generates(self, sequence: Sequence) -> bool:
        """Returns whether a sequence of a call had not ended in the call before."""
        return self._remaining[id(sequence)] > 0
