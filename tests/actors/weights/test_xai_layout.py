"""xAI's folder of tensor files: names and sizes are checked first, contents by structure."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.model.config import TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.weights import checkpoint
from actors.weights.pickle_reader import BFLOAT16, Int8Tensor
from actors.weights.pickle_writer import pickle_tensor
from actors.weights.weight_files import WeightFolder
from actors.weights.xai_layout import (
    XaiLayout,
    check_size,
    file_name,
    inspect,
    names_that_differ,
    tensor_files,
)
from tests.actors.model.models import CONFORMANCE, config_of

CONFIG = config_of("gqa")
LINEAR_1 = "tensor00003_000"
QUERY = "tensor00007_000"
# larger than a file that is read whole, so that only its structure is read
LARGE = TensorSpec("layer/linear", "w", (2048, 1024), ("heads", "embed"), 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONFORMANCE / "gqa" / "ckpt-0", tmp_path / "ckpt-0"))


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[WeightFolder]:
    """Yields an empty folder."""
    with WeightFolder(tmp_path) as opened:
        yield opened


def read(folder: Path) -> dict[str, Any]:
    return {tensor.path: value for tensor, value in checkpoint.read(folder, CONFIG)}


def write_large(path: Path, scale: float = 0.5) -> int:
    """Writes a file of `LARGE` and returns its size."""
    assert LARGE.scales_shape is not None
    values = np.zeros(LARGE.shape, np.int8)
    scales = np.full(LARGE.scales_shape, scale, BFLOAT16)
    return path.write_bytes(b"".join(pickle_tensor(Int8Tensor(values, scales))))


def test_file_name_has_five_digits() -> None:
    assert file_name(7) == "tensor00007_000"
    assert file_name(12345) == "tensor12345_000"


def test_tensor_files_are_those_that_claim_to_be_tensors() -> None:
    sizes = {"tensor00000_000": 4, "tensor1": 5, "tensors.txt": 6, "README.md": 7, "tensor": 8}
    assert tensor_files(sizes) == {"tensor00000_000": 4, "tensor1": 5}


def test_names_that_differ_are_sorted() -> None:
    tensors = list(parameter_shapes(CONFIG))[:4]
    sizes = {"tensor00002_000": 1, "tensor00009_000": 1, "tensor00000_001": 1}
    missing, extra = names_that_differ(sizes, tensors)
    assert missing == ["tensor00000_000", "tensor00001_000", "tensor00003_000"]
    assert extra == ["tensor00000_001", "tensor00009_000"]


def test_check_size_accepts_the_numbers_alone() -> None:
    check_size("file", LARGE.stored_bytes, LARGE)
    with pytest.raises(ModelError, match=r"file: \d+ bytes, but layer/linear/w .*truncated"):
        check_size("file", LARGE.stored_bytes - 1, LARGE)


def test_fetch_returns_a_tensor_in_slices() -> None:
    with WeightFolder(CONFORMANCE / "gqa" / "ckpt-0") as source:
        layout = XaiLayout(source, source.sizes(), CONFIG)
        tensor = list(parameter_shapes(CONFIG))[3]
        slices = layout.fetch(3, tensor, 4)
    assert tensor.path.endswith("moe/linear_1/w")
    expected = read(CONFORMANCE / "gqa" / "ckpt-0")[tensor.path]
    assert len(slices.values) == 4
    np.testing.assert_array_equal(np.concatenate(slices.values, axis=1), expected.weight)
    np.testing.assert_array_equal(slices.scales, expected.scales)


def test_inspect_accepts_a_large_file(weights: WeightFolder, tmp_path: Path) -> None:
    size = write_large(tmp_path / "file")
    inspect(weights, "file", size, LARGE)


def test_inspect_of_infinite_scales_raises(weights: WeightFolder, tmp_path: Path) -> None:
    """They lie behind the numbers that are not read."""
    size = write_large(tmp_path / "file", scale=np.inf)
    with pytest.raises(ModelError, match="layer/linear/w holds NaN or infinity"):
        inspect(weights, "file", size, LARGE)


def test_inspect_of_a_damaged_end_raises(weights: WeightFolder, tmp_path: Path) -> None:
    path = tmp_path / "file"
    size = write_large(path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="file: "):
        inspect(weights, "file", size, LARGE)


def test_inspect_of_another_tensor_raises(weights: WeightFolder, tmp_path: Path) -> None:
    size = write_large(tmp_path / "file")
    other = TensorSpec("layer/linear", "w", (4096, 512), ("heads", "embed"), 8)
    with pytest.raises(ModelError, match=r"expected layer/linear/w as int8 \[4096, 512\]"):
        inspect(weights, "file", size, other)


def test_read_of_a_folder_without_tensors_raises(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"no checkpoint, it holds none of the files .*; it has a folder ckpt-0, give that",
    ):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: no checkpoint"):
        read(tmp_path / "empty")


def test_read_names_missing_and_superfluous_files(folder: Path) -> None:
    (folder / "tensor00007_000").unlink()
    with pytest.raises(
        ModelError,
        match=r"expected 50 tensor files .* found 49; missing tensor00007_000; fetch the missing",
    ):
        read(folder)
    (folder / "tensor00050_000").touch()
    with pytest.raises(
        ModelError,
        match=r"found 50; missing tensor00007_000; not of this model: tensor00050_000; check that",
    ):
        read(folder)


def test_read_ignores_files_that_are_not_tensors(folder: Path) -> None:
    (folder / "README.md").write_text("weights")
    assert len(read(folder)) == 50


def test_read_of_another_model_raises(folder: Path) -> None:
    with pytest.raises(
        ModelError,
        match=(
            r"expected 26 tensor files for this model, found 50; .* and 21 more; "
            r"check that --model"
        ),
    ):
        list(checkpoint.read(folder, config_of("mha")))


def test_read_checks_file_sizes_before_reading(folder: Path) -> None:
    with (folder / LINEAR_1).open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(
        ModelError,
        match=(
            rf"{LINEAR_1}: 5000 bytes, but transformer/decoder_layer_0/moe/linear_1/w "
            r".*truncated"
        ),
    ):
        read(folder)


def test_read_of_swapped_files_raises(folder: Path) -> None:
    """Of two swapped files of different size one is too short.

    Tensors of one shape (key, value) cannot be told apart.
    """
    for first, second, message in [
        (
            QUERY,
            "tensor00005_000",
            (
                rf"{QUERY}: 12842 bytes, but .*query/w .* takes 25088 and more; "
                r"the file is truncated or"
            ),
        ),
        (
            QUERY,
            "tensor00006_000",
            r"tensor00006_000: 25388 bytes, but .*linear/w .* takes 26112 and more",
        ),
    ]:
        copy = Path(shutil.copytree(folder, folder.parent / second))
        shutil.copy(folder / second, copy / first)
        shutil.copy(folder / first, copy / second)
        with pytest.raises(ModelError, match=message):
            read(copy)
