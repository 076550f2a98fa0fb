"""What the driver's stages hand to each other.

The types that cross to the replicas are in actors/protocol/messages.py.
"""

from dataclasses import dataclass

from actors.protocol.messages import Completion, RowRef


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input listing.

    `version` is its ETag on object storage and its modification time (ns) on disk.
    """

    url: str
    size: int
    version: str
    rows: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A row range of one input file; becomes one output object, `data/part-<number>.parquet`."""

    number: int
    url: str
    first_row: int
    rows: int
    # rows (within the shard) to run again under --retry-failed; None: all
    only: tuple[int, ...] | None = None
    version: str = ""  # of the file when it was listed; empty: not checked when it is read


@dataclass(frozen=True, slots=True)
class RowParameters:
    """Sampling parameters that a row's own columns set.

    None where the run's defaults hold. Values as found, not validated.
    """

    max_tokens: object = None
    temperature: object = None
    top_p: object = None
    top_k: object = None
    min_p: object = None
    repetition_penalty: object = None
    seed: object = None
    stop: object = None  # a string or a list of strings
    n: object = None
    min_tokens: object = None
    ignore_eos: object = None
    repetition_max_pattern: object = None
    repetition_min_count: object = None


NO_PARAMETERS = RowParameters()  # of a row without columns of its own


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One input row.

    Of each pair (text, ids) the input has one column at most; values are as found, not yet
    validated.
    """

    ref: RowRef
    id: str | int
    prompt: str | None = None
    prompt_token_ids: object = None
    continuation: str | None = None
    continuation_token_ids: object = None
    choices: object = None  # list of strings
    choices_token_ids: object = None  # list of lists of ids
    parameters: RowParameters = NO_PARAMETERS


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One finished sample with its text, ready to be written."""

    completion: Completion
    text: str | None
