"""The comparison of GPU kernels with plain XLA, in the interpreter."""

from typing import Any

import jax.numpy as jnp
import pytest

from actors.kernels.xla.platform import XLA
from jobs import check_gpu


@pytest.mark.slow
def test_check_passes_and_reports_a_wrong_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_gpu.main(["--interpret"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("differs by") == 8
    assert "WRONG" not in printed

    def attend_wrongly(q: Any, *arguments: Any) -> Any:
        return XLA.kernels.attend(q, *arguments) + jnp.asarray(0.1, q.dtype)

    wrong = XLA.kernels._replace(attend=attend_wrongly)
    assert check_gpu.main(["--interpret"], interpreted=wrong) == 1
    assert capsys.readouterr().out.count("WRONG") == 4


def test_check_without_a_gpu_names_the_package_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_gpu.main([]) == 2
    assert "JAX sees no GPU but cpu" in capsys.readouterr().err
