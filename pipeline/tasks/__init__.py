"""What a run does with each row: one module per task, and the registry of all tasks by name."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.tasks.embed import EMBED
from pipeline.tasks.generate import GENERATE
from pipeline.tasks.perplexity import PERPLEXITY
from pipeline.tasks.score import SCORE
from pipeline.tasks.task import (
    DEFAULT_TOP_K,
    EmbeddingOptions,
    LogprobOptions,
    OutputOptions,
    Task,
)
from pipeline.tasks.teach import TEACH

__all__ = [
    "DEFAULT_TOP_K",
    "EMBED",
    "GENERATE",
    "PERPLEXITY",
    "SCORE",
    "TASKS",
    "TEACH",
    "EmbeddingOptions",
    "LogprobOptions",
    "OutputOptions",
    "Task",
]

TASKS: Mapping[str, Task] = MappingProxyType(
    {task.name: task for task in (GENERATE, SCORE, PERPLEXITY, EMBED, TEACH)}
)
