"""Blocks of seed rows → request rows, and the rows of which no prompt could be made.

It knows no files.

A request row: id | columns that set its sampling | row: all others that are kept, in one | template, its name | prompt
A rejected row: id | columns that are kept, one by one | template | stage, reason, detail
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.synthesis.prompts.random_choice import row_random, weighted_index
from pipeline.synthesis.prompts.seed_rows import ROW, SeedBlock, SeedSchema
from pipeline.synthesis.prompts.shots import Shots
from pipeline.synthesis.prompts.templates import PromptTemplate
from pipeline.synthesis.selection.rejections import Rejection

_TEMPLATE = pa.field("template", pa.string())
_PROMPT = pa.field("prompt", pa.string())
_WHY = (
    pa.field("stage", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What became of a block of seed rows, in their order."""

    requests: pa.Table
    rejected: pa.Table


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """Chooses a template and examples for each row, by its id alone, and renders."""

    templates: Sequence[PromptTemplate]
    shots: Shots
    seed: int
    schema: SeedSchema

    @property
    def request_schema(self) -> pa.Schema:
        """Columns of request rows."""
        return pa.schema([*self.schema.request, _TEMPLATE, _PROMPT])

    @property
    def rejected_schema(self) -> pa.Schema:
        """Columns of rejected rows."""
        return pa.schema([pa.field("id", self.schema.id_type), *self.schema.kept, _TEMPLATE, *_WHY])

    def build(self, block: SeedBlock) -> Prompts:
        """Returns a request or a rejection for every row of the block."""
        built = [self._row(block, position) for position in range(len(block.ids))]
        good = [position for position, (_, outcome) in enumerate(built) if isinstance(outcome, str)]
        bad = [(name, outcome) for name, outcome in built if isinstance(outcome, Rejection)]
        ids = pa.array(block.ids, self.schema.id_type)
        # Values of a row that cannot be read are left out: not even the rejected rows may hold
        # bytes that are no text.
        read = pa.array(
            [None if position in block.faults else position for position in range(len(built))],
            pa.int64(),
        )
        whole = (
            block.kept.take(read)
            .add_column(0, "id", ids)
            .append_column(_TEMPLATE, pa.array([name for name, _ in built], pa.string()))
        )
        requests = self._with_row(whole.take(np.array(good, np.int64)))
        others = whole.take(np.setdiff1d(np.arange(len(built)), good))
        columns = (
            [each.stage for _, each in bad],
            [each.reason for _, each in bad],
            [each.detail for _, each in bad],
        )
        why: list[Any] = [pa.array(values, pa.string()) for values in columns]
        prompts = pa.array([built[place][1] for place in good], pa.string())
        return Prompts(
            requests.append_column(_PROMPT, prompts).select(self.request_schema.names),
            pa.table([*others.columns, *why], schema=self.rejected_schema),
        )

    def _with_row(self, table: pa.Table) -> pa.Table:
        """Returns the table with the column `row`.

        In one column, no name can meet a name that the run reads or writes.
        """
        if ROW not in self.schema.request.names:
            return table
        kind: Any = self.schema.request.field(ROW).type
        fields = [kind.field(index) for index in range(kind.num_fields)]
        columns: Any = [table[field.name].combine_chunks() for field in fields]
        inside = {field.name for field in fields}
        return table.drop_columns(list(inside)).append_column(
            ROW, pa.StructArray.from_arrays(columns, fields=fields)
        )

    def _row(self, block: SeedBlock, position: int) -> tuple[str | None, str | Rejection]:
        """Returns the name of the row's template, and its prompt or why there is none."""
        row_id = block.ids[position]
        if position in block.faults or row_id is None:
            return None, Rejection(
                "template", "unreadable_row", block.faults.get(position, "the row has no id")
            )
        weights = [template.spec.weight for template in self.templates]
        template = self.templates[
            weighted_index(weights, row_random(self.seed, row_id, "template"))
        ]
        return template.spec.name, template.render(
            block.rows[position], self.shots.draw(self.seed, row_id)
        )
