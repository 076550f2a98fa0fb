"""A row's own sampling columns and the run's defaults → the `Sampling` of each of its samples, seed included.

Knows nothing of text, ids or models: it checks values that a data set's author chose, and draws the
seed from the row's id.
"""

import hashlib
import math
from dataclasses import dataclass

from actors.protocol.errors import InvalidParameterError
from actors.protocol.messages import Sampling
from pipeline.records import RowParameters

# samples of one row: all of them are open at once, so a typing error must not fill the driver's
# memory
MAX_SAMPLES = 4096
MAX_PATTERN = 1024  # tokens: every token drawn is compared with so many before it
PENALTIES = (0.01, 100.0)  # logits stay finite, whatever they are
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What holds for rows that do not say otherwise; the flags of the same names."""

    max_tokens: int | None = None  # None: every row must have its own
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    n: int = 1
    min_tokens: int = 0
    ignore_eos: bool = False
    repetition_max_pattern: int = 0
    repetition_min_count: int = 8


def resolve_sampling(row: RowParameters, defaults: SamplingDefaults) -> tuple[Sampling, int]:
    """Returns the row's sampling, `seed` being the seed of the run or of the row's column, and its number of samples.

    Raises:
        InvalidParameterError: a value has the wrong type or is out of range.
    """
    sampling = Sampling(
        max_tokens=_integer("max_tokens", row.max_tokens, defaults.max_tokens, 1, _INT32),
        temperature=_number("temperature", row.temperature, defaults.temperature, 0.0, 1e6),
        top_p=_number("top_p", row.top_p, defaults.top_p, 0.0, 1.0),
        top_k=_integer("top_k", row.top_k, defaults.top_k, 0, _INT32),
        min_p=_number("min_p", row.min_p, defaults.min_p, 0.0, 1.0),
        repetition_penalty=_number(
            "repetition_penalty", row.repetition_penalty, defaults.repetition_penalty, *PENALTIES
        ),
        seed=_integer("seed", row.seed, defaults.seed, -_INT64 - 1, _INT64),
        stop=_stop_strings(row.stop, defaults.stop),
        min_tokens=_integer("min_tokens", row.min_tokens, defaults.min_tokens, 0, _INT32),
        ignore_eos=_boolean("ignore_eos", row.ignore_eos, defaults.ignore_eos),
        repetition_max_pattern=_integer(
            "repetition_max_pattern",
            row.repetition_max_pattern,
            defaults.repetition_max_pattern,
            0,
            MAX_PATTERN,
        ),
        repetition_min_count=_integer(
            "repetition_min_count",
            row.repetition_min_count,
            defaults.repetition_min_count,
            2,
            _INT32,
        ),
    )
    if sampling.top_p == 0.0:
        raise InvalidParameterError(
            "top_p: expected a number above 0 and up to 1, got 0.0; greedy is temperature 0"
        )
    if sampling.min_tokens > sampling.max_tokens:
        raise InvalidParameterError(
            f"min_tokens: expected at most max_tokens = {sampling.max_tokens}, got "
            f"{sampling.min_tokens}"
        )
    return sampling, _integer("n", row.n, defaults.n, 1, MAX_SAMPLES)


def effective_seed(seed: int, row_id: str | int, sample: int) -> int:
    """Returns the seed of one sample, 0 <= seed < 2**63.

    It depends on nothing but its arguments: not on batch, replica, order or retry. The type of the
    id counts, so that the rows 7 and "7" of two data sets do not draw the same.
    """
    address = f"{seed}\x00{type(row_id).__name__}\x00{row_id}\x00{sample}".encode(
        "utf-8", "surrogatepass"
    )
    return int.from_bytes(hashlib.blake2b(address, digest_size=8).digest(), "big") >> 1


def _integer(name: str, value: object, default: int | None, low: int, high: int) -> int:
    if value is None:
        value = default
    if value is None:
        raise InvalidParameterError(
            f"{name}: the row has none and the run sets no default; give --{name.replace('_', '-')}"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with nulls is often stored as double
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidParameterError(
            f"{name}: expected an integer from {low} to {high}, got {value!r}"
        )
    return value


def _number(name: str, value: object, default: float, low: float, high: float) -> float:
    if value is None:
        value = default
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or math.isnan(value)
        or not low <= value <= high
    ):
        raise InvalidParameterError(
            f"{name}: expected a number from {low:g} to {high:g}, got {value!r}"
        )
    return float(value)


def _boolean(name: str, value: object, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidParameterError(f"{name}: expected true or false, got {value!r}")
    return value


def _stop_strings(value: object, default: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return default
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, list | tuple) or not all(
        isinstance(each, str) and each for each in strings
    ):
        raise InvalidParameterError(
            f"stop: expected a string or a list of strings, none of them empty, got {value!r}"
        )
    return tuple(strings)
