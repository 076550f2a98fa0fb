"""Tokens per second over the last minute. One thread adds, any thread reads."""

from collections import deque
from typing import NamedTuple

WINDOW_S = 60.0
RESOLUTION_S = 1.0


class _Sample(NamedTuple):
    """Token counts since the start, as of a moment."""

    at_s: float
    prompt_tokens: int
    completion_tokens: int


class TokenRates:
    """Samples token counts as they grow."""

    def __init__(self) -> None:
        # At most one sample per RESOLUTION_S, and one that is older than the window.
        self._samples = deque([_Sample(0.0, 0, 0)])

    def add(self, at_s: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Samples the counts since the start; times must not decrease."""
        sample = _Sample(at_s, prompt_tokens, completion_tokens)
        last = self._samples[-1]
        if len(self._samples) > 1 and at_s - last.at_s < RESOLUTION_S:
            self._samples[-1] = sample._replace(at_s=last.at_s)
            return

        self._samples.append(sample)
        while self._samples[1].at_s <= at_s - WINDOW_S:
            self._samples.popleft()

    def rates(self, now_s: float) -> tuple[float, float]:
        """Returns (prompt, completion) tokens per second in the window that ends at `now_s`."""
        samples = list(self._samples)
        window_s = min(now_s, WINDOW_S)
        if window_s <= 0:
            return 0.0, 0.0

        before = samples[0]
        for sample in samples[1:]:
            if sample.at_s <= now_s - WINDOW_S:
                before = sample
        latest = samples[-1]
        prompt_tokens = latest.prompt_tokens - before.prompt_tokens
        completion_tokens = latest.completion_tokens - before.completion_tokens
        return prompt_tokens / window_s, completion_tokens / window_s
