"""Keys of programs in JAX's cache do not depend on the folder of the code.

A Ray job's code lies in a new folder each time, and kernels of GPUs contain the paths of their
source files. Programs for GPUs are lowered here without one.
"""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PLATFORMS = ("cpu", "cuda")

PRINT_KEYS = """
import hashlib, sys
from dataclasses import dataclass
from pathlib import Path

from actors.compile_cache import CompileCache, configure_jax

configure_jax(CompileCache(Path(sys.argv[1])), {})
import jax
import jax.numpy as jnp
from jax._src import cache_key

import actors.engine.steps
from actors.engine.compilation import CompiledPrograms, ProgramShape, abstract_tree
from actors.engine.config import EngineConfig
from actors.engine.planning.abstract import abstract_cache, gpu_parameters
from actors.engine.scheduling.call_sizes import call_sizes
from actors.engine.steps import EngineContext
from actors.kernels.gpu.platform import GPU
from actors.model.config import ModelConfig
from actors.model.sharding import make_mesh
from actors.weights import checkpoint


@dataclass(frozen=True, slots=True)
class GpuContext(EngineContext):
    @property
    def platform(self):
        return GPU


case = Path(sys.argv[2])
model = ModelConfig.from_json((case / "config.json").read_text())
sizes = EngineConfig(64, prefill_tokens=64, slots=8, page_size=16)
mesh = make_mesh(1, 1)
for platform, context_class in (("cpu", EngineContext), ("cuda", GpuContext)):
    context = context_class(model, sizes, jnp.dtype("bfloat16"), mesh)
    if platform == "cuda":
        params = gpu_parameters(context)
    else:
        loaded = checkpoint.load(case / "ckpt-0", model, mesh)
        params = abstract_tree(context.platform.prepare(loaded, context.dtype, dense=False))
    compiled = CompiledPrograms(context, params)
    cache = abstract_cache(context, 8)
    for step, shapes in call_sizes(sizes, 1, few_sizes=False).programs().items():
        for rows, columns in shapes:
            arguments = compiled._arguments(ProgramShape(step, rows, columns), cache)
            function = getattr(compiled._functions, step)
            lowered = function.trace(params, *arguments).lower(lowering_platforms=(platform,))
            digest = hashlib.sha256()
            cache_key._hash_computation(
                digest, lowered._lowering.stablehlo(), cache_key.IgnoreCallbacks.NO
            )
            print(platform, step, rows, columns, digest.hexdigest())
assert actors.engine.steps.__file__.startswith(sys.argv[3])
"""


def keys_from(folder: Path) -> list[str]:
    """Returns a line for every program, from code that lies in `folder`."""
    folder.mkdir()
    (folder / "actors").symlink_to(REPOSITORY / "actors")
    case = REPOSITORY / "tests" / "data" / "conformance" / "mha"
    command = [sys.executable, "-c", PRINT_KEYS, folder / "cache", case, folder]
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(folder), "HOME": str(folder)}
    output = subprocess.run(
        list(map(str, command)),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert output.returncode == 0, output.stderr
    return output.stdout.splitlines()


@pytest.mark.slow
def test_keys_of_all_programs_do_not_depend_on_the_folder_of_the_code(tmp_path: Path) -> None:
    first = keys_from(tmp_path / "first")
    second = keys_from(tmp_path / "second")
    assert first == second
    programs = {tuple(line.split()[:2]) for line in first}
    assert programs == {
        (platform, step) for platform in PLATFORMS for step in ("prefill", "decode", "score")
    }
