"""Fixtures that tests of several folders share, and how JAX runs in tests.

Before anything imports JAX: eight virtual CPU devices, and no silent promotion of types or ranks.
Signatures of the model and the engine are checked by jaxtyping and beartype through pytest's
`--jaxtyping-packages` (pyproject.toml), and by `tests/type_checks.py`.
"""

import gc
import importlib
import itertools
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

# Tests start hundreds of Python processes. Without bytecode, each compiles Ray, JAX and this
# project from source: 2 to 5 s of processor time per process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
)
# Programs of tests are small and two run at a time: cut into parts for many cores they would only
# take longer to compile.
os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Many tests build engines of equal shapes: each program is compiled once per user, not per engine
# or checkout. Keys cover the program, the options and the version of the compiler.
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(os.environ["XDG_CACHE_HOME"], "grok-batch", "tests", "jax")),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from tests import shared_ray
from tests.s3 import s3_endpoint, s3_faults, s3_url
from tests.type_checks import check_types

__all__ = ["s3_endpoint", "s3_faults", "s3_url"]

os.environ.update(shared_ray.RAY_SETTINGS)
sys.dont_write_bytecode = False
# JAX comes before the modules that jaxtyping instruments: an import inside them does not find the
# bytecode of libraries.
importlib.import_module("haiku")
check_types()

SLOW_TEST_S = 10.0  # order of magnitude of a slow test that states no time limit


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files whose tests may take longest first, every other one with tests on Ray.

    Workers take files in this order (`--dist loadfile --no-loadscope-reorder`): a long file at the
    end would leave the others idle. Tests on Ray wait for half of their time: side by side they
    would leave the cores idle, and all that computes would come after them.
    """
    limits_s: Counter[Path] = Counter()
    on_ray: set[Path] = set()
    for item in items:
        limits_s[item.path] += _time_limit_s(item)
        if item.get_closest_marker("ray"):
            on_ray.add(item.path)

    longest_first = sorted(limits_s, key=lambda path: -limits_s[path])
    computing = [path for path in longest_first if path not in on_ray]
    waiting = [path for path in longest_first if path in on_ray]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(computing, waiting))
    ranks = {path: rank for rank, path in enumerate(mixed)}
    items.sort(key=lambda item: ranks[item.path])


def _time_limit_s(item: pytest.Item) -> float:
    limit = item.get_closest_marker("timeout")
    if limit is not None:
        return float(limit.args[0])
    return SLOW_TEST_S if item.get_closest_marker("slow") else 0.0


def pytest_collection_finish() -> None:
    """Exempts all modules and tests from garbage collection: tracing collects very often."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Ends the Ray that tests of this process have shared."""
    shared_ray.stop()
