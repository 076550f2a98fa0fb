"""Prompts and a run over them, as the main job leaves them, for tests of their readers."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.input.listing import list_input
from pipeline.input.shards import plan_shards
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import RunFolder, check_run, input_keys
from pipeline.synthesis.prompts.builder import PromptBuilder
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.seed_rows import inspect_seeds, read_seeds
from pipeline.synthesis.prompts.shots import Shots
from pipeline.synthesis.prompts.templates import PromptTemplate, TemplateSpec
from pipeline.synthesis.selection.completions import Completions

TEMPLATES = (
    TemplateSpec("sum", "{{ a }} + {{ b }} ="),
    TemplateSpec("story", "{{ name }} has {{ a }}.", 2),
)
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("sample_index", pa.int32()),
    ("status", pa.string()),
    ("error_code", pa.string()),
    ("error_message", pa.string()),
    ("text", pa.string()),
    ("finish_reason", pa.string()),
    ("prompt_tokens", pa.int32()),
    ("completion_tokens", pa.int32()),
    ("cumulative_logprob", pa.float64()),
    ("seed", pa.int64()),
]
SCHEMA = pa.schema(_COLUMNS)
Answer = Callable[[dict[str, Any], int], dict[str, Any]]  # prompt row, sample → columns that differ


def write_prompts(root: str, seeds: Path | str, shard_rows: int = 4) -> PromptsFolder:
    """Writes the prompts of a file of seeds."""
    folder, files = PromptsFolder(storage.join(root, "prompts")), list_input(str(seeds))
    schema = inspect_seeds(files, "id")
    builder = PromptBuilder([PromptTemplate(spec) for spec in TEMPLATES], Shots(), 0, schema)
    shards = plan_shards(files, shard_rows)
    told = {"config": {"input": str(seeds), "shots": None}}
    keys = {
        "templates": [[each.name, each.weight, each.text] for each in TEMPLATES],
        "shots": {"digest": None, "per_row": 0},
    }
    check_run(folder.folder, keys, told)
    built = (builder.build(block) for block in read_seeds(shards, schema))
    assert tuple(folder.write(shards, shards, built, "mark")) == shards
    return folder


def answer(row: dict[str, Any], sample: int) -> dict[str, Any]:
    """A completion that tells what it is of."""
    return {"text": f" {row['id']}, sample {sample}"}


def failure(code: str = "prompt_too_long") -> dict[str, Any]:
    """The columns of a row that failed."""
    empty = (
        "text",
        "finish_reason",
        "completion_tokens",
        "cumulative_logprob",
        "seed",
        "prompt_tokens",
    )
    return {"status": "error", "error_code": code, "error_message": "why", **dict.fromkeys(empty)}


class WrittenRun:
    """A run over prompts; its parts are written when told."""

    def __init__(
        self,
        root: str,
        prompts: PromptsFolder,
        *,
        n: int = 2,
        shard_rows: int = 3,
        answer: Answer = answer,
    ) -> None:
        self.prompts, self.url, self._n, self._answer = (
            prompts,
            storage.join(root, "completions"),
            n,
            answer,
        )
        files = [part.file for part in prompts.parts()]
        self.shards = plan_shards(files, shard_rows)
        config = {
            "shard_rows": shard_rows,
            "limit": None,
            "n": n,
            "logprobs": 0,
            "model": "demo",
            "checkpoint": "ckpt-0",
            "dtype": "float32",
            "max_len": 64,
            "on_overflow": "error",
        }
        keys = {
            "task": "generate",
            "input": input_keys(files),
            "sampling": {"n": n},
            "checkpoint": "sha256:c",
            "tokenizer": "sha256:t",
        }
        check_run(
            RunFolder(self.url),
            keys,
            {"config": config, "git_commit": "abc", "versions": {"python": "3"}},
        )

    def commit(self, numbers: Iterable[int]) -> None:
        """Writes parts."""
        for number in numbers:
            shard = self.shards[number]
            rows = (
                pq.read_table(pa.BufferReader(storage.read(shard.url)[0]))
                .slice(shard.first_row, shard.rows)
                .to_pylist()
            )
            storage.put_if_absent(
                RunFolder(self.url).part_url(number), to_parquet(self._table(rows))
            )

    def completions(self) -> Completions:
        """Returns them as they are read."""
        return Completions(self.prompts, self.url)

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        written = []
        for row in rows:
            outcomes = [self._answer(row, sample) for sample in range(row.get("n") or self._n)]
            if outcomes[0].get("status") == "error" and outcomes[0]["error_code"] != "engine_crash":
                outcomes = outcomes[:1]  # a row that could not run has one output row
            for index, outcome in enumerate(outcomes):
                plain = {
                    "status": "ok",
                    "finish_reason": "stop",
                    "prompt_tokens": 5,
                    "completion_tokens": 4,
                    "cumulative_logprob": -2.0,
                    "seed": 1,
                }
                passed = {name: value for name, value in row.items() if name not in {"prompt", "n"}}
                written.append(passed | {"sample_index": index} | plain | outcome)
        asked = pq.read_schema(pa.BufferReader(storage.read(self.shards[0].url)[0]))
        passed_on = [field for field in asked if field.name not in ("prompt", "n")]
        return pa.Table.from_pylist(written, schema=pa.schema([*passed_on, *SCHEMA]))


ROWS = 20


def seeds(path: Path | None = None, **more: Any) -> Any:
    """Writes the seeds; returns where they are, without a path their bytes."""
    names = ["Ana", "Ben", None, "Ivo", "Mia"]  # every fifth story has no name
    table = {
        "id": [f"s{n}" for n in range(ROWS)],
        "a": list(range(ROWS)),
        "b": [1] * ROWS,
        "name": [names[n % 5] for n in range(ROWS)],
    }
    whole = pa.table({**table, "text": [f"t{n}" for n in range(ROWS)], **more})
    if path is None:
        return to_parquet(whole)
    pq.write_table(whole, path)
    return path


def run_on_storage(root: str) -> WrittenRun:
    """Returns a run on object storage of which nothing is committed."""
    storage.put_if_absent(f"{root}/seeds.parquet", seeds())
    return WrittenRun(root, write_prompts(root, f"{root}/seeds.parquet"))
