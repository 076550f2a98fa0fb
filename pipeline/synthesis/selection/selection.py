"""Samples of one block after the other, in input order → accepted rows and rejected rows, and whether there are enough.

    stop: the token budget ─ generation ─ filter ─ parse ─ where ─ choose ─ partition ─ duplicate ─ stop: the target ─▶ accepted

Each stage sees what those before it let pass, and every sample leaves in one place: the first that
leaves it out, or accepted. Only `duplicate` and `stop` remember earlier blocks. It knows no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.synthesis.dataset.files import Partitions, check_partitions
from pipeline.synthesis.dataset.statistics import Statistics
from pipeline.synthesis.selection.choice import VOTE_FIELDS, Majority, best
from pipeline.synthesis.selection.duplicates import Duplicates
from pipeline.synthesis.selection.expressions import ERRORS, Expression
from pipeline.synthesis.selection.fields import FieldParser, read_fields
from pipeline.synthesis.selection.filters import Filters, generation
from pipeline.synthesis.selection.patterns import FieldPattern
from pipeline.synthesis.selection.rejections import Rejection, shortened
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import (
    COMPLETED,
    SAMPLES,
    Judged,
    StageFunction,
    numbers,
    row_groups,
)

_WHY: tuple[tuple[str, pa.DataType], ...] = (
    ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string()), ("duplicate_of", pa.string()),
    (SAMPLES, pa.int32()),
)  # fmt: skip
TARGET, BUDGET = "target_rows", "max_total_tokens"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a block: rows of `Selection.schema` and of `Selection.rejected_schema`, in input order."""

    accepted: pa.Table
    rejected: pa.Table


class Selection:
    """One pass over the samples of a run."""

    def __init__(
        self,
        rules: SelectionRules,
        kept: pa.Schema,
        *,
        logprobs: bool,
        partition_by: Sequence[str] = (),
        examples: int = 5,
    ) -> None:
        """Builds the stages.

        Args:
            rules: what is accepted.
            kept: `id` and the columns of the seeds that pass through.
            logprobs: whether samples have a mean log-prob.
            partition_by: columns whose values become names of folders.
            examples: accepted rows that the statistics show.

        Raises:
            ConfigError: a rule names a column that is not there, is no pattern or expression, or needs log-probs.
        """
        if rules.needs_logprobs and not logprobs:
            raise ConfigError(
                f"{rules.needs_logprobs}: it needs log-probs, which the run did not write; run "
                "with --logprobs 0"
            )
        self.rules, self.statistics = rules, Statistics(examples)
        pattern = (
            FieldPattern(rules.parse_regex, "--parse-regex")
            if rules.parse_regex is not None
            else None
        )
        self._parser = (
            FieldParser(read_fields(rules.fields), pattern) if rules.parse_json or pattern else None
        )
        self.schema = self._accepted_schema(kept)
        self.rejected_schema = pa.schema(
            [*self.schema, *(pa.field(name, kind) for name, kind in _WHY)]
        )
        check_partitions(partition_by, self.schema)
        self._conditions = [Expression(source, self._plain_columns()) for source in rules.where]
        self._check_columns()
        self.duplicates = None if rules.dedup == "none" else Duplicates(rules)
        self._stages = self._ordered(Filters(rules), partition_by)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Columns that are parsed out of the completion."""
        return tuple(field.name for field in self._parser.fields) if self._parser else ()

    @property
    def enough(self) -> str | None:
        """Why no further block is needed; None: it is."""
        if (
            self.rules.target_rows is not None
            and self.statistics.accepted >= self.rules.target_rows
        ):
            return TARGET
        if (
            self.rules.max_total_tokens is not None
            and self.statistics.tokens >= self.rules.max_total_tokens
        ):
            return BUDGET
        return None

    def judge(self, samples: pa.Table) -> Outcome:
        """Judges all samples of some rows: columns as in samples.py, and `samples`."""
        self.statistics.seed_rows += len(row_groups(samples))
        places, left_out = np.arange(samples.num_rows), []
        for stage in self._stages:
            judged = stage(samples)
            passed = judged.passed
            left_out.append((places[~passed], self._rejected(judged, ~passed)))
            samples, places = judged.table.filter(pa.array(passed)), places[passed]
        order = np.argsort(np.concatenate([at for at, _ in left_out]), kind="stable")
        rejected = pa.concat_tables([table for _, table in left_out]).take(order)
        accepted = samples.select(self.schema.names).cast(self.schema)
        self.statistics.add_rejected(rejected)
        self.statistics.add_accepted(accepted)
        return Outcome(accepted, rejected)

    def reject_prompts(self, rows: pa.Table) -> Outcome:
        """Takes seed rows of which no prompt could be made: each is one rejected row, for as many samples as it was to have."""
        self.statistics.seed_rows += rows.num_rows
        rejected = _with_nulls(rows, self.rejected_schema)
        self.statistics.add_rejected(rejected)
        return Outcome(self.schema.empty_table(), rejected)

    # -- stages ---------------------------------------------------------------------------------------------------------------

    def _ordered(self, filters: Filters, partition_by: Sequence[str]) -> list[StageFunction]:
        stages: list[StageFunction] = [self._budget, generation, filters]
        stages += [self._parse] if self._parser else []
        stages += [self._where] if self._conditions else []
        if self.rules.choose == "best":
            stages.append(best)
        elif self.rules.choose == "majority":
            stages.append(Majority(str(self.rules.vote_on), self.rules.min_agreement))
        stages += [Partitions(partition_by)] if partition_by else []
        stages += [self.duplicates] if self.duplicates else []
        return [*stages, self._target]

    def _budget(self, samples: pa.Table) -> Judged:
        """Counts tokens row by row.

        Rows after the one that used up the budget are not needed. A row is taken whole.
        """
        prompt, completion = (
            numbers(samples, "prompt_tokens", 0),
            numbers(samples, "completion_tokens", 0),
        )
        most, counted = self.rules.max_total_tokens, self.statistics
        verdicts: list[Rejection | None] = []
        for first, end in row_groups(samples):
            over = most is not None and counted.tokens >= most
            verdicts += [Rejection("stop", BUDGET) if over else None] * (end - first)
            if not over:
                counted.prompt_tokens += int(prompt[first])
                counted.completion_tokens += int(completion[first:end].sum())
        return Judged(samples, verdicts)

    def _parse(self, samples: pa.Table) -> Judged:
        assert self._parser is not None
        found = self._parser.parse(samples["completion"])
        for field, column in self._parser.columns(found):
            samples = samples.append_column(field, column)
        return Judged(samples, [each if isinstance(each, Rejection) else None for each in found])

    def _where(self, samples: pa.Table) -> Judged:
        names = sorted(set().union(*(condition.names for condition in self._conditions)))
        columns = {name: samples[name].to_pylist() for name in names}
        rows = (
            {name: values[place] for name, values in columns.items()}
            for place in range(samples.num_rows)
        )
        return Judged(samples, [self._condition(row) for row in rows])

    def _condition(self, row: dict[str, Any]) -> Rejection | None:
        for condition in self._conditions:
            try:
                if not condition(row):
                    return Rejection("where", shortened(condition.source))
            except ERRORS as error:
                return Rejection(
                    "where",
                    shortened(f"error in {condition.source}"),
                    shortened(f"{type(error).__name__}: {error}"),
                )
        return None

    def _target(self, samples: pa.Table) -> Judged:
        left = samples.num_rows
        if self.rules.target_rows is not None:
            left = max(0, min(left, self.rules.target_rows - self.statistics.accepted))
        return Judged(
            samples, [None] * left + [Rejection("stop", TARGET)] * (samples.num_rows - left)
        )

    # -- columns --------------------------------------------------------------------------------------------------------------

    def _accepted_schema(self, kept: pa.Schema) -> pa.Schema:
        parsed = [field.arrow for field in self._parser.fields] if self._parser else []
        votes = VOTE_FIELDS if self.rules.choose == "majority" else ()
        completed = [pa.field(name, kind) for name, kind in COMPLETED]
        at = 1 + [name for name, _ in COMPLETED].index("completion")
        fields = [*kept, *completed[:at], *parsed, *completed[at:], *votes]
        names = [field.name for field in fields]
        for field in parsed:
            if names.count(field.name) > 1 or field.name in dict(_WHY):
                raise ConfigError(
                    f"--parse-…: field {field.name!r}: the data set has another column of that "
                    "name; rename the field"
                )
        return pa.schema(fields)

    def _plain_columns(self) -> list[str]:
        """Columns that conditions may name: those that are there when the stage judges."""
        return [
            name for name in self.schema.names if name not in {field.name for field in VOTE_FIELDS}
        ]

    def _check_columns(self) -> None:
        known = self._plain_columns()
        for flag, names in (
            ("--vote-on", [self.rules.vote_on] if self.rules.vote_on else []),
            ("--dedup-on", self.rules.dedup_on),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(f"{flag}: no column {name!r}; there are {', '.join(known)}")

    def _rejected(self, judged: Judged, left_out: npt.NDArray[np.bool_]) -> pa.Table:
        verdicts = [verdict for verdict in judged.verdicts if verdict is not None]
        rows = judged.table.filter(pa.array(left_out))
        for name, kind in _WHY[:-1]:
            rows = rows.append_column(
                pa.field(name, kind),
                pa.array([getattr(verdict, name) for verdict in verdicts], kind),
            )
        return _with_nulls(rows, self.rejected_schema)


def _with_nulls(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of `schema`; those that `rows` do not have are null."""
    columns: list[Any] = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
