"""What pooling keeps of the hidden states of a sequence, page by page.

A hidden state depends on the tokens up to it and on nothing else, as the keys in a page do. So a
sequence that shares pages also reads what was kept of the hidden states of the tokens in them. A
page is pooled by itself, in the order of its rows: the sums have the same bits whichever sequence
computed it. NumPy only.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True, eq=False)
class PageStates:
    """The hidden states of the tokens of one page, pooled as far as they are computed."""

    pooled: np.ndarray | None = None  # float32 [D]


@dataclass(slots=True, eq=False)
class HiddenStates:
    """The pooled hidden states of a sequence: those of shared pages, then those of its own."""

    pages: list[PageStates] = field(default_factory=list)

    def place(self, shared: list[PageStates], own_pages: int) -> None:
        """Sets the pages of a sequence that is admitted."""
        self.pages = shared + [PageStates() for _ in range(own_pages)]
