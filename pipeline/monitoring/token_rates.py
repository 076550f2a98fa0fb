"""Tokens per second over the last minute. One thread adds, any thread reads."""

from collections import deque
from typing import NamedTuple

WINDOW_S = 60.0
RESOLUTION_S = 1.0
# Of a window: replicas that are gone have compiled in it too, beside those that are counted.
MIN_WORKING_SHARE = 0.1


class _Sample(NamedTuple):
    """Token counts since the start, as of a moment."""

    at_s: float
    prompt_tokens: int
    completion_tokens: int
    compile_s: float  # of all replicas together


class TokenRates:
    """Samples token counts as they grow."""

    def __init__(self) -> None:
        # At most one sample per RESOLUTION_S, and one that is older than the window.
        self._samples = deque([_Sample(0.0, 0, 0, 0.0)])

    def add(
        self, at_s: float, prompt_tokens: int, completion_tokens: int, compile_s: float = 0.0
    ) -> None:
        """Samples the counts since the start; times must not decrease.

        Args:
            at_s: when.
            prompt_tokens: read.
            completion_tokens: generated.
            compile_s: in which calls of replicas waited for programs, added up over replicas.
        """
        sample = _Sample(at_s, prompt_tokens, completion_tokens, compile_s)
        last = self._samples[-1]
        if len(self._samples) > 1 and at_s - last.at_s < RESOLUTION_S:
            self._samples[-1] = sample._replace(at_s=last.at_s)
            return

        self._samples.append(sample)
        while self._samples[1].at_s <= at_s - WINDOW_S:
            self._samples.popleft()

    def rates(self, now_s: float) -> tuple[float, float]:
        """Returns (prompt, completion) tokens per second in the window that ends at `now_s`."""
        window_s = min(now_s, WINDOW_S)
        if window_s <= 0:
            return 0.0, 0.0

        before, latest = self._ends_of_window(now_s)
        prompt_tokens = latest.prompt_tokens - before.prompt_tokens
        completion_tokens = latest.completion_tokens - before.completion_tokens
        return prompt_tokens / window_s, completion_tokens / window_s

    def working_rate(self, now_s: float, replicas: int) -> float:
        """Returns tokens per second of the last minute, without the time of compilation.

        Args:
            now_s: end of the minute.
            replicas: over which the time of compilation is spread.
        """
        before, latest = self._ends_of_window(now_s)
        span_s = now_s - before.at_s
        if span_s <= 0:
            return 0.0
        compile_s = (latest.compile_s - before.compile_s) / max(1, replicas)
        working_s = max(span_s - compile_s, MIN_WORKING_SHARE * span_s)
        prompt_tokens = latest.prompt_tokens - before.prompt_tokens
        completion_tokens = latest.completion_tokens - before.completion_tokens
        return (prompt_tokens + completion_tokens) / working_s

    def _ends_of_window(self, now_s: float) -> tuple[_Sample, _Sample]:
        """Returns the last sample that is older than the window, and the latest one."""
        samples = list(self._samples)
        before = samples[0]
        for sample in samples[1:]:
            if sample.at_s <= now_s - WINDOW_S:
                before = sample
        return before, samples[-1]
