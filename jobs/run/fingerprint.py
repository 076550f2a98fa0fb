"""The fingerprint of a run: every setting that its results depend on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from actors.protocol.sampling import fingerprint_values
from actors.weights.digest import digest
from jobs.run.config import TASK_FLAGS
from jobs.run.plan import Plan
from pipeline.output.run_folder import fingerprint, input_keys

# Flags whose value enters the fingerprint unchanged.
CONFIG_KEYS = (
    "task",
    "prompt_column",
    "id_column",
    "continuation_column",
    "dtype",
    "max_len",
    "on_overflow",
    "logprobs",
    "prompt_logprobs",
)
# Flags that enter it only where they are set, so that runs begun before them resume.
CONFIG_KEYS_IF_SET = (
    "bits_per_byte",
    "boundary_chars",
    "deterministic",
    "keep_prompt",
    "token_logprobs",
    "window_stride",
)
# Flags on which the bits of log-probs depend on GPUs: part of it with --deterministic.
SHAPE_KEYS = ("mesh", "slots", "prefill_tokens", "shard_activations")

# For --reuse. Keys that say which rows there are and how parts cut them; all others decide about
# the content of a part.
PART_KEYS = frozenset({"input", "shards", "sample"})
# Keys that the requests or the input columns of a row express, beside those; all others decide
# about the results of equal requests.
ROW_KEYS = PART_KEYS | {
    "prompt_column",
    "id_column",
    "continuation_column",
    "template",
    "keep_prompt",
    "folder_columns",
    "max_len",
    "on_overflow",
    "sampling",
    "boundary_chars",
    "bits_per_byte",
    "window_stride",
}
# Of the others, those that decide about columns alone.
COLUMN_KEYS = ("logprobs", "prompt_logprobs", "token_logprobs")


def fingerprint_keys(plan: Plan) -> dict[str, Any]:
    """Returns the values that the fingerprint covers, in the form that run.json stores.

    Replicas, mesh and sizes are not part of it: results depend on them up to rounding at most.
    With --deterministic it covers the shapes of calls, which decide about rounding.

    Raises:
        ModelError: the checkpoint cannot be read.
    """
    config = plan.config
    config_keys = {name: getattr(config, name) for name in CONFIG_KEYS}
    for name in CONFIG_KEYS_IF_SET:
        if getattr(config, name):
            config_keys[name] = getattr(config, name)
    for name, (task, _) in TASK_FLAGS.items():
        if config.task == task:
            config_keys[name] = getattr(config, name)
    if config.deterministic:
        config_keys["shapes"] = {name: getattr(config, name) for name in SHAPE_KEYS}

    keys = {
        "model": dataclasses.asdict(plan.model),
        "checkpoint": digest(str(config.checkpoint)),
        "tokenizer": plan.tokenizer_digest,
        **config_keys,
        "sampling": fingerprint_values(plan.rules.defaults),
        "shards": {"shard_rows": config.shard_rows, "limit": config.limit},
        "input": input_keys(plan.files),
    }
    if plan.schema.template is not None:
        keys["template"] = plan.schema.template.text
    if config.sample is not None:
        keys["sample"] = {"rows": config.sample, "seed": config.sample_seed}
    # Runs of versions that did not have these columns have no such key.
    if plan.schema.folder_columns:
        keys["folder_columns"] = list(plan.schema.folder_columns)
    return keys


def context_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the results of a row depend on beside its own requests.

    Args:
        keys: of the fingerprint of a run.
    """
    return {name: value for name, value in keys.items() if name not in ROW_KEYS}


def row_context(keys: Mapping[str, Any]) -> bytes:
    """Returns what stands in digests of rows for `context_keys`."""
    return fingerprint(context_keys(keys)).encode()
