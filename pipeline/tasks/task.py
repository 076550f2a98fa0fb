"""The interface of a task: everything in which one task differs from another.

A task decides which input columns it reads, which requests a row becomes, and which columns its
output has. No other module branches on the task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from actors.protocol.messages import Completion, Request
from pipeline.input.roles import InputRole
from pipeline.output.columns import OutputColumn
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules

DEFAULT_TOP_K = 64  # of a teacher


@dataclass(frozen=True, slots=True)
class LogprobOptions:
    """K most likely tokens beside generated, prompt and scored ones; None: no log-probs of them."""

    generated: int | None  # --logprobs
    prompt: int | None  # --prompt-logprobs
    scored: int | None = None  # --token-logprobs
    top_k: int = DEFAULT_TOP_K  # --top-k-logprobs: those of a teacher
    tail: bool = False  # also of all tokens beside the scored K


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """Size and type of the column of embeddings."""

    size: int = 1  # numbers of an embedding: the width of the model
    dtype: Literal["float32", "float16"] = "float32"  # --embedding-dtype


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What the columns of a task's output depend on."""

    logprobs: LogprobOptions
    choices: bool  # whether a row has several continuations
    boundary_chars: bool = False  # --boundary-chars
    embedding: EmbeddingOptions = EmbeddingOptions()
    text_bytes: bool = False  # --bits-per-byte, or windows
    windows: bool = False  # --on-overflow window


class Task(Protocol):
    """What a run does with each row. Implementations are stateless."""

    @property
    def name(self) -> str:
        """Value of --task."""
        ...

    @property
    def help(self) -> str:
        """Description for --help."""
        ...

    @property
    def input_roles(self) -> tuple[InputRole, ...]:
        """What the task reads of each row beside its id and its sampling parameters."""
        ...

    @property
    def generates(self) -> bool:
        """Whether rows become completions: sampling applies, and the output has text."""
        ...

    @property
    def embeds(self) -> bool:
        """Whether rows become embeddings: hidden states are pooled, and there are no logits."""
        ...

    @property
    def splits_texts(self) -> bool:
        """Whether texts longer than the context can be scored in windows."""
        ...

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns the log-probs that the engine computes for the requested ones."""
        ...

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the columns that follow the passthrough columns and the status of a row."""
        ...

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the texts of a row that are to be encoded; none where the row has token ids.

        Raises:
            RequestError: a text is missing or not valid.
        """
        ...

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> Iterable[Request | Completion]:
        """Returns the requests of a row, or its completion if no request is needed.

        A row has one request per sample, or one per window of its text.

        Args:
            row: with the values of `input_roles`.
            encoded: the token ids of each of `texts(row)`.
            rules: of the run.

        Raises:
            RequestError: the row cannot run.
        """
        ...

    def row_completion(self, completion: Completion) -> Completion:
        """Returns the completion of a row with the values that the task's columns read."""
        ...
