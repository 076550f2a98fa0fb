"""Prompts of rows of a run, which its output need not hold: from the input that run.json lists."""

from collections.abc import Collection, Sequence
from typing import Any

from pipeline.errors import ConfigError
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.input.reader import read_rows
from pipeline.input.shards import RowSample, plan_shards
from pipeline.output.run_folder import RunFolder
from pipeline.records import InputFile, PromptRow, Shard
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import TASKS


def planned_shards(description: dict[str, Any]) -> tuple[Shard, ...]:
    """Returns the shards of a run, planned again from run.json.

    Raises:
        KeyError, TypeError: it is not the description of a run of rows.
    """
    config = description["config"]
    sample = None
    if config.get("sample") is not None:
        sample = RowSample(config["sample"], config["sample_seed"])
    files = _files(description)
    return plan_shards(files, config["shard_rows"], config["limit"], sample)


def read_prompts(
    folder: RunFolder, rows: Collection[tuple[int, Any]], tokenizer: Tokenizer | None
) -> dict[Any, str]:
    """Returns the prompts of rows by their id; of rows of token ids, the text of the ids.

    Args:
        folder: run folder.
        rows: shard and id of each row; only these shards of the input are read.
        tokenizer: of the run, for prompts that are token ids.

    Raises:
        ConfigError: a template gives the prompts, or run.json does not describe the input.
        DatasetError: the input cannot be read any more, or has changed.
    """
    description = folder.description()
    config = description.get("config", {})
    if config.get("template") is not None:
        raise ConfigError("a template gives the prompts; --keep-prompt true writes them")
    try:
        shards = planned_shards(description)
        columns = InputColumns(
            task=TASKS[config["task"]],
            prompt_column=config["prompt_column"],
            id_column=config["id_column"],
            continuation_column=config["continuation_column"],
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder.run_url}: is not the description of a run of rows ({error!r})"
        ) from error

    numbers = {number for number, _ in rows}
    needed = [shard for shard in shards if shard.number in numbers]
    ids = {row_id for _, row_id in rows}
    schema = inspect_columns(_files(description), columns)
    prompts: dict[Any, str] = {}
    for item in read_rows(needed, schema, folder.client):
        if isinstance(item, PromptRow) and item.id in ids:
            text = _text(item, tokenizer)
            if text is not None:
                prompts[item.id] = text
        if len(prompts) == len(ids):
            break
    return prompts


def _text(row: PromptRow, tokenizer: Tokenizer | None) -> str | None:
    if isinstance(row.prompt, str):
        return row.prompt
    if tokenizer is not None and isinstance(row.prompt_token_ids, Sequence):
        return tokenizer.text(row.prompt_token_ids)
    return None


def _files(description: dict[str, Any]) -> list[InputFile]:
    return [_input_file(file) for file in description["input"]]


def _input_file(file: dict[str, Any]) -> InputFile:
    return InputFile(file["url"], file["size"], file["version"], file["rows"])
