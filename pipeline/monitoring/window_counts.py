"""What texts took that were scored in windows: overlapping tokens are computed several times."""

from dataclasses import dataclass

from actors.protocol.messages import RowRef


@dataclass(slots=True)
class WindowCounts:
    """Counts of texts that are longer than the context, and of their windows."""

    texts: int = 0  # whose first window is in
    windows: int = 0
    tokens_computed: int = 0
    tokens_scored: int = 0

    def add(self, ref: RowRef, tokens_computed: int, tokens_scored: int) -> None:
        """Counts a window."""
        if not ref.window:
            self.texts += 1
        self.windows += 1
        self.tokens_computed += tokens_computed
        self.tokens_scored += tokens_scored

    @property
    def text(self) -> str:
        """The counts as a sentence; empty without windows."""
        if not self.windows:
            return ""
        texts = "1 text"
        if self.texts != 1:
            texts = f"{self.texts:,} texts"
        times = self.tokens_computed / max(self.tokens_scored, 1)
        return (
            f"{texts} in {self.windows:,} windows: {self.tokens_computed:,} tokens computed, "
            f"{self.tokens_scored:,} scored ({times:.2f} computed for each)"
        )
