"""Stages of a selection, over samples of one block after the other, in input order.

    stop (token budget) ─ generation ─ filter ─ parse ─ where ─ choose ─ partition ─ duplicate
    ─ stop (target rows) ─▶ accepted

A stage gets the samples that passed the stages before it. Every sample is rejected by one stage, or
accepted. `duplicate` and `stop` depend on earlier blocks, the other stages on the block alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError
from pipeline.synthesis.columns import COMPLETED, REJECTED, SAMPLES, VOTES
from pipeline.synthesis.rejections import Rejection, shortened
from pipeline.synthesis.selection.choice import Majority, best
from pipeline.synthesis.selection.duplicates import Duplicates
from pipeline.synthesis.selection.expressions import ERRORS, Expression
from pipeline.synthesis.selection.fields import Field, FieldParser, read_fields
from pipeline.synthesis.selection.filters import Filters, generation
from pipeline.synthesis.selection.partitions import Partitions, check_partitions
from pipeline.synthesis.selection.patterns import FieldPattern
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import (
    StageFunction,
    StageResult,
    numbers,
    row_groups,
)
from pipeline.synthesis.selection.statistics import Statistics

TARGET_ROWS = "target_rows"
TOKEN_BUDGET = "max_total_tokens"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Accepted and rejected rows of a block, in input order."""

    accepted: pa.Table  # with Selection.schema
    rejected: pa.Table  # with Selection.rejected_schema


class Selection:
    """The stages, the duplicates and the statistics of one pass over the samples of a run."""

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
            rules: rules of the selection.
            kept: `id` and the columns of the seeds that pass through.
            logprobs: whether samples have a mean log-prob.
            partition_by: columns whose values become names of folders.
            examples: number of accepted rows in the statistics.

        Raises:
            ConfigError: a rule names a column that is not there, has an invalid pattern or
                expression, or needs log-probs that the run did not write.
        """
        if rules.needs_logprobs and not logprobs:
            raise ConfigError(
                f"{rules.needs_logprobs}: it needs log-probs, which the run did not write; run "
                "with --logprobs 0"
            )
        self.rules = rules
        self.statistics = Statistics(examples)
        self._parser = _field_parser(rules)
        self.schema = _accepted_schema(kept, self.fields, rules)
        self.rejected_schema = pa.schema([*self.schema, *REJECTED])
        check_partitions(partition_by, self.schema)

        # columns that are there when these stages run
        columns = [name for name in self.schema.names if name not in VOTES.names]
        conditions = [Expression(source, columns) for source in rules.where]
        _check_columns(rules, columns)

        self.duplicates: Duplicates | None = None
        if rules.dedup != "none":
            self.duplicates = Duplicates(rules)
        self._stages = self._ordered_stages(conditions, partition_by)

    @property
    def fields(self) -> tuple[Field, ...]:
        """Columns that are parsed out of the completion."""
        if self._parser is None:
            return ()
        return self._parser.fields

    @property
    def stopped_by(self) -> str | None:
        """The rule that makes further blocks unnecessary; None as long as they are needed."""
        target = self.rules.target_rows
        if target is not None and self.statistics.accepted >= target:
            return TARGET_ROWS
        if self._over_budget():
            return TOKEN_BUDGET
        return None

    def select(self, samples: pa.Table) -> Outcome:
        """Returns the outcome of all samples of some rows.

        Args:
            samples: columns as in samples.py, and `samples`.
        """
        self.statistics.seed_rows += len(row_groups(samples))
        positions = np.arange(samples.num_rows)
        rejected_positions = []
        rejected_tables = []
        for stage in self._stages:
            result = stage(samples)
            passed = result.passed
            rejected_positions.append(positions[~passed])
            rejected_tables.append(self._rejected_rows(result, ~passed))
            samples = result.table.filter(pa.array(passed))
            positions = positions[passed]

        order = np.argsort(np.concatenate(rejected_positions), kind="stable")
        rejected = pa.concat_tables(rejected_tables).take(order)
        accepted = samples.select(self.schema.names).cast(self.schema)
        self.statistics.add_rejected(rejected)
        self.statistics.add_accepted(accepted)
        return Outcome(accepted, rejected)

    def reject_prompts(self, rows: pa.Table) -> Outcome:
        """Returns the outcome of seed rows without a prompt.

        Each is one rejected row, which stands for all samples that it would have had.
        """
        self.statistics.seed_rows += rows.num_rows
        rejected = _with_nulls(rows, self.rejected_schema)
        self.statistics.add_rejected(rejected)
        return Outcome(self.schema.empty_table(), rejected)

    def _ordered_stages(
        self, conditions: Sequence[Expression], partition_by: Sequence[str]
    ) -> list[StageFunction]:
        stages: list[StageFunction] = [self._token_budget, generation, Filters(self.rules)]
        if self._parser is not None:
            stages.append(self._parser)
        if conditions:
            stages.append(Conditions(conditions))
        if self.rules.choose == "best":
            stages.append(best)
        if self.rules.choose == "majority":
            stages.append(Majority(str(self.rules.vote_on), self.rules.min_agreement))
        if partition_by:
            stages.append(Partitions(partition_by))
        if self.duplicates is not None:
            stages.append(self.duplicates)
        return [*stages, self._target_rows]

    def _over_budget(self) -> bool:
        budget = self.rules.max_total_tokens
        return budget is not None and self.statistics.tokens >= budget

    def _token_budget(self, samples: pa.Table) -> StageResult:
        """Counts the tokens of rows; rejects the rows after the one that exceeds the budget."""
        prompt_tokens = numbers(samples, "prompt_tokens", 0)
        completion_tokens = numbers(samples, "completion_tokens", 0)
        verdicts: list[Rejection | None] = []
        for first, end in row_groups(samples):
            if self._over_budget():
                verdicts += [Rejection("stop", TOKEN_BUDGET)] * (end - first)
                continue
            verdicts += [None] * (end - first)
            self.statistics.prompt_tokens += int(prompt_tokens[first])
            self.statistics.completion_tokens += int(completion_tokens[first:end].sum())
        return StageResult(samples, verdicts)

    def _target_rows(self, samples: pa.Table) -> StageResult:
        """Rejects the samples beyond the target."""
        accepted = samples.num_rows
        if self.rules.target_rows is not None:
            missing = self.rules.target_rows - self.statistics.accepted
            accepted = max(0, min(accepted, missing))
        beyond = samples.num_rows - accepted
        return StageResult(samples, [None] * accepted + [Rejection("stop", TARGET_ROWS)] * beyond)

    def _rejected_rows(self, result: StageResult, mask: npt.NDArray[np.bool_]) -> pa.Table:
        rejections = [verdict for verdict in result.verdicts if verdict is not None]
        rows = result.table.filter(pa.array(mask))
        for field in REJECTED:
            if field.name != SAMPLES:
                values = [getattr(rejection, field.name) for rejection in rejections]
                rows = rows.append_column(field, pa.array(values, field.type))
        return _with_nulls(rows, self.rejected_schema)


class Conditions:
    """Stage `where`: rejects samples for which a condition does not hold."""

    def __init__(self, conditions: Sequence[Expression]) -> None:
        self._conditions = conditions

    def __call__(self, samples: pa.Table) -> StageResult:
        """Returns a verdict on every sample."""
        columns = {}
        for condition in self._conditions:
            for name in condition.names:
                columns[name] = samples[name].to_pylist()

        verdicts = []
        for position in range(samples.num_rows):
            row = {name: values[position] for name, values in columns.items()}
            verdicts.append(self._verdict(row))
        return StageResult(samples, verdicts)

    def _verdict(self, row: Mapping[str, Any]) -> Rejection | None:
        for condition in self._conditions:
            try:
                holds = condition(row)
            except ERRORS as error:
                reason = shortened(f"error in {condition.source}")
                return Rejection("where", reason, shortened(f"{type(error).__name__}: {error}"))
            if not holds:
                return Rejection("where", shortened(condition.source))
        return None


def _field_parser(rules: SelectionRules) -> FieldParser | None:
    if rules.parse_regex is not None:
        pattern = FieldPattern(rules.parse_regex, "--parse-regex")
        return FieldParser(read_fields(rules.fields), pattern)
    if rules.parse_json:
        return FieldParser(read_fields(rules.fields), None)
    return None


def _accepted_schema(kept: pa.Schema, fields: Sequence[Field], rules: SelectionRules) -> pa.Schema:
    """Returns the columns of accepted rows; parsed fields stand after `completion`."""
    parsed = [field.arrow for field in fields]
    columns = list(kept)
    for column in COMPLETED:
        columns.append(column)
        if column.name == "completion":
            columns += parsed
    if rules.choose == "majority":
        columns += VOTES

    names = [column.name for column in columns]
    for field in fields:
        if names.count(field.name) > 1 or field.name in REJECTED.names:
            raise ConfigError(
                f"--parse-…: field {quoted(field.name)}: the data set has another column of that "
                "name; rename the field"
            )
    return pa.schema(columns)


def _check_columns(rules: SelectionRules, columns: Sequence[str]) -> None:
    named = [("--dedup-on", name) for name in rules.dedup_on]
    if rules.vote_on is not None:
        named.append(("--vote-on", rules.vote_on))
    for flag, name in named:
        if name not in columns:
            raise ConfigError(f"{flag}: no column {quoted(name)}; there are {', '.join(columns)}")


def _with_nulls(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of `schema`; those that `rows` does not have are null."""
    columns: list[Any] = []
    for field in schema:
        if field.name in rows.column_names:
            columns.append(rows[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(columns, schema=schema)
