"""What a data set accepts: every setting of the selection, checked as far as that needs nothing but the settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import ConfigError

Choose = Literal["all", "best", "majority"]
Dedup = Literal["none", "exact", "near"]
FINISH_REASONS = ("stop", "length", "repetition")
RANGES = (
    ("chars", 0, math.inf),
    ("completion_tokens", 0, math.inf),
    ("mean_logprob", -math.inf, 0),
)
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
    finish_reasons: tuple[str, ...] = ()  # none: any
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
    dedup_on: tuple[str, ...] = ()  # none: prompt and completion
    dedup_threshold: float = 0.8
    dedup_memory_mb: int = 1024
    target_rows: int | None = None
    max_total_tokens: int | None = None

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_reasons()
        self._check_parsing()
        self._check_choice()
        self._check_duplicates()

    @property
    def needs_logprobs(self) -> str | None:
        """The flag that cannot do without log-probs, if one is set."""
        for name in ("min_mean_logprob", "max_mean_logprob"):
            if getattr(self, name) is not None:
                return f"--{name.replace('_', '-')}"
        return None if self.choose == "all" else f"--choose {self.choose}"

    def _check_ranges(self) -> None:
        for name, lowest, highest in RANGES:
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            for side, value in (("min", low), ("max", high)):
                if value is not None and not lowest <= value <= highest:
                    expected = (
                        f"at least {lowest:g}" if lowest > -math.inf else f"at most {highest:g}"
                    )
                    raise ConfigError(
                        f"--{side}-{name.replace('_', '-')}: expected {expected}, got {value}"
                    )
            if low is not None and high is not None and low > high:
                raise ConfigError(
                    f"--min-{name.replace('_', '-')} {low} is above --max-{name.replace('_', '-')} "
                    f"{high}"
                )
        for name in ("target_rows", "max_total_tokens", "dedup_memory_mb"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected at least 1, got {getattr(self, name)}"
                )

    def _check_reasons(self) -> None:
        for reason in self.finish_reasons:
            if reason not in FINISH_REASONS:
                raise ConfigError(
                    f"--finish-reasons: expected {', '.join(FINISH_REASONS)}, got {reason!r}"
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
        if self.choose != "majority" and (self.vote_on is not None or self.min_agreement):
            name = "--vote-on" if self.vote_on is not None else "--min-agreement"
            raise ConfigError(
                f"{name}: it belongs to --choose majority, got --choose {self.choose}"
            )
        if not 0 <= self.min_agreement <= 1:
            raise ConfigError(
                f"--min-agreement: expected a share from 0 to 1, got {self.min_agreement}"
            )

    def _check_duplicates(self) -> None:
        if self.dedup == "none" and self.dedup_on:
            raise ConfigError(
                "--dedup-on: --dedup none compares nothing; give --dedup exact or near"
            )
        if self.dedup == "near" and not self.dedup_on:
            raise ConfigError(
                "--dedup near: name the columns whose text is compared with --dedup-on, e.g. "
                "completion: what all prompts have "
                "in common would make all rows similar"
            )
        if not LOWEST_THRESHOLD <= self.dedup_threshold <= 1:
            raise ConfigError(
                f"--dedup-threshold: expected from {LOWEST_THRESHOLD} to 1, got "
                f"{self.dedup_threshold}"
            )
