"""Batch inference for Grok-1 on Ray: the console command, and the jobs as functions.

    import grok_batch

    run = grok_batch.score("prompts.parquet", "runs/first", model="demo", max_tokens=24)
    run.table()

The code is in `jobs`, `pipeline` and `actors`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from actors.protocol import version
from actors.protocol.errors import ClusterLostError, GrokBatchError, ModelError
from pipeline.errors import (
    CommitError,
    ConfigError,
    DatasetError,
    ErrorBudgetError,
    InterruptedRunError,
    LimitReachedError,
    OutageError,
)

if TYPE_CHECKING:
    from grok_batch.api import evaluate, generate, plan, score
    from grok_batch.runs import Dataset, Evaluation, Run

__all__ = [
    "ClusterLostError",
    "CommitError",
    "ConfigError",
    "Dataset",
    "DatasetError",
    "ErrorBudgetError",
    "Evaluation",
    "GrokBatchError",
    "InterruptedRunError",
    "LimitReachedError",
    "ModelError",
    "OutageError",
    "Run",
    "__version__",
    "evaluate",
    "generate",
    "plan",
    "score",
]

__version__ = version.VERSION

# Imported at their first use: the console command does without tables and plans.
_MODULES = {
    "evaluate": "grok_batch.api",
    "generate": "grok_batch.api",
    "plan": "grok_batch.api",
    "score": "grok_batch.api",
    "Dataset": "grok_batch.runs",
    "Evaluation": "grok_batch.runs",
    "Run": "grok_batch.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
