"""The prompts of the pipeline benchmark: those of an input, with other token ids in every pass.

Lengths and common prefixes stay; each pass starts with a cache that has none of its prefixes.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.messages import Completion, Request
from jobs.benchmarks.pipeline_config import PipelineBenchmarkConfig
from jobs.run.config import ScoreConfig
from jobs.run.plan import Plan, make_plan
from pipeline.errors import ConfigError
from pipeline.input.reader import read_rows
from pipeline.records import UnreadableShard
from pipeline.requests.tokenize import to_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import TASKS

FIRST_TOKEN = 3  # lower ids are padding, end-of-text and the like
TOKEN_STRIDE = 997  # between the ids of two passes
TYPES = {
    "prompt_token_ids": pa.list_(pa.int32()),
    "max_tokens": pa.int32(),
    "choices_token_ids": pa.list_(pa.list_(pa.int32())),
}


def input_requests(config: PipelineBenchmarkConfig) -> list[Request]:
    """Returns the requests of the input, with the tokenizer's own ids.

    Raises:
        ConfigError: a row cannot run, or the model is too short for a prompt.
    """
    plan = make_plan(
        ScoreConfig(
            input=config.input,
            output=str(config.root / "none"),
            dry_run=True,
            tokenizer=config.tokenizer,
            task=config.task,
            continuation_column=config.continuation_column,
            max_tokens=config.max_tokens if TASKS[config.task].generates else None,
            limit=config.limit,
        )
    )
    requests = list(plan_requests(plan, plan.tokenizer))

    context = config.model_config.sequence_len
    longest = max(request.longest for request in requests) + config.max_tokens // 2
    if longest > context:
        raise ConfigError(
            f"--model {config.model} holds {context} tokens, the longest prompt needs {longest} "
            "with its completion"
        )
    return requests


def plan_requests(plan: Plan, tokenizer: Tokenizer | None = None) -> Iterator[Request]:
    """Yields the requests of all rows of a plan.

    Raises:
        ConfigError: a row cannot run.
    """
    rows = read_rows(plan.shards, plan.schema)
    for item in to_requests(rows, plan.task, tokenizer, plan.rules):
        if isinstance(item, UnreadableShard):
            raise item.error
        if isinstance(item, Completion):
            raise ConfigError(
                f"--input: row {item.ref.row} of shard {item.ref.shard} cannot run: "
                f"{item.error_message}"
            )
        if isinstance(item, Request):
            yield item


def plan_pass(config: PipelineBenchmarkConfig, requests: Sequence[Request], number: int) -> Plan:
    """Writes the prompts of a pass and returns the main job's plan for them."""
    prompts = config.root / f"prompts-{number}.parquet"
    pq.write_table(pass_table(config, requests, number), prompts)
    return make_plan(
        ScoreConfig(
            input=str(prompts),
            output=str(config.root / f"run-{number}"),
            model=config.model,
            checkpoint=str(config.root / "ckpt-0"),
            task=config.task,
            ignore_eos=True,
            mesh=config.mesh,
            dtype=config.dtype,
            batch_tokens=config.batch_tokens,
        )
    )


def pass_table(
    config: PipelineBenchmarkConfig, requests: Sequence[Request], number: int
) -> pa.Table:
    """Returns the prompts with the ids of pass `number`.

    Equal prefixes stay equal within a pass; two passes have no prefix in common.
    """
    generator = random.Random(0)
    vocabulary = config.model_config.vocab_size - FIRST_TOKEN
    min_tokens = max(1, config.max_tokens // 2)
    max_tokens = config.max_tokens * 3 // 2

    def shifted(ids: Sequence[int], shift: int) -> list[int]:
        return [FIRST_TOKEN + (token + shift) % vocabulary for token in ids]

    columns: dict[str, list[Any]] = {name: [] for name in TYPES}
    for copy in range(config.copies):
        shift = TOKEN_STRIDE * (number * config.copies + copy) + FIRST_TOKEN
        for request in requests:
            choices = [shifted(ids, shift) for ids in request.continuations]
            columns["prompt_token_ids"].append(shifted(request.prompt_ids, shift))
            columns["max_tokens"].append(generator.randint(min_tokens, max_tokens))
            columns["choices_token_ids"].append(choices)

    unused = "choices_token_ids" if TASKS[config.task].generates else "max_tokens"
    del columns[unused]
    return pa.table({name: pa.array(values, TYPES[name]) for name, values in columns.items()})
