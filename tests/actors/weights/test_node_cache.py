"""Weights on the node's own disk: used when they are whole and the same, and never otherwise."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from actors.weights.node_cache import VARIABLE, node_copy

URL = "memory://weights-bucket/models/grok"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with a whole copy of what is at URL."""
    memory = fsspec.filesystem("memory")
    memory.pipe(
        {
            f"/weights-bucket/models/grok/tensor{number}": bytes([number]) * 100
            for number in range(3)
        }
    )
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    copy = tmp_path / "weights-bucket" / "models" / "grok"
    memory.get("/weights-bucket/models/grok", str(copy), recursive=True)
    copy.with_name("grok.complete").write_text(f"{URL}\n")
    yield tmp_path
    memory.rm("/weights-bucket", recursive=True)


def test_node_copy_of_complete_weights_with_and_without_a_slash(cache: Path) -> None:
    assert (
        node_copy(URL) == node_copy(f"{URL}/") == str(cache / "weights-bucket" / "models" / "grok")
    )


def test_node_copy_without_its_marker_is_not_used(cache: Path) -> None:
    (cache / "weights-bucket" / "models" / "grok.complete").unlink()
    assert node_copy(URL) == URL


def test_node_copy_with_the_marker_of_another_url_is_not_used(cache: Path) -> None:
    (cache / "weights-bucket" / "models" / "grok.complete").write_text(
        "memory://other-bucket/models/grok\n"
    )
    assert node_copy(URL) == URL


def test_node_copy_of_replaced_weights_is_not_used(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fsspec.filesystem("memory").pipe("/weights-bucket/models/grok/tensor1", b"x" * 100)
    assert node_copy(URL) == URL
    assert "differs from" in caplog.text


@pytest.mark.parametrize(
    "url",
    ["/disk/grok-1", "grok-1", "file:///disk/grok-1", "memory://weights-bucket/../models/grok"],
)
def test_node_copy_returns_folders_and_unsafe_urls_unchanged(cache: Path, url: str) -> None:
    assert node_copy(url) == url


def test_node_copy_without_a_cache_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert node_copy("s3://no-such-bucket/grok-1") == "s3://no-such-bucket/grok-1"
