"""Prompts built from files of seeds, for the tests of prompts."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.input.listing import list_input
from pipeline.input.shards import plan_shards
from pipeline.synthesis.prompts.builder import PromptBuilder, Prompts
from pipeline.synthesis.prompts.seed_rows import inspect_seeds, read_seeds
from pipeline.synthesis.prompts.shots import Shots
from pipeline.synthesis.prompts.templates import PromptTemplate, TemplateSpec

SUM, STORY = (
    TemplateSpec("sum", "{{ a }} + {{ b }} ="),
    TemplateSpec("story", "{{ name }} has {{ a }}.", 2),
)


def built(
    path: Path, *specs: TemplateSpec, shard_rows: int = 4, keep: tuple[str, ...] = (), seed: int = 0
) -> list[Prompts]:
    files = list_input(str(path))
    schema = inspect_seeds(files, "id", keep)
    builder = PromptBuilder([PromptTemplate(spec) for spec in specs], Shots(), seed, schema)
    return [builder.build(block) for block in read_seeds(plan_shards(files, shard_rows), schema)]


def rows(prompts: list[Prompts], kind: str = "requests") -> list[dict[str, Any]]:
    return [row for each in prompts for row in getattr(each, kind).to_pylist()]


def seeds(path: Path, count: int = 10) -> Path:
    names = ["Ana", None, "Ben"]
    table = {
        "id": [f"s{n}" for n in range(count)],
        "a": list(range(count)),
        "b": [1] * count,
        "name": pa.array([names[n % 3] for n in range(count)]).dictionary_encode(),
        "n": [2] * count,
    }
    pq.write_table(pa.table(table), path)
    return path
