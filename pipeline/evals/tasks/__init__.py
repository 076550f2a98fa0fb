"""The suites, one file each.

A file of this folder that defines `SUITES` is found here by itself.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from pipeline.errors import ConfigError
from pipeline.evals.suite import Suite


@cache
def suites() -> tuple[Suite, ...]:
    """Returns all suites, by name."""
    modules = [
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
    ]
    return tuple(
        sorted(
            (suite for module in modules for suite in module.SUITES), key=lambda suite: suite.name
        )
    )


def suite_of(name: str) -> Suite:
    """Returns the suite that has a task or group of this name.

    Raises:
        ConfigError: none has.
    """
    for suite in suites():
        if name in suite.names:
            return suite
    known = ", ".join(
        known
        for suite in suites()
        for known in (suite.names if len(suite.names) < 10 else (suite.name,))
    )
    raise ConfigError(
        f"--tasks: expected some of {known} (or a subject such as mmlu_anatomy), got {name!r}"
    )


def leaf_tasks(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the tasks that names of tasks and groups stand for, each once.

    Raises:
        ConfigError: an unknown name.
    """
    return tuple(dict.fromkeys(task for name in names for task in suite_of(name).members(name)))
