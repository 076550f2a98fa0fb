"""A device for scheduler tests: its pages remember which prefix each position was computed from."""

from collections import defaultdict

import numpy as np

from actors.engine.scheduling.scheduler import DecodePlan, PrefillPlan, Scheduler
from actors.engine.scheduling.sequence import Sequence

Place = tuple[int, int, int]  # data shard, page, offset within the page
EMPTY = hash(())


def prefix_hashes(tokens: list[int]) -> list[int]:
    """Returns for each position a hash of all tokens up to it: what a key there depends on."""
    hashes = [EMPTY]
    for token in tokens:
        hashes.append(hash((hashes[-1], token)))
    return hashes[1:]


def expected_logprob(prefix: int, token: int) -> float:
    """Returns the log-prob of `token` after a prefix, in numbers that float32 holds exactly."""
    return -float(hash((prefix, token)) % 100_000)


class PageContents:
    """Runs the plans of a scheduler on pages that hold hashes in place of keys and values.

    Every position that a call attends to must have been written before, or be written by the call
    itself, from exactly the tokens of the sequence that attends to it.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.page_size = scheduler.config.page_size
        self.contents: dict[Place, int] = {}
        self.generated: defaultdict[Sequence, list[int]] = defaultdict(list)

    def prefill(self, plan: PrefillPlan) -> None:
        """Writes the chunks of a call, then checks what they read, and fills their targets."""
        writes: dict[Place, int] = {}
        for chunks in plan.data_shards:
            for chunk in chunks:
                hashes = prefix_hashes(chunk.sequence.tokens.tolist())
                for position in range(chunk.start, chunk.end):
                    place = self._place(chunk.sequence, position, plan.width)
                    assert place not in writes, "two rows of a call write to one place"
                    writes[place] = hashes[position]
        self.contents |= writes

        for chunks in plan.data_shards:
            for chunk in chunks:
                hashes = prefix_hashes(chunk.sequence.tokens.tolist())
                self._check_attended(chunk.sequence, hashes[: chunk.end], plan.width)
                self._fill_targets(chunk.sequence, chunk.start, chunk.end)

    def decode(self, plan: DecodePlan, end_early: bool = False) -> list[Sequence]:
        """Generates tokens for the sequences of a call; returns those that ended."""
        ended: list[Sequence] = []
        for sequences in plan.data_shards:
            for sequence in sequences:
                assert sequence.generates
                assert sequence.computed == len(self._tokens(sequence)) - 1
                if self._generate(sequence, plan.width, end_early):
                    ended.append(sequence)

        longest = self.scheduler.advance_decode(plan)
        assert set(longest) <= set(ended)
        return ended

    def finish(self, sequence: Sequence) -> None:
        """Releases an ended sequence and checks all log-probs that were requested along it."""
        self.scheduler.release(sequence)
        targets = sequence.targets
        for scores in sequence.shared_scores:
            targets.copy_shared(scores)
        assert targets.missing == 0

        hashes = prefix_hashes(sequence.tokens.tolist())
        for position, token, logprob in zip(
            targets.positions, targets.tokens, targets.logprobs, strict=True
        ):
            assert logprob == expected_logprob(hashes[position], int(token))

    def _tokens(self, sequence: Sequence) -> list[int]:
        return [*sequence.tokens.tolist(), *self.generated[sequence]]

    def _generate(self, sequence: Sequence, width: int, end_early: bool) -> bool:
        """Runs up to `decode_steps` steps of one sequence; returns whether it has ended."""
        generated = self.generated[sequence]
        for step in range(self.scheduler.config.decode_steps):
            tokens = self._tokens(sequence)
            hashes = prefix_hashes(tokens)
            position = sequence.computed + step
            place = self._place(sequence, position, width)
            self.contents[place] = hashes[position]
            self._check_attended(sequence, hashes, width)
            generated.append(1000 + len(tokens) + 7 * sequence.request.ref.row)
            if len(generated) == sequence.max_new_tokens or end_early:
                return True
        # the last token lies where the sequence continues
        self._place(sequence, sequence.computed + self.scheduler.config.decode_steps, width)
        return False

    def _place(self, sequence: Sequence, position: int, width: int) -> Place:
        table = sequence.pages[:width]
        number, offset = divmod(position, self.page_size)
        assert number < len(table), "a position lies beyond the page table"
        return sequence.data_shard, table[number], offset

    def _check_attended(self, sequence: Sequence, hashes: list[int], width: int) -> None:
        for position, prefix in enumerate(hashes):
            place = self._place(sequence, position, width)
            assert self.contents.get(place) == prefix, (
                f"{sequence.request.ref} reads position {position}: not written, or not from its "
                "own tokens"
            )

    def _fill_targets(self, sequence: Sequence, start: int, end: int) -> None:
        targets = sequence.targets
        index = targets.within(start, end)
        logprobs = np.zeros(len(index), np.float32)
        for row, position in enumerate(targets.positions[index]):
            place = self._place(sequence, int(position), len(sequence.pages))
            logprobs[row] = expected_logprob(self.contents[place], int(targets.tokens[index[row]]))
        targets.fill(
            index,
            logprobs,
            np.zeros(len(index), np.bool_),
            np.zeros((len(index), 1), np.int32),
            np.zeros((len(index), 1), np.float32),
        )
