"""smoke.py: the order of checks and their output, on the CPUs of the tests."""

from collections.abc import Iterator

import pytest

from jobs.checks import smoke


def test_smoke_fails_on_a_wrong_completion(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> Iterator[str]:
        yield "first"
        raise smoke.SmokeError("'2 + 3 =' is continued with ' 6'")

    def never() -> Iterator[str]:
        raise AssertionError("a check after one that failed")

    checks = {"mesh": lambda: iter(["fine"]), "answer": wrong, "through Ray": never}
    assert not smoke.run_checks(checks)
    said = capsys.readouterr()
    assert "mesh         ok" in said.out
    assert "answer       first" in said.out
    assert "FAILED: SmokeError: '2 + 3 =' is continued with ' 6'" in said.err


def test_smoke_passes_when_all_checks_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.run_checks({"versions": smoke.versions, "mesh": smoke.mesh})
    output = capsys.readouterr().out
    assert "versions     jax " in output
    assert "versions     ok" in output
    assert "mesh         sum over 8 devices is right" in output


def test_devices_are_listed_before_missing_gpus_are_an_error() -> None:
    lines = smoke.devices(min_gpus=1)
    listed = [next(lines) for _ in range(8)]
    assert listed[0].startswith("0: cpu")
    with pytest.raises(smoke.SmokeError, match="expected 1 GPUs, JAX sees 0; look at nvidia-smi"):
        next(lines)
    assert len(list(smoke.devices(min_gpus=0))) == 8
