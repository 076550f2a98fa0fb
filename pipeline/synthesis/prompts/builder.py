"""Turns blocks of seed rows into request rows, and rows without a prompt into rejected rows.

A request row: id | columns that set its sampling | row: the other kept columns | template | prompt
A rejected row: id | kept columns, one by one | template | stage, reason, detail
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
from pipeline.synthesis.rejections import Rejection

_TEMPLATE = pa.field("template", pa.string())
_PROMPT = pa.field("prompt", pa.string())
_REJECTION = (
    pa.field("stage", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Rows of a block of seeds, in their order."""

    requests: pa.Table
    rejected: pa.Table


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """Chooses template and examples of each row by its id alone, and renders the prompt."""

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
        id_field = pa.field("id", self.schema.id_type)
        return pa.schema([id_field, *self.schema.kept, _TEMPLATE, *_REJECTION])

    def build(self, block: SeedBlock) -> Prompts:
        """Returns a request or a rejection for every row of the block."""
        template_names: list[str | None] = []
        prompts: list[str] = []
        prompt_rows: list[int] = []
        rejections: list[Rejection] = []
        rejected_rows: list[int] = []
        for position in range(len(block.ids)):
            template_name, outcome = self._render(block, position)
            template_names.append(template_name)
            if isinstance(outcome, Rejection):
                rejections.append(outcome)
                rejected_rows.append(position)
            else:
                prompts.append(outcome)
                prompt_rows.append(position)

        table = self._kept_columns(block)
        table = table.append_column(_TEMPLATE, pa.array(template_names, pa.string()))

        requests = self._with_row_column(table.take(np.array(prompt_rows, np.int64)))
        requests = requests.append_column(_PROMPT, pa.array(prompts, pa.string()))

        rejected = table.take(np.array(rejected_rows, np.int64))
        for field in _REJECTION:
            values = [getattr(rejection, field.name) for rejection in rejections]
            rejected = rejected.append_column(field, pa.array(values, pa.string()))
        return Prompts(
            requests.select(self.request_schema.names),
            pa.table(rejected.columns, schema=self.rejected_schema),
        )

    def _kept_columns(self, block: SeedBlock) -> pa.Table:
        """Returns ids and kept columns; those of unreadable rows are null.

        Not even the rejected rows may hold bytes that are not text.
        """
        positions = np.arange(len(block.ids))
        unreadable = np.isin(positions, list(block.faults))
        readable: Any = pa.array(positions, mask=unreadable)
        kept = block.kept.take(readable)
        return kept.add_column(0, "id", pa.array(block.ids, self.schema.id_type))

    def _with_row_column(self, table: pa.Table) -> pa.Table:
        """Returns the table with the pass-through columns in the column `row`.

        In one column, no name can meet a name that the run reads or writes.
        """
        if ROW not in self.schema.request.names:
            return table
        row_type: Any = self.schema.request.field(ROW).type
        fields = list(row_type)
        names = row_type.names
        columns: Any = [table[name].combine_chunks() for name in names]
        row = pa.StructArray.from_arrays(columns, fields=fields)
        return table.drop_columns(names).append_column(ROW, row)

    def _render(self, block: SeedBlock, position: int) -> tuple[str | None, str | Rejection]:
        """Returns the name of the template of a row, and its prompt or rejection."""
        row_id = block.ids[position]
        if position in block.faults or row_id is None:
            fault = block.faults.get(position, "the row has no id")
            return None, Rejection("template", "unreadable_row", fault)

        weights = [template.spec.weight for template in self.templates]
        index = weighted_index(weights, row_random(self.seed, row_id, "template"))
        template = self.templates[index]
        shots = self.shots.draw(self.seed, row_id)
        return template.spec.name, template.render(block.rows[position], shots)
