"""GPUs that only compile: which wheels are missing, and the error without them."""

from importlib import metadata

import pytest

from actors.engine.planning.compile_only import (
    TARGETS,
    WHEELS,
    describe,
    make_mesh,
    missing,
)
from actors.engine.planning.device_profiles import gpu_names
from actors.protocol.errors import ModelError


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Returns the versions of installed packages, to be changed by a test."""
    installed = {"jax": "0.9.1", **dict.fromkeys(WHEELS, "0.9.1")}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    return installed


def test_nothing_is_missing_with_all_wheels(versions: dict[str, str]) -> None:
    versions["nvidia-cuda-nvcc-cu12"] = "12.9.86"  # its versions are not those of JAX
    assert missing() is None


@pytest.mark.parametrize("name", WHEELS)
def test_missing_names_the_wheel(versions: dict[str, str], name: str) -> None:
    del versions[name]
    assert missing() == f"{name} is not installed"


def test_missing_names_wheels_of_another_version(versions: dict[str, str]) -> None:
    versions["jax-cuda12-pjrt"] = "0.8.0"
    assert missing() == "jax-cuda12-pjrt 0.8.0 beside jax 0.9.1"
    versions["jax-cuda12-plugin"] = "0.7.0"
    expected = "jax-cuda12-plugin 0.7.0 and jax-cuda12-pjrt 0.8.0 beside jax 0.9.1"
    assert missing() == expected


@pytest.mark.parametrize(("name", "title"), [("h100", "H100"), ("h200", "H200")])
def test_make_mesh_without_wheels_raises(versions: dict[str, str], name: str, title: str) -> None:
    del versions[WHEELS[0]]
    message = f"cannot compile for {title}: {WHEELS[0]} is not installed; install .*`make aot`"
    with pytest.raises(ModelError, match=message):
        make_mesh(TARGETS[name], 1, 8)


def test_every_gpu_with_a_profile_is_a_target() -> None:
    assert sorted(TARGETS) == list(gpu_names())


@pytest.mark.parametrize("name", TARGETS)
def test_reported_memory_is_near_the_nominal_one(name: str) -> None:
    target = TARGETS[name]
    assert target.reported_bytes == pytest.approx(target.profile.memory_bytes, rel=0.08)


def test_description_has_the_properties_of_the_chip() -> None:
    text = describe(TARGETS["a100-80"])
    assert "cuda_compute_capability { major: 8 minor: 0 }" in text
    assert f"shared_memory_per_block_optin: {163 << 10}" in text
    assert "core_count: 108" in text
    assert "device_memory_size: 85097971712" in text
    assert "memory_bandwidth: 2039000000000\n" in text
    assert 'device_description_str: "NVIDIA A100-SXM4-80GB"' in text
