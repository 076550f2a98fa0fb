"""The suites, one file each.

Every module of this folder defines `SUITES`, and is found without registration.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError
from pipeline.evals.suite import Suite

MAX_LISTED_NAMES = 9  # of a suite in a message; of a larger suite its own name


@cache
def suites() -> tuple[Suite, ...]:
    """Returns all suites, by name."""
    all_suites: list[Suite] = []
    for module in pkgutil.iter_modules(__path__):
        all_suites += importlib.import_module(f"{__name__}.{module.name}").SUITES
    return tuple(sorted(all_suites, key=lambda suite: suite.name))


def suite_of(name: str, flag: str = "--tasks") -> Suite:
    """Returns the suite that has a task or group of this name.

    Args:
        name: of the task or group.
        flag: that names it, for the message.

    Raises:
        ConfigError: there is no such suite.
    """
    expected: list[str] = []
    for suite in suites():
        if name in suite.names:
            return suite
        if len(suite.names) <= MAX_LISTED_NAMES:
            expected += suite.names
        else:
            expected.append(suite.name)
    raise ConfigError(
        f"{flag}: expected some of {', '.join(expected)} (or a subject such as mmlu_anatomy), "
        f"got {quoted(name)}"
    )


def leaf_tasks(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the tasks of tasks and groups, each once.

    Raises:
        ConfigError: an unknown name.
    """
    tasks: dict[str, None] = {}  # a set that keeps its order
    for name in names:
        tasks |= dict.fromkeys(suite_of(name).members(name))
    return tuple(tasks)
