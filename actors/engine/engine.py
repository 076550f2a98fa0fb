"""Requests in, completions out, on one mesh: `step()` is schedule → dispatch → read.

    engine.add(request)          any time; a request that cannot run raises RequestError
    completions = engine.step()  one prefill and one decode call; returns what has finished

On GPUs, a step reads the results of the step before, while the devices run its own:

    devices   ███ step 1 ███ ███ step 2 ███ ███ step 3 ███
    host      plan 2          read 1, plan 3  read 2, plan 4

The last token of each sequence stays on the devices as the input of the next call. An end that the
host finds is found while the next call generates further tokens: they are discarded.

Does not depend on Ray, the tokenizer or files. Not thread-safe: one thread owns an engine.
"""

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

import numpy as np
from jax import Array

from actors.engine.call_inputs import call_rows_of, decode_input, prefill_input
from actors.engine.compilation import CompiledPrograms, ProgramShape
from actors.engine.generation import GenerationState, start_generation
from actors.engine.in_flight import DecodeInFlight, PrefillInFlight, ScoredChunk, StepInFlight
from actors.engine.logits.chain import missing_parameter
from actors.engine.pooling import POOLS, with_embedding
from actors.engine.programs import Programs, affordable_cache_tokens, read
from actors.engine.scheduling.call_sizes import bucket_size
from actors.engine.scheduling.scheduler import PrefillPlan, Scheduler
from actors.engine.scheduling.sequence import Sequence
from actors.engine.scoring import (
    Reading,
    request_sequences,
    score_completion,
    with_prompt_logprobs,
)
from actors.engine.steps import EngineContext
from actors.engine.vocabulary import Likelihood
from actors.protocol.errors import (
    EmptyPromptError,
    InvalidParameterError,
    InvalidTokenError,
    ModelError,
    PromptTooLongError,
)
from actors.protocol.messages import Completion, ReplicaStats, Request, RowRef
from actors.protocol.sampling import PARAMETERS, Sampling


@dataclass(slots=True, eq=False)
class Job:
    """A request that runs: its sequences, and how many of them have not ended."""

    request: Request
    sequences: list[Sequence]
    readings: list[Reading]  # one per continuation; none where the request scores nothing
    generation: GenerationState | None  # None where the request generates nothing
    unfinished: int


class Engine:
    """Runs requests on one mesh with continuous batching and prefix reuse.

    Args:
        context: model, sizes, dtype and mesh.
        params: the model's parameters, placed on the mesh.
        token_bytes: bytes that each token id decodes to; needed only by requests with stop strings.
        compiled: programs that engines of an equal context share; None: programs of its own.
        overlaps_calls: whether a step is dispatched before the results of the last one are read;
            None: as the platform prefers.

    Raises:
        ModelError: more log-probs are requested than the vocabulary has, or the cache does not fit.
    """

    def __init__(
        self,
        context: EngineContext,
        params: object,
        token_bytes: Items[bytes] | None = None,
        compiled: CompiledPrograms | None = None,
        overlaps_calls: bool | None = None,
    ) -> None:
        config = context.engine
        vocab_size = context.model.vocab_size
        if max(config.logprobs or 0, config.target_logprobs) > vocab_size:
            raise ModelError(
                "engine: log-probs of more tokens requested than the vocabulary's "
                f"{vocab_size}; lower --logprobs, --prompt-logprobs or --top-k-logprobs"
            )
        self.context = context
        self.cache_tokens = affordable_cache_tokens(context, params)
        pages = -(-self.cache_tokens // config.page_size)
        self.programs = Programs(context, params, pages, compiled)
        self.scheduler = Scheduler(
            config,
            context.data_shards,
            pages,
            few_sizes=not context.platform.reads_whole_table,
        )
        self.overlaps_calls = context.platform.overlaps_calls
        if overlaps_calls is not None:
            self.overlaps_calls = overlaps_calls
        self._in_flight: StepInFlight | None = None
        self._token_bytes = token_bytes
        self._jobs: dict[RowRef, Job] = {}
        self._stats = ReplicaStats()
        self._created = time.perf_counter()
        self._ready_s = 0.0  # when the last call was found to be ready

    @property
    def idle(self) -> bool:
        """Whether no request is in the engine."""
        return self.scheduler.idle and self._in_flight is None

    def stats(self) -> ReplicaStats:
        """Returns the counters since the engine was made."""
        counts = self.programs.counts()
        return replace(
            self._stats,
            compile_s=self.programs.compile_s,
            programs=counts.compiled,
            programs_cached=counts.cached,
            program_s=counts.compile_s,
            up_s=time.perf_counter() - self._created,
        )

    def _clock_s(self) -> float:
        """Returns a time that stands still while programs are compiled."""
        return time.perf_counter() - self.programs.compile_s

    def _count(self, **increments: int | float) -> None:
        counters = {name: getattr(self._stats, name) + by for name, by in increments.items()}
        self._stats = replace(self._stats, **counters)

    # -- requests ----------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Takes a request in.

        Raises:
            RequestError: it cannot run here: no token, an id outside the vocabulary, too long, or a
                parameter that is not valid.
            ValueError: a request with this address is already running.
        """
        if request.ref in self._jobs:
            raise ValueError(f"request {request.ref} is already in the engine")
        self._check(request)
        job = self._job(request)
        for sequence in job.sequences:
            self.scheduler.submit(sequence)
        self._jobs[request.ref] = job
        self._count(requests=1, prompt_tokens=len(request.prompt_ids))

    def _check(self, request: Request) -> None:
        self._check_tokens(request)
        limit = min(self.context.engine.max_len, self.scheduler.capacity())
        if request.longest > limit:
            raise PromptTooLongError(
                f"prompt of {len(request.prompt_ids)} tokens needs {request.longest} with its "
                f"completion, this engine holds {limit}; shorten it, lower max_tokens or raise "
                "--max-len"
            )
        if request.sampling is not None:
            self._check_sampling(request.sampling)
        if request.embeds and self.context.engine.pooling is None:
            raise InvalidParameterError(
                "embedding: the engine is compiled without pooling; set EngineConfig.pooling"
            )

    def _check_tokens(self, request: Request) -> None:
        texts = [request.prompt_ids, *request.continuations]
        scores_nothing = request.sampling is None and not request.continuations
        if (scores_nothing and not request.embeds) or not all(texts):
            raise EmptyPromptError(
                "the prompt, or a continuation to score, has no token; give at least one"
            )
        vocab_size = self.context.model.vocab_size
        for ids in texts:
            if min(ids) >= 0 and max(ids) < vocab_size:
                continue
            first_invalid = next(token for token in ids if not 0 <= token < vocab_size)
            raise InvalidTokenError(
                f"token id {first_invalid} is outside the vocabulary of {vocab_size}"
            )

    def _check_sampling(self, sampling: Sampling) -> None:
        if sampling.max_tokens < 1:
            raise InvalidParameterError(f"max_tokens must be at least 1, got {sampling.max_tokens}")
        missing = missing_parameter(self.context.logits_chain, sampling)
        if missing is not None:
            raise InvalidParameterError(
                f"{missing}: expected {PARAMETERS[missing].default}, got "
                f"{getattr(sampling, missing)}: decode is compiled without it; name it in "
                "EngineConfig.sampling_parameters"
            )
        if sampling.stop and self._token_bytes is None:
            raise InvalidParameterError("stop strings need a tokenizer; give --tokenizer")

    def _job(self, request: Request) -> Job:
        with_prompt = self.context.engine.prompt_logprobs is not None
        sequences, readings = request_sequences(request, with_prompt=with_prompt)
        generation = None
        if request.sampling is not None:
            generation = start_generation(
                request, request.sampling, self.context.model.eos_token, self._token_bytes or ()
            )
        return Job(request, sequences, readings, generation, unfinished=len(sequences))

    # -- calls -------------------------------------------------------------------------------------

    def step(self) -> list[Completion]:
        """Dispatches one prefill and one decode call, as far as there is work, and reads results.

        These are of the calls of the last step where calls overlap, else of its own.

        Returns the completions that came out of them.
        """
        began_s = self._clock_s()
        dispatched = self._dispatch()
        finished = dispatched
        if self.overlaps_calls:
            finished = self._in_flight
            self._in_flight = dispatched

        completions: list[Completion] = []
        if finished is not None:
            completions = self._read(finished)
        self._count(busy_s=self._clock_s() - began_s)
        return completions

    def _dispatch(self) -> StepInFlight | None:
        """Dispatches the next calls; returns None where there is nothing to run."""
        self.scheduler.admit()
        prefill = self._dispatch_prefill()
        decode = self._dispatch_decode()
        if prefill is None and decode is None:
            return None
        return StepInFlight(prefill, decode)

    def _read(self, step: StepInFlight) -> list[Completion]:
        """Waits for the calls of a step; returns the completions that came out of them."""
        ended: list[Sequence] = []
        if step.prefill is not None:
            ended += self._read_prefill(step.prefill)
        if step.decode is not None:
            ended += self._read_decode(step.decode)

        completions: list[Completion] = []
        for sequence in ended:
            completion = self._finish(sequence)
            if completion is not None:
                completions.append(completion)
        return completions

    def _seconds_of_call(self, began_s: float) -> float:
        """Returns the seconds of a call that has become ready, without those of the call before.

        `began_s` is when the host began to plan it.
        """
        ready_s = self._clock_s()
        seconds = ready_s - max(began_s, self._ready_s)
        self._ready_s = ready_s
        return seconds

    # -- prefill, scores and embeddings ------------------------------------------------------------

    def _dispatch_prefill(self) -> PrefillInFlight | None:
        """Dispatches the next prefill call, and the calls that read its output."""
        began_s = self._clock_s()
        plan = self.scheduler.next_prefill()
        if plan is None:
            return None
        scored = [self._scored_chunks(plan, number) for number in range(len(plan.data_shards))]
        plan = self._with_compiled_shape(plan, scored)
        hidden = self.programs.prefill(prefill_input(plan, self.context.engine.chunk))
        scores = self._dispatch_scores(scored, hidden)
        pooled = self._dispatch_pool(plan, hidden)

        ended = self.scheduler.advance_prefill(plan)
        for sequence in ended:
            self.scheduler.release(sequence)
        return PrefillInFlight(began_s, plan, hidden, scored, scores, pooled, ended)

    def _read_prefill(self, call: PrefillInFlight) -> list[Sequence]:
        """Waits for a prefill call and stores its scores; returns the sequences that have ended."""
        call.hidden.block_until_ready()
        if call.scores:
            self._fill_targets(call)
        if call.pooled is not None:
            self._fill_states(call.plan, np.asarray(read(call.pooled)))

        tokens = 0
        for chunks in call.plan.data_shards:
            tokens += sum(chunk.count for chunk in chunks)
        rows = len(call.plan.data_shards) * call.plan.rows
        self._count(
            prefill_s=self._seconds_of_call(call.began_s),
            prefill_tokens=tokens,
            prefill_positions=rows * self.context.engine.chunk,
            prefill_calls=1,
        )
        return call.ended

    def _with_compiled_shape(
        self, plan: PrefillPlan, scored: list[list[ScoredChunk]]
    ) -> PrefillPlan:
        """Returns a prefill call in a shape that is compiled; the calls after it are requested."""
        shape = self.programs.choose(ProgramShape("prefill", plan.rows, plan.width))
        following: list[ProgramShape] = []
        decode = self.scheduler.largest_decode()
        if decode is not None:
            following.append(ProgramShape("decode", *decode))
        targets = 0
        for chunks in scored:
            targets = max(targets, sum(len(chunk.index) for chunk in chunks))
        if targets:
            size = bucket_size(targets, self.scheduler.sizes.score_positions)
            following.append(ProgramShape("score", shape.rows, size))
        if self.context.engine.pooling is not None:
            following.append(ProgramShape("pool", shape.rows, 1))

        self.programs.prepare(shape, following)
        return replace(plan, rows=shape.rows, width=shape.columns)

    def _scored_chunks(self, plan: PrefillPlan, data_shard: int) -> list[ScoredChunk]:
        """Returns the rows of one data shard at which log-probs are requested."""
        scored: list[ScoredChunk] = []
        for row, chunk in enumerate(plan.data_shards[data_shard]):
            targets = chunk.sequence.targets
            index = targets.within(chunk.start, chunk.end)
            if len(index):
                first_position = row * self.context.engine.chunk
                positions = first_position + targets.positions[index] - chunk.start
                scored.append(ScoredChunk(targets, index, positions))
        return scored

    def _dispatch_scores(self, scored: list[list[ScoredChunk]], hidden: Array) -> list[Likelihood]:
        """Dispatches `score` over the targets of all data shards, in calls of few sizes.

        Returns the results of each call: those of the first data shard, then of the next one.
        """
        data_shards = len(scored)
        positions: list[np.ndarray] = []
        tokens: list[np.ndarray] = []
        for chunks in scored:
            positions.append(_concatenate([chunk.positions for chunk in chunks]))
            tokens.append(_concatenate([chunk.targets.tokens[chunk.index] for chunk in chunks]))

        scores: list[Likelihood] = []
        longest = max(len(shard_positions) for shard_positions in positions)
        first = 0
        while first < longest:
            prefill_rows = hidden.shape[0] // data_shards
            needed = bucket_size(longest - first, self.scheduler.sizes.score_positions)
            shape = self.programs.choose(ProgramShape("score", prefill_rows, needed))
            self.programs.prepare(shape)
            size = shape.columns
            index = np.zeros((data_shards, size), np.int32)
            target = np.zeros((data_shards, size), np.int32)
            for shard in range(data_shards):
                shard_positions = positions[shard][first : first + size]
                index[shard, : len(shard_positions)] = shard_positions
                target[shard, : len(shard_positions)] = tokens[shard][first : first + size]

            scores.append(self.programs.score(hidden, index.ravel(), target.ravel()))
            first += size
        return scores

    def _dispatch_pool(self, plan: PrefillPlan, hidden: Array) -> Array | None:
        """Dispatches `pool` over the rows of a prefill call; None where nothing is embedded."""
        data_shards = len(plan.data_shards)
        count = np.zeros((data_shards, plan.rows), np.int32)
        for shard, chunks in enumerate(plan.data_shards):
            for row, chunk in enumerate(chunks):
                if chunk.sequence.hidden is not None:
                    count[shard, row] = chunk.count
        if not count.any():
            return None
        self.programs.prepare(self.programs.choose(ProgramShape("pool", plan.rows, 1)))
        return self.programs.pool(hidden, count.ravel())

    def _fill_states(self, plan: PrefillPlan, pooled: np.ndarray) -> None:
        """Adds the pooled rows of a prefill call to the pages of their sequences."""
        pool = POOLS[self.context.engine.pooling or "last"]
        for shard, chunks in enumerate(plan.data_shards):
            for row, chunk in enumerate(chunks):
                hidden = chunk.sequence.hidden
                if hidden is not None:
                    page = hidden.pages[chunk.start // self.context.engine.page_size]
                    pool.add_row(page, pooled[shard * plan.rows + row])

    def _fill_targets(self, call: PrefillInFlight) -> None:
        """Stores the log-probs that are requested at the positions of a prefill call."""
        data_shards = len(call.scored)
        parts: list[list[list[np.ndarray]]] = [[] for _ in range(data_shards)]
        for scores in call.scores:
            columns = [np.asarray(column) for column in read(scores)]
            size = len(columns[0]) // data_shards
            for shard in range(data_shards):
                rows = slice(shard * size, (shard + 1) * size)
                parts[shard].append([column[rows] for column in columns])

        for chunks, shard_parts in zip(call.scored, parts, strict=True):
            results = _join_columns(shard_parts)
            first = 0
            for chunk in chunks:
                end = first + len(chunk.index)
                chunk.targets.fill(chunk.index, *(column[first:end] for column in results))
                first = end

    # -- decode ------------------------------------------------------------------------------------

    def _dispatch_decode(self) -> DecodeInFlight | None:
        """Dispatches the next decode call."""
        began_s = self._clock_s()
        plan = self.scheduler.next_decode()
        if plan is None:
            return None
        shape = self.programs.choose(ProgramShape("decode", plan.rows, plan.width))
        self.programs.prepare(shape)
        plan = replace(plan, rows=shape.rows, width=shape.columns)
        rows = list(call_rows_of(plan.data_shards, plan.rows))
        states = [self._generation(sequence) for _, sequence in rows]
        output = self.programs.decode(decode_input(plan, states, self.context))

        for sequence in self.scheduler.advance_decode(plan):
            self.scheduler.release(sequence)
        return DecodeInFlight(began_s, plan, rows, states, output)

    def _read_decode(self, call: DecodeInFlight) -> list[Sequence]:
        """Waits for a decode call and appends its tokens; returns the sequences that have ended.

        The tokens of a sequence that had ended before the call are discarded.
        """
        output = read(call.output)
        ended: list[Sequence] = []
        generated = 0
        for (row, sequence), state in zip(call.rows, call.states, strict=True):
            had_ended = state.has_ended
            is_complete = had_ended
            accepted = 0
            while accepted < output.token_count[row] and not is_complete:
                is_complete = state.append(
                    int(output.tokens[row, accepted]),
                    float(output.logprobs[row, accepted]),
                    np.asarray(output.top_ids[row, accepted]),
                    np.asarray(output.top_logprobs[row, accepted]),
                )
                accepted += 1
            generated += accepted
            if is_complete and not had_ended:
                ended.append(sequence)

        self._count(
            decode_s=self._seconds_of_call(call.began_s),
            generated_tokens=generated,
            decode_positions=int(output.steps[0]) * call.plan.rows * len(call.plan.data_shards),
            decode_calls=1,
        )
        return ended

    def _generation(self, sequence: Sequence) -> GenerationState:
        generation = self._jobs[sequence.request.ref].generation
        if generation is None:
            raise ValueError(f"sequence of {sequence.request.ref} does not generate")
        return generation

    # -- results -----------------------------------------------------------------------------------

    def _finish(self, sequence: Sequence) -> Completion | None:
        """Frees an ended sequence; returns its request's completion when it was the last one."""
        if sequence.holds_pages:
            self.scheduler.release(sequence)
        for scores in sequence.shared_scores:
            sequence.targets.copy_shared(scores)
        if sequence.targets.missing:
            raise RuntimeError(
                f"{sequence.request.ref}: {sequence.targets.missing} requested log-probs were "
                "never computed"
            )
        job = self._jobs[sequence.request.ref]
        job.unfinished -= 1
        if job.unfinished:
            return None
        del self._jobs[sequence.request.ref]
        return self._completion(job)

    def _completion(self, job: Job) -> Completion:
        config = self.context.engine
        first = job.sequences[0]
        cached_tokens = first.shared_pages * config.page_size
        self._count(cached_tokens=cached_tokens)
        if first.hidden is not None and config.pooling is not None:
            completion = Completion(
                job.request.ref,
                prompt_tokens=len(job.request.prompt_ids),
                cached_tokens=cached_tokens,
            )
            return with_embedding(completion, first, config.pooling, normalize=config.normalize)
        if job.generation is None:
            return score_completion(
                job.request,
                job.readings,
                cached_tokens,
                prompt_top_k=config.prompt_logprobs,
                score_top_k=config.score_logprobs,
                with_tail=config.tail_logprobs,
            )
        completion = job.generation.completion(cached_tokens, config.logprobs)
        return with_prompt_logprobs(completion, first.targets, config.prompt_logprobs)


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)


def _join_columns(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Joins the columns of several calls."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
