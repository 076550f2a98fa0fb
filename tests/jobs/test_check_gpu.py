"""jobs/check_gpu.py, in the interpreter: it passes, and it says so when a path is wrong."""

import jax.numpy as jnp
import pytest

from actors.kernels.xla.platform import XLA
from jobs import check_gpu


@pytest.mark.slow
def test_the_check_passes_and_catches_a_wrong_kernel(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_gpu.main(["--interpret"]) == 0
    said = capsys.readouterr().out
    assert said.count("differs by") == 8
    assert "WRONG" not in said
    wrong = XLA.kernels._replace(
        attend=lambda q, *rest: XLA.kernels.attend(q, *rest) + jnp.asarray(0.1, q.dtype)
    )
    monkeypatch.setattr(check_gpu, "INTERPRETED", wrong)
    assert check_gpu.main(["--interpret"]) == 1
    assert capsys.readouterr().out.count("WRONG") == 4


def test_without_a_gpu_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_gpu.main([]) == 2
    assert "JAX sees no GPU but cpu" in capsys.readouterr().err
