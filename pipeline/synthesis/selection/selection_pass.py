"""Blocks of a run, in input order, as far as they are committed → what a selection says of each.

It may go on later.

Whoever looks while the run goes on and whoever looks at its end take the same blocks in the same
order: that is why a run that was interrupted ends at the same row as one that was not. It knows no
files but through `Completions`.
"""

from collections.abc import Callable

from pipeline.synthesis.selection.completions import Block, Completions
from pipeline.synthesis.selection.selection import Outcome, Selection


class Fold:
    """One pass."""

    def __init__(
        self,
        completions: Completions,
        selection: Selection,
        take: Callable[[Outcome], None] = lambda _: None,
        until: int | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            completions: the run.
            selection: that judges its samples.
            take: is given what became of each block.
            until: number of blocks that count, whatever comes after them; None: all.
        """
        self._completions, self.selection, self._take = completions, selection, take
        self._blocks = completions.blocks[:until]
        self.position = 0  # of the next block

    @property
    def ended(self) -> bool:
        """Whether no further block is needed, or there is none."""
        return self.selection.enough is not None or self.position == len(self._blocks)

    @property
    def shards_read(self) -> int:
        """Shards of completions that were judged."""
        return sum(block.shard is not None for block in self._blocks[: self.position])

    @property
    def waits_for(self) -> Block | None:
        """The next block."""
        return None if self.ended else self._blocks[self.position]

    def advance(self) -> None:
        """Judges all blocks that can be read, until there are enough rows.

        Raises:
            DatasetError: a block is damaged.
        """
        while not self.ended and self._completions.committed(self._blocks[self.position]):
            block = self._blocks[self.position]
            if block.shard is None:
                outcome = self.selection.reject_prompts(self._completions.rejected_prompts(block))
            else:
                outcome = self.selection.judge(self._completions.samples(block))
            self._take(outcome)
            self.position += 1
