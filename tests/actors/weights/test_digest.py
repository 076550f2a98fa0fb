"""The digest of a folder of weights."""

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from actors.protocol.errors import ModelError
from actors.weights.digest import SAMPLE_BYTES, digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "weights"
    (root / "inner").mkdir(parents=True)
    (root / "a").write_bytes(bytes(range(256)) * 200)
    (root / "inner" / "b").write_bytes(b"small")
    (root / "empty").touch()
    return root


def test_digest_does_not_depend_on_the_location(folder: Path, tmp_path: Path) -> None:
    first = digest(folder)
    assert first.startswith("sha256:")
    folder.rename(tmp_path / "moved")
    assert digest(tmp_path / "moved") == digest(f"{tmp_path}/moved/") == first
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "moved"), "/digest-test", recursive=True)
    try:
        assert digest("memory://digest-test") == first
    finally:
        memory.rm("/digest-test", recursive=True)


@pytest.mark.parametrize("position", [0, SAMPLE_BYTES - 1, 256 * 100, 256 * 200 - 1])
def test_digest_changes_with_a_sample(folder: Path, position: int) -> None:
    before = digest(folder)
    with (folder / "a").open("r+b") as file:
        file.seek(position)
        file.write(b"\xaa\xaa"[: 256 * 200 - position])
    assert digest(folder) != before


def test_digest_changes_with_names_and_sizes(folder: Path) -> None:
    seen = {digest(folder)}
    (folder / "a").rename(folder / "c")
    seen.add(digest(folder))
    (folder / "inner" / "b").write_bytes(b"smalle")
    seen.add(digest(folder))
    (folder / "empty").unlink()
    seen.add(digest(folder))
    assert len(seen) == 4


def test_digest_of_one_file(folder: Path) -> None:
    assert digest(folder / "a") != digest(folder / "inner" / "b")


def test_digest_of_an_empty_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no files there"):
        digest(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no files there"):
        digest(tmp_path)


def test_digest_does_not_import_jax() -> None:
    code = "import sys, actors.weights.digest, actors.model.config; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
