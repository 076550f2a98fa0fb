"""Blocks of seed rows → request rows, and the rows of which no prompt could be made. It knows no files.

A request row: id | columns of the seeds that are kept | template, its name | prompt
A rejected row: id | the same columns | template | stage, reason, detail
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.synthesis.draws import row_random, weighted_index
from pipeline.synthesis.rejections import Rejection
from pipeline.synthesis.seeds import SeedBlock, SeedSchema
from pipeline.synthesis.shots import Shots
from pipeline.synthesis.templates import PromptTemplate

_TEMPLATE = pa.field("template", pa.string())
_PROMPT = pa.field("prompt", pa.string())
_WHY = (pa.field("stage", pa.string()), pa.field("reason", pa.string()), pa.field("detail", pa.string()))


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
        return pa.schema([pa.field("id", self.schema.id_type), *self.schema.kept, _TEMPLATE, _PROMPT])

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
        # Values of a row that cannot be read are left out: not even the rejected rows may hold bytes that are no text.
        read = pa.array([None if position in block.faults else position for position in range(len(built))], pa.int64())
        whole = (
            block.kept.take(read)
            .add_column(0, "id", ids)
            .append_column(_TEMPLATE, pa.array([name for name, _ in built], pa.string()))
        )
        requests = whole.take(np.array(good, np.int64))
        others = whole.take(np.setdiff1d(np.arange(len(built)), good))
        columns = ([each.stage for _, each in bad], [each.reason for _, each in bad], [each.detail for _, each in bad])
        why: list[Any] = [pa.array(values, pa.string()) for values in columns]
        return Prompts(
            pa.table([*requests.columns, pa.array([built[place][1] for place in good], pa.string())], schema=self.request_schema),
            pa.table([*others.columns, *why], schema=self.rejected_schema),
        )

    def _row(self, block: SeedBlock, position: int) -> tuple[str | None, str | Rejection]:
        """Returns the name of the row's template, and its prompt or why there is none."""
        row_id = block.ids[position]
        if position in block.faults or row_id is None:
            return None, Rejection("template", "unreadable_row", block.faults.get(position, "the row has no id"))
        weights = [template.spec.weight for template in self.templates]
        template = self.templates[weighted_index(weights, row_random(self.seed, row_id, "template"))]
        return template.spec.name, template.render(block.rows[position], self.shots.draw(self.seed, row_id))
