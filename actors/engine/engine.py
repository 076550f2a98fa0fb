"""Requests in, completions out, on one mesh: `step()` is schedule → run → collect.

    engine.add(request)          any time; a request that cannot run raises RequestError
    completions = engine.step()  one prefill and one decode call; returns what has finished

Knows no Ray, no text and no files. Not thread-safe: one thread owns an engine.
"""

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jax import Array

from actors.engine.programs import Programs, affordable_cache_tokens
from actors.engine.repetition import RepetitionSearch
from actors.engine.sampling import SamplingArrays
from actors.engine.scheduler import DecodePlan, PrefillPlan, Scheduler
from actors.engine.scoring import (
    Reading,
    prompt_targets,
    score_completion,
    score_sequences,
    with_prompt_logprobs,
)
from actors.engine.sequence import GenerationState, Sequence, Targets, no_targets
from actors.engine.steps import DecodeInput, DecodeOutput, EngineContext
from actors.engine.stops import StopSearch
from actors.model.language_model import Step
from actors.protocol.errors import (
    EmptyPromptError,
    InvalidParameterError,
    InvalidTokenError,
    ModelError,
    PromptTooLongError,
)
from actors.protocol.messages import Completion, ReplicaStats, Request, RowRef, logprobs, token_ids
from actors.protocol.sampling import Sampling

T = TypeVar("T")

SCORE_ROWS = (16, 64, 256)  # targets of one score call on one data shard; more are several calls


@dataclass(slots=True, eq=False)
class Job:
    """A request that runs: its sequences and how many of them are not done."""

    request: Request
    sequences: list[Sequence]
    readings: list[Reading]  # one per continuation; none when it generates
    unfinished: int


class Engine:
    """Runs requests on one mesh with continuous batching and prefix reuse.

    Args:
        context: model, sizes, dtype and mesh.
        params: the model's parameters, placed on the mesh.
        token_bytes: bytes that each token id decodes to; needed only by requests with stop strings.
    """

    def __init__(
        self, context: EngineContext, params: object, token_bytes: Items[bytes] | None = None
    ) -> None:
        config = context.engine
        if max(config.logprobs or 0, config.prompt_logprobs or 0) > context.model.vocab_size:
            raise ModelError(
                "engine: log-probs of more tokens asked for than the vocabulary's "
                f"{context.model.vocab_size}"
            )
        self.context = context
        self.cache_tokens = affordable_cache_tokens(context)
        pages = self.cache_tokens // config.page_size + (self.cache_tokens % config.page_size > 0)
        self.programs = Programs(context, params, pages)
        self.scheduler = Scheduler(
            config, context.data_shards, pages, one_width=not context.kernels.reads_whole_table
        )
        self._token_bytes = token_bytes
        self._jobs: dict[RowRef, Job] = {}
        self._stats = ReplicaStats()
        self._created = time.perf_counter()

    @property
    def idle(self) -> bool:
        """Whether no request is in the engine."""
        return self.scheduler.idle

    def stats(self) -> ReplicaStats:
        """Returns the counters since the engine was made."""
        return replace(
            self._stats,
            compile_s=self.programs.compile_s,
            programs=self.programs.programs,
            up_s=time.perf_counter() - self._created,
        )

    def _count(self, **more: int | float) -> None:
        self._stats = replace(
            self._stats,
            **{name: getattr(self._stats, name) + value for name, value in more.items()},
        )

    def add(self, request: Request) -> None:
        """Takes a request in.

        Raises:
            RequestError: it cannot run here (no token, ids outside the vocabulary, too long, bad parameters).
            ValueError: a request with this address is already running.
        """
        if request.ref in self._jobs:
            raise ValueError(f"request {request.ref} is already in the engine")
        self._check(request)
        sequences, readings = self._sequences(request)
        for sequence in sequences:
            self.scheduler.submit(sequence)
        self._jobs[request.ref] = Job(request, sequences, readings, unfinished=len(sequences))
        self._count(requests=1, prompt_tokens=len(request.prompt_ids))

    def _check(self, request: Request) -> None:
        model, config = self.context.model, self.context.engine
        if not request.prompt_ids or (
            request.sampling is None and not all(request.continuations or ((),))
        ):
            raise EmptyPromptError(
                "the prompt, or a continuation to score, has no token; give at least one"
            )
        for ids in (request.prompt_ids, *request.continuations):
            if min(ids) < 0 or max(ids) >= model.vocab_size:
                bad = next(i for i in ids if not 0 <= i < model.vocab_size)
                raise InvalidTokenError(
                    f"token id {bad} is outside the vocabulary of {model.vocab_size}"
                )
        limit = min(config.max_len, self.scheduler.capacity())
        if request.longest > limit:
            raise PromptTooLongError(
                f"prompt of {len(request.prompt_ids)} tokens needs {request.longest} with its "
                "completion, "
                f"this engine holds {limit}; shorten it, lower max_tokens or raise --max-len"
            )
        if request.sampling is not None:
            self._check_sampling(request.sampling)

    def _check_sampling(self, sampling: Sampling) -> None:
        if sampling.max_tokens < 1:
            raise InvalidParameterError(f"max_tokens must be at least 1, got {sampling.max_tokens}")
        if sampling.repetition_penalty != 1 and not self.context.engine.repetition_penalty:
            raise InvalidParameterError(
                f"repetition_penalty: expected 1, got {sampling.repetition_penalty}: this engine "
                "was made without "
                "EngineConfig.repetition_penalty"
            )
        if sampling.stop and self._token_bytes is None:
            raise InvalidParameterError("stop strings need a tokenizer; give --tokenizer")

    def _sequences(self, request: Request) -> tuple[list[Sequence], list[Reading]]:
        asked = self.context.engine.prompt_logprobs is not None
        if request.sampling is None:
            return score_sequences(request, with_prompt=asked)
        prompt = np.asarray(request.prompt_ids, np.int32)
        generation = GenerationState()
        if request.sampling.stop:
            generation.search = StopSearch(request.sampling.stop, self._token_bytes or ())
        if request.sampling.repetition_max_pattern:
            generation.repetition = RepetitionSearch(
                request.sampling.repetition_max_pattern, request.sampling.repetition_min_count
            )
        targets = Targets(*prompt_targets(request)) if asked else no_targets()
        return [
            Sequence(request, prompt, goal=len(prompt) - 1, targets=targets, generation=generation)
        ], []

    def step(self) -> list[Completion]:
        """Runs one prefill and one decode call, as far as there is work.

        Returns the completions that came out of them.
        """
        began = time.perf_counter()
        self.scheduler.admit()
        over = [*self._prefill_once(), *self._decode_once()]
        completions = [done for sequence in over if (done := self._finish(sequence)) is not None]
        self._count(busy_s=time.perf_counter() - began)
        return completions

    def _prefill_once(self) -> list[Sequence]:
        plan = self.scheduler.next_prefill()
        if plan is None:
            return []
        began = time.perf_counter()
        hidden = self.programs.prefill(self._prefill_step(plan))
        self._read_targets(plan, hidden)
        over = self.scheduler.finish_prefill(plan)
        self._count(
            prefill_s=time.perf_counter() - began,
            prefill_tokens=sum(piece.count for pieces in plan.data_shards for piece in pieces),
            prefill_positions=len(plan.data_shards) * plan.rows * self.context.engine.chunk,
            prefill_calls=1,
        )
        return over

    def _prefill_step(self, plan: PrefillPlan) -> Step:
        rows, chunk = len(plan.data_shards) * plan.rows, self.context.engine.chunk
        tokens, pages = np.zeros((rows, chunk), np.int32), np.zeros((rows, plan.width), np.int32)
        start, count = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row, piece in _rows(plan.data_shards, plan.rows):
            start[row], count[row] = piece.start, piece.count
            tokens[row, : piece.count] = piece.sequence.tokens[
                piece.start : piece.start + piece.count
            ]
            _fill_table(pages[row], piece.sequence)
        return Step(tokens=tokens, start=start, count=count, pages=pages)  # type: ignore[arg-type]

    def _read_targets(self, plan: PrefillPlan, hidden: Array) -> None:
        """Computes the log-probs that are asked for at the positions of this prefill, in chunks of few sizes."""
        asked: list[list[tuple[Targets, np.ndarray, np.ndarray]]] = [[] for _ in plan.data_shards]
        for data_shard, pieces in enumerate(plan.data_shards):
            for row, piece in enumerate(pieces):
                targets = piece.sequence.targets
                index = targets.within(piece.start, piece.start + piece.count)
                if len(index):
                    flat = row * self.context.engine.chunk + targets.positions[index] - piece.start
                    asked[data_shard].append((targets, index, flat))
        if not any(asked):
            return
        positions = [_joined([flat for _, _, flat in data_shard]) for data_shard in asked]
        tokens = [
            _joined([targets.tokens[index] for targets, index, _ in data_shard])
            for data_shard in asked
        ]
        read = self._score_chunks(hidden, positions, tokens)
        for shard_asked, columns in zip(asked, read, strict=True):
            at = 0
            for targets, index, _ in shard_asked:
                targets.fill(index, *(column[at : at + len(index)] for column in columns))
                at += len(index)

    def _score_chunks(
        self, hidden: Array, positions: list[np.ndarray], targets: list[np.ndarray]
    ) -> list[list[np.ndarray]]:
        """Runs `score` over all data shards' targets.

        Returns per data shard (log-prob, is_greedy, top ids, top log-probs).
        """
        data_shards = len(positions)
        parts: list[list[list[np.ndarray]]] = [[] for _ in range(data_shards)]
        longest, at = max(len(p) for p in positions), 0
        while at < longest:
            size = next((rows for rows in SCORE_ROWS if rows >= longest - at), SCORE_ROWS[-1])
            index, target = np.zeros((2, data_shards, size), np.int32)
            for data_shard in range(data_shards):
                chunk = slice(at, at + size)
                n = len(positions[data_shard][chunk])
                index[data_shard, :n], target[data_shard, :n] = (
                    positions[data_shard][chunk],
                    targets[data_shard][chunk],
                )
            out = self.programs.score(hidden, index.ravel(), target.ravel())
            for data_shard in range(data_shards):
                parts[data_shard].append(
                    [
                        np.asarray(column)[data_shard * size : (data_shard + 1) * size]
                        for column in out
                    ]
                )
            at += size
        return [
            [np.concatenate(columns) for columns in zip(*data_shard, strict=True)]
            for data_shard in parts
        ]

    def _decode_once(self) -> list[Sequence]:
        plan = self.scheduler.next_decode()
        if plan is None:
            return []
        began = time.perf_counter()
        output = self.programs.decode(self._decode_input(plan))
        over, kept = [], 0
        for row, sequence in _rows(plan.data_shards, plan.rows):
            before = _generated_count(sequence)
            if self._take(sequence, output, row):
                over.append(sequence)
            kept += _generated_count(sequence) - before
        self._count(
            decode_s=time.perf_counter() - began,
            generated_tokens=kept,
            decode_positions=int(output.steps[0]) * plan.rows * len(plan.data_shards),
            decode_calls=1,
        )
        return over

    def _decode_input(self, plan: DecodePlan) -> DecodeInput:
        rows = len(plan.data_shards) * plan.rows
        ints = {
            name: np.zeros(rows, np.int32)
            for name in ("tokens", "start", "left", "top_k", "position", "eos_from")
        }
        temperature, top_p, min_p, penalty = np.array(
            [[0.0], [1.0], [0.0], [1.0]], np.float32
        ).repeat(rows, axis=1)
        seed, stops = np.zeros((rows, 2), np.uint32), np.zeros(rows, np.bool_)
        pages = np.zeros((rows, plan.width), np.int32)
        for row, sequence in _rows(plan.data_shards, plan.rows):
            _fill_table(pages[row], sequence)
            sampling, generation = _generating(sequence)
            n = len(generation.tokens)
            ints["tokens"][row] = generation.tokens[-1] if n else sequence.tokens[-1]
            ints["start"][row] = sequence.computed
            ints["left"][row] = sampling.max_tokens - n
            ints["top_k"][row] = min(sampling.top_k, self.context.model.vocab_size)
            ints["position"][row], ints["eos_from"][row] = (
                n,
                0 if sampling.ignore_eos else sampling.min_tokens,
            )
            temperature[row], top_p[row], min_p[row] = (
                sampling.temperature,
                sampling.top_p,
                sampling.min_p,
            )
            penalty[row] = sampling.repetition_penalty
            seed[row] = sampling.seed >> 32, sampling.seed & 0xFFFFFFFF
            stops[row] = not sampling.ignore_eos
        penalties = penalty if self.context.engine.repetition_penalty else None
        arrays = SamplingArrays(
            *(temperature, top_p, ints["top_k"], min_p, seed, ints["position"], ints["eos_from"]),  # type: ignore[arg-type]
            penalties,
        )
        return DecodeInput(ints["tokens"], ints["start"], ints["left"], stops, pages, arrays)  # type: ignore[arg-type]

    def _take(self, sequence: Sequence, output: DecodeOutput, row: int) -> bool:
        """Adds what was drawn for a sequence, up to its end; returns whether it has ended."""
        sampling, generation = _generating(sequence)
        for step in range(int(output.token_count[row])):
            token = int(output.tokens[row, step])
            generation.tokens.append(token)
            generation.logprobs.append(float(output.logprobs[row, step]))
            if output.top_ids.shape[-1]:
                generation.top_ids.append(np.asarray(output.top_ids[row, step]))
                generation.top_logprobs.append(np.asarray(output.top_logprobs[row, step]))
            sequence.computed += 1
            if generation.search is not None:
                generation.match = generation.search.feed(
                    token, armed=len(generation.tokens) > sampling.min_tokens
                )
            if generation.repetition is not None:
                generation.in_loop = generation.repetition.feed(
                    token, armed=len(generation.tokens) >= sampling.min_tokens
                )
            if (
                generation.match
                or generation.in_loop
                or self._at_eos(sequence)
                or len(generation.tokens) >= sampling.max_tokens
            ):
                return True
        return False

    def _at_eos(self, sequence: Sequence) -> bool:
        sampling, generation = _generating(sequence)
        return not sampling.ignore_eos and generation.tokens[-1] == self.context.model.eos_token

    def _finish(self, sequence: Sequence) -> Completion | None:
        """Frees an ended sequence; returns its request's completion when it was the last one."""
        self.scheduler.release(sequence)
        for scores in sequence.shared_scores:
            sequence.targets.copy_shared(scores)
        if sequence.targets.missing:
            raise RuntimeError(
                f"{sequence.request.ref}: {sequence.targets.missing} log-probs that were asked for "
                "were never read"
            )
        job = self._jobs[sequence.request.ref]
        job.unfinished -= 1
        if job.unfinished:
            return None
        del self._jobs[sequence.request.ref]
        first = job.sequences[0]
        cached = first.shared * self.context.engine.page_size
        self._count(cached_tokens=cached)
        if first.generation is None:
            return score_completion(
                job.request, job.readings, cached, self.context.engine.prompt_logprobs
            )
        return self._completion(first, cached)

    def _completion(self, sequence: Sequence, cached_tokens: int) -> Completion:
        request = sequence.request
        sampling, generation = _generating(sequence)
        top_k = self.context.engine.logprobs
        stop_reason = (
            generation.match.stop if generation.match else "eos" if self._at_eos(sequence) else None
        )
        completion = Completion(
            ref=request.ref,
            attempts=request.attempts,
            token_ids=token_ids(generation.tokens),
            text_bytes=generation.match.text_bytes if generation.match else None,
            finish_reason="stop"
            if stop_reason
            else "repetition"
            if generation.in_loop
            else "length",
            stop_reason=stop_reason,
            prompt_tokens=len(request.prompt_ids),
            cached_tokens=cached_tokens,
            token_logprobs=None if top_k is None else logprobs(generation.logprobs),
            top_token_ids=token_ids(np.concatenate(generation.top_ids).tolist()) if top_k else None,
            top_logprobs=logprobs(np.concatenate(generation.top_logprobs).tolist())
            if top_k
            else None,
            seed=sampling.seed,
        )
        return with_prompt_logprobs(
            completion, sequence.targets, self.context.engine.prompt_logprobs
        )


def _rows(data_shards: list[list[T]], rows: int) -> list[tuple[int, T]]:
    """Returns (row of the call, item of a data shard), data shards one after the other, each of `rows` rows."""
    return [
        (data_shard * rows + row, item)
        for data_shard, items in enumerate(data_shards)
        for row, item in enumerate(items)
    ]


def _fill_table(row: np.ndarray, sequence: Sequence) -> None:
    pages = sequence.pages[: len(row)]
    row[: len(pages)] = pages


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)


def _generated_count(sequence: Sequence) -> int:
    return len(sequence.generation.tokens) if sequence.generation else 0


def _generating(sequence: Sequence) -> tuple[Sampling, GenerationState]:
    """Returns the two parts that a generating sequence has."""
    if sequence.request.sampling is None or sequence.generation is None:
        raise ValueError(f"sequence of {sequence.request.ref} does not generate")
    return sequence.request.sampling, sequence.generation
