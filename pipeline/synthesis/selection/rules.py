"""Settings of the selection, checked as far as the settings alone allow."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError

Choose = Literal["all", "best", "majority"]
Dedup = Literal["none", "exact", "near"]
FINISH_REASONS = ("stop", "length", "repetition")
# below, the index of near duplicates finds most texts similar to most others
LOWEST_THRESHOLD = 0.3


@dataclass(frozen=True, slots=True)
class SelectionRules:
    """The flags of the same names.

    Raises:
        ConfigError: they are out of range or contradict each other.
    """

    min_chars: int | None = None
    max_chars: int | None = None
    min_completion_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_mean_logprob: float | None = None
    max_mean_logprob: float | None = None
    finish_reasons: tuple[str, ...] = ()  # empty: any
    must_match: tuple[str, ...] = ()
    must_not_match: tuple[str, ...] = ()
    parse_regex: str | None = None
    parse_json: bool = False
    fields: Mapping[str, object] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    choose: Choose = "all"
    vote_on: str | None = None
    min_agreement: float = 0.0
    dedup: Dedup = "exact"
    dedup_on: tuple[str, ...] = ()  # empty: prompt and completion
    dedup_threshold: float = 0.8
    dedup_memory_mb: int = 1024
    target_rows: int | None = None
    max_total_tokens: int | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_finish_reasons()
        self._check_parsing()
        self._check_choice()
        self._check_duplicates()

    @property
    def needs_logprobs(self) -> str | None:
        """The flag that needs log-probs, if one is set."""
        if self.min_mean_logprob is not None:
            return "--min-mean-logprob"
        if self.max_mean_logprob is not None:
            return "--max-mean-logprob"
        if self.choose != "all":
            return f"--choose {self.choose}"
        return None

    def _check_ranges(self) -> None:
        _check_bounds("chars", self.min_chars, self.max_chars, lowest=0)
        _check_bounds(
            "completion-tokens", self.min_completion_tokens, self.max_completion_tokens, lowest=0
        )
        _check_bounds("mean-logprob", self.min_mean_logprob, self.max_mean_logprob, highest=0)
        _check_positive("--target-rows", self.target_rows)
        _check_positive("--max-total-tokens", self.max_total_tokens)
        _check_positive("--dedup-memory-mb", self.dedup_memory_mb)

    def _check_finish_reasons(self) -> None:
        for reason in self.finish_reasons:
            if reason not in FINISH_REASONS:
                raise ConfigError(
                    f"--finish-reasons: expected {', '.join(FINISH_REASONS)}, got {quoted(reason)}"
                )

    def _check_parsing(self) -> None:
        if self.parse_json and self.parse_regex is not None:
            raise ConfigError(
                "--parse-json and --parse-regex: give one of them; fields are parsed in one way"
            )
        if self.fields and not self.parse_json and self.parse_regex is None:
            raise ConfigError(
                "--fields: give --parse-regex or --parse-json too: it says how the fields are found"
            )

    def _check_choice(self) -> None:
        if self.choose == "majority" and self.vote_on is None:
            raise ConfigError(
                "--choose majority: give --vote-on too: the parsed field whose most frequent value "
                "wins"
            )
        if self.choose != "majority":
            self._check_no_vote()
        if not 0 <= self.min_agreement <= 1:
            raise ConfigError(
                f"--min-agreement: expected a share from 0 to 1, got {self.min_agreement}"
            )

    def _check_no_vote(self) -> None:
        flag = None
        if self.vote_on is not None:
            flag = "--vote-on"
        elif self.min_agreement:
            flag = "--min-agreement"
        if flag is not None:
            raise ConfigError(
                f"{flag}: it belongs to --choose majority, got --choose {self.choose}"
            )

    def _check_duplicates(self) -> None:
        if self.dedup == "none" and self.dedup_on:
            raise ConfigError(
                "--dedup-on: --dedup none compares nothing; give --dedup exact or near"
            )
        if self.dedup == "near" and not self.dedup_on:
            raise ConfigError(
                "--dedup near: name the columns whose text is compared with --dedup-on, e.g. "
                "completion: what all prompts have in common would make all rows similar"
            )
        if not LOWEST_THRESHOLD <= self.dedup_threshold <= 1:
            raise ConfigError(
                f"--dedup-threshold: expected from {LOWEST_THRESHOLD} to 1, got "
                f"{self.dedup_threshold}"
            )


def _check_bounds(
    name: str,
    low: float | None,
    high: float | None,
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
) -> None:
    """Checks a pair of --min-… and --max-…."""
    expected = f"at least {lowest:g}"
    if lowest == -math.inf:
        expected = f"at most {highest:g}"
    for flag, value in ((f"--min-{name}", low), (f"--max-{name}", high)):
        if value is not None and not lowest <= value <= highest:
            raise ConfigError(f"{flag}: expected {expected}, got {value}")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"--min-{name} {low} is above --max-{name} {high}")


def _check_positive(flag: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{flag}: expected at least 1, got {value}")
