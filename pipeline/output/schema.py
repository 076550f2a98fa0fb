"""The schema of a run's output, the same for rows that worked and rows that failed.

Columns: `id` and the passthrough columns, the status of the row, and the columns of the task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pyarrow as pa

from pipeline.output.columns import OutputColumn, value_column
from pipeline.output.publication import Encoding
from pipeline.records import OutputRow
from pipeline.tasks import DEFAULT_TOP_K, EmbeddingOptions, LogprobOptions, OutputOptions, Task

SCHEMA_VERSION = "1"
VERSION_KEY = b"schema_version"
DEFAULT_EMBEDDING = EmbeddingOptions()
FINGERPRINT_KEY = b"run_fingerprint"

STATUS = (
    value_column("sample_index", pa.int32(), lambda completion: completion.ref.sample),
    value_column(
        "status",
        pa.string(),
        lambda completion: "ok" if completion.error_code is None else "error",
    ),
    value_column("error_code", pa.string(), lambda completion: completion.error_code),
    value_column("error_message", pa.string(), lambda completion: completion.error_message),
    value_column("attempts", pa.int32(), lambda completion: completion.attempts),
)


class HasPassthrough(Protocol):
    """What the output needs of the input's schema."""

    @property
    def passthrough(self) -> pa.Schema:
        """`id` first, then the columns that pass through unchanged."""
        ...


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The columns of every part of a run, and the metadata of its Parquet files."""

    passthrough: pa.Schema
    columns: tuple[OutputColumn, ...]
    metadata: dict[bytes | str, bytes | str] = field(
        default_factory=lambda: {VERSION_KEY: SCHEMA_VERSION.encode()}
    )

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        fields = [pa.field(column.name, column.type) for column in self.columns]
        return pa.schema([*self.passthrough, *fields], metadata=self.metadata)

    @property
    def encodings(self) -> Mapping[str, Encoding]:
        """The encodings of columns that pyarrow does not choose, by name."""
        encodings: dict[str, Encoding] = {}
        for column in self.columns:
            if column.encoding is not Encoding.DEFAULT:
                encodings[column.name] = column.encoding
        return encodings

    def with_fingerprint(self, fingerprint: str) -> "OutputSchema":
        """Returns the schema with the run's fingerprint in its metadata."""
        return replace(self, metadata={**self.metadata, FINGERPRINT_KEY: fingerprint.encode()})

    def table(self, samples: Sequence[OutputRow], passthrough: pa.Table) -> pa.Table:
        """Returns the table of finished samples.

        Args:
            samples: in the order of the rows.
            passthrough: row i belongs to sample i.

        Raises:
            CommitError: the arrays of a completion contradict each other.
        """
        inputs = passthrough.select(self.passthrough.names).columns
        outputs = [column.build(samples) for column in self.columns]
        return pa.table([*inputs, *outputs], schema=self.arrow)


def task_columns(
    task: Task,
    *,
    boundary_chars: bool = False,
    token_logprobs: bool = False,
    text_bytes: bool = False,
    windows: bool = False,
) -> frozenset[str]:
    """Returns the names of all columns that the task may write; none may pass through.

    Those of flags, and those of scored tokens, are among them in runs that write them.
    """
    scored = 1 if token_logprobs else None
    logprobs = LogprobOptions(generated=1, prompt=1, scored=scored)
    everything = OutputOptions(
        logprobs,
        choices=True,
        boundary_chars=boundary_chars,
        text_bytes=text_bytes,
        windows=windows,
    )
    columns = (*STATUS, *task.output_columns(everything))
    return frozenset(column.name for column in columns) | {"id"}


def output_schema(
    inputs: HasPassthrough,
    *,
    task: Task,
    logprobs: int | None,
    prompt_logprobs: int | None,
    choices: bool,
    boundary_chars: bool = False,
    scored_logprobs: int | None = None,
    top_k_logprobs: int = DEFAULT_TOP_K,
    embedding: EmbeddingOptions = DEFAULT_EMBEDDING,
    text_bytes: bool = False,
    windows: bool = False,
) -> OutputSchema:
    """Returns the schema of the run's parts.

    Args:
        inputs: the input's schema, for `id` and the passthrough columns.
        task: of the run.
        logprobs: K of --logprobs; None: no log-probs of generated tokens.
        prompt_logprobs: K of --prompt-logprobs; None: no log-probs of the prompt.
        choices: whether a scored row has several continuations.
        boundary_chars: whether task score writes the column of this name.
        scored_logprobs: most likely tokens beside each scored one; None: no log-probs of these.
        top_k_logprobs: most likely tokens at each position of a teacher's text.
        embedding: size and type of embeddings.
        text_bytes: whether task perplexity writes bytes and bits per byte of a text.
        windows: whether it writes in how many windows a text was scored.
    """
    requested = LogprobOptions(logprobs, prompt_logprobs, scored_logprobs, top_k=top_k_logprobs)
    options = OutputOptions(
        requested,
        choices,
        boundary_chars,
        embedding,
        text_bytes=text_bytes,
        windows=windows,
    )
    columns = (*STATUS, *task.output_columns(options))
    return OutputSchema(inputs.passthrough, columns)
