"""The order of flags in `--help`: the ones people need first, then the others by topic.

A configuration class has `HELP_TOPICS`, from titles to names of fields. Names that a class does not
have are left out, so that commands share the topics of the main job.
"""

from collections.abc import Mapping
from types import MappingProxyType

from actors.protocol.sampling import PARAMETERS

Topics = Mapping[str, tuple[str, ...]]

FIRST = "flags to start with"

RUN_TOPICS: Topics = MappingProxyType(
    {
        "input": (
            "prompt_column",
            "continuation_column",
            "id_column",
            "template",
            "keep",
            "limit",
            "sample",
            "sample_seed",
            "on_overflow",
            "window_stride",
            "partition",
        ),
        "output": (
            "keep_prompt",
            "logprobs",
            "prompt_logprobs",
            "token_logprobs",
            "boundary_chars",
            "pool",
            "normalize",
            "embedding_dtype",
            "top_k_logprobs",
            "bits_per_byte",
            "shard_rows",
        ),
        "sampling": tuple(PARAMETERS),
        "replicas and devices": ("replicas", "mesh", "device", "dtype", "shard_activations"),
        "sizes of the engine": (
            "max_len",
            "slots",
            "prefill_tokens",
            "batch_tokens",
            "deterministic",
        ),
        "resume and errors": (
            "resume",
            "reuse",
            "retry_failed",
            "max_error_rate",
            "max_attempts",
            "step_timeout_s",
        ),
        "limits of time and money": ("max_cost", "max_replica_hours", "deadline"),
        "cost and messages": ("cost_per_replica_hour", "cost_budget", "json", "log_format"),
    }
)


def topics_of(topics: Topics, fields: tuple[str, ...]) -> dict[str, list[str]]:
    """Returns the fields of a class by topic, each once, in the order of the topics.

    Args:
        topics: names by title; the first topic that has a name gets it.
        fields: names of the class's fields.

    Returns:
        Topics that are not empty; fields of no topic are under "other flags".
    """
    left = dict.fromkeys(fields)
    grouped: dict[str, list[str]] = {}
    for title, names in topics.items():
        present = [name for name in names if name in left]
        for name in present:
            del left[name]
        if present:
            grouped[title] = present
    if left:
        grouped["other flags"] = list(left)
    return grouped
