"""One pass of a selection over the blocks of a run, in input order, as they are committed.

A pass during the run and a pass at its end read the same blocks in the same order: an
interrupted run ends at the same row as an undisturbed one.
"""

from collections.abc import Iterator

from pipeline.synthesis.selection.completions import Block, Completions
from pipeline.synthesis.selection.selection import Outcome, Selection


class SelectionPass:
    """A pass, which can be continued when further blocks are committed."""

    def __init__(
        self, completions: Completions, selection: Selection, until: int | None = None
    ) -> None:
        """Reads nothing yet.

        Args:
            completions: samples of the run.
            selection: a selection without earlier samples.
            until: number of blocks that count; None: all.
        """
        self.selection = selection
        self.position = 0  # of the next block
        self._completions = completions
        self._blocks = completions.blocks[:until]

    @property
    def ended(self) -> bool:
        """Whether no further block is needed or available."""
        return self.selection.stopped_by is not None or self.position == len(self._blocks)

    @property
    def shards_read(self) -> int:
        """Shards of completions that were read."""
        return sum(block.shard is not None for block in self._blocks[: self.position])

    @property
    def next_block(self) -> Block | None:
        """The next block; None when the pass has ended."""
        if self.ended:
            return None
        return self._blocks[self.position]

    def outcomes(self) -> Iterator[Outcome]:
        """Yields the outcome of every block that can be read, until the selection stops.

        Raises:
            DatasetError: a block is damaged.
        """
        while not self.ended and self._completions.is_committed(self._blocks[self.position]):
            block = self._blocks[self.position]
            if block.shard is None:
                rows = self._completions.rejected_prompts(block)
                outcome = self.selection.reject_prompts(rows)
            else:
                outcome = self.selection.select(self._completions.samples(block))
            self.position += 1
            yield outcome

    def advance(self) -> None:
        """Counts every block that can be read, until the selection stops.

        Raises:
            DatasetError: a block is damaged.
        """
        for _ in self.outcomes():
            pass
