"""Checkpoint folders: what is read, what is refused, and what is written."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import jax
import numpy as np
import pytest

from actors.kernels.quantized import QuantizedWeight
from actors.model.config import DEMO, parameter_shapes
from actors.model.sharding import make_mesh, parameter_specs
from actors.protocol.errors import ModelError
from actors.weights import checkpoint
from actors.weights.digest import digest
from actors.weights.pickle_reader import Int8Tensor
from actors.weights.pickle_writer import pickle_tensor
from actors.weights.weight_files import WeightFolder
from tests import reference
from tests.actors.model.models import CASES, CONFORMANCE, config_of

CONFIG = config_of("gqa")
LINEAR_1, QUERY, NORM = "tensor00003_000", "tensor00007_000", "tensor00001_000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONFORMANCE / "gqa" / "ckpt-0", tmp_path / "ckpt-0"))


def read(folder: Path) -> dict[str, Any]:
    return {tensor.path: value for tensor, value in checkpoint.read(folder, CONFIG)}


def file_of(tensor: Any) -> bytes:
    return b"".join(pickle_tensor(tensor))


# ---- reading


@pytest.mark.parametrize("case", CASES)
def test_read_matches_the_stock_unpickler(case: str) -> None:
    expected = reference.parameters(CONFORMANCE / case / "ckpt-0", config_of(case))
    for tensor, value in checkpoint.read(CONFORMANCE / case / "ckpt-0", config_of(case)):
        np.testing.assert_array_equal(reference.dequantised(value), expected[tensor.path])


@pytest.mark.parametrize("mesh_shape", [(1, 1), (1, 8), (2, 4)])
def test_load_places_each_slice_on_its_device(mesh_shape: tuple[int, int]) -> None:
    mesh = make_mesh(*mesh_shape)
    params = checkpoint.load(CONFORMANCE / "gqa" / "ckpt-0", CONFIG, mesh)
    specs = jax.tree.map(lambda a: a.sharding.spec, params)
    assert specs == parameter_specs(CONFIG)
    host = read(CONFORMANCE / "gqa" / "ckpt-0")
    for tensor in parameter_shapes(CONFIG):
        placed = params[tensor.module][tensor.name]
        array = placed.weight if isinstance(placed, QuantizedWeight) else placed
        np.testing.assert_array_equal(
            reference.dequantised(host[tensor.path]), reference.dequantised(jax.device_get(placed))
        )
        split = {"vocab", "heads", "kv_heads", "ffn"} & set(tensor.axes)
        share = array.addressable_shards[0].data.size  # type: ignore[union-attr]
        assert share == array.size // (mesh_shape[1] if split else 1)  # type: ignore[union-attr]


def test_loaded_parameters_do_not_change_with_the_file(folder: Path) -> None:
    params = checkpoint.load(folder, CONFIG, make_mesh(1, 1))
    before = jax.device_get(params)
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(params))


def test_read_of_a_folder_of_links(tmp_path: Path) -> None:
    """The layout of Hugging Face's cache: blobs by digest, and a snapshot of links to them."""
    source = CONFORMANCE / "gqa" / "ckpt-0"
    snapshot = tmp_path / "models--xai-org--grok-1" / "snapshots" / "abc" / "ckpt-0"
    blobs = tmp_path / "models--xai-org--grok-1" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in source.iterdir():
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(f"../../../blobs/{blob.name}")

    jax.tree.map(np.testing.assert_array_equal, read(snapshot), read(source))
    assert digest(snapshot) == digest(source)


def test_load_from_any_file_system() -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(CONFORMANCE / "gqa" / "ckpt-0"), "/model/ckpt-0", recursive=True)
    try:
        params = checkpoint.load("memory://model/ckpt-0", CONFIG, make_mesh(1, 1))
        local = checkpoint.load(CONFORMANCE / "gqa" / "ckpt-0", CONFIG, make_mesh(1, 1))
        jax.tree.map(np.testing.assert_array_equal, params, local)
    finally:
        memory.rm("/model", recursive=True)


def assert_read_in_parts_is_equal(url: str, name: str) -> None:
    """Reads a file in one request and in many, which return in any order."""
    with WeightFolder(url) as folder, WeightFolder(url, remote_part_bytes=10_000) as in_parts:
        size = folder.sizes()[name]
        assert size > 100_000
        np.testing.assert_array_equal(in_parts.read(name, 0, size), folder.read(name, 0, size))


@pytest.mark.s3
@pytest.mark.slow
def test_write_to_and_load_from_s3(s3_url: str) -> None:
    checkpoint.write(checkpoint.random_parameters(DEMO, 7), f"{s3_url}/models/ckpt-0")
    for (path, expected), (tensor, got) in zip(
        checkpoint.random_parameters(DEMO, 7),
        checkpoint.read(f"{s3_url}/models/ckpt-0", DEMO),
        strict=True,
    ):
        assert path == tensor.path
        np.testing.assert_array_equal(reference.dequantised(got), reference.dequantised(expected))
    assert_read_in_parts_is_equal(f"{s3_url}/models/ckpt-0", "tensor00000_000")
    with pytest.raises(ModelError, match=r"/elsewhere: no such folder"):
        list(checkpoint.read(f"{s3_url}/elsewhere", DEMO))
    with pytest.raises(ModelError, match=r"checkpoint s3://no-such-bucket-of-ours/x: "):
        list(checkpoint.read("s3://no-such-bucket-of-ours/x", DEMO))


def test_read_of_a_truncated_transfer_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(CONFORMANCE / "gqa" / "ckpt-0"), "/short/ckpt-0", recursive=True)
    whole = type(memory).cat_file
    monkeypatch.setattr(
        type(memory), "cat_file", lambda *args, **kwargs: whole(*args, **kwargs)[:-1]
    )
    try:
        with pytest.raises(
            ModelError,
            match=r"tensor00000_000: cannot be read \(153761 of 153762 bytes came at offset 0\)",
        ):
            list(checkpoint.read("memory://short/ckpt-0", CONFIG))
    finally:
        memory.rm("/short", recursive=True)


def test_load_on_a_mesh_that_does_not_divide_raises_before_reading() -> None:
    with pytest.raises(
        ModelError, match=r"model = 5 does not divide the model's num_kv_heads 8 and ffn_size 128"
    ):
        checkpoint.load("/nowhere", CONFIG, make_mesh(1, 5))


# ---- refusing: names and sizes


def test_read_of_a_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=(
            r"nowhere: no such folder; give the folder that holds tensor00000_000 or "
            r"manifest.json"
        ),
    ):
        read(tmp_path / "nowhere")


# ---- refusing: contents


def damage(folder: Path, name: str, content: bytes, padding: int = 200_000) -> None:
    """Replaces a file by `content`, long enough not to be refused for its size."""
    (folder / name).write_bytes(content + bytes(max(0, padding - len(content))))


class _Runs:
    def __init__(self, call: Any, argument: str) -> None:
        self.call, self.argument = call, argument

    def __reduce__(self) -> Any:
        return self.call, (self.argument,)


def hostile_pickles(witness: Path) -> dict[str, bytes]:
    command = f"touch {witness}"
    reduce_4 = pickle.dumps(_Runs(os.system, command), protocol=4)
    return {
        "reduce": reduce_4,
        "protocol-0": pickle.dumps(_Runs(os.system, command), protocol=0),
        "protocol-2": pickle.dumps(_Runs(os.system, command), protocol=2),
        "protocol-5": pickle.dumps(_Runs(os.system, command), protocol=5),
        "eval": pickle.dumps(_Runs(eval, f"__import__('os').system({command!r})"), protocol=4),
        "in-a-dictionary": pickle.dumps({"weight": _Runs(os.system, command)}, protocol=4),
        "an-allowed-class-called-with-arguments": (
            b"\x80\x04\x8c\x08__main__\x8c\x12QuantizedWeight8bit\x93\x8c\x01x\x85R."
        ),
        "inst": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "numpy-load": b"\x80\x04\x8c\x05numpy\x8c\x04load\x93\x8c\x01x\x85R.",
        "getattr-on-numpy": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        "object-array": pickle.dumps(
            np.array([_Runs(os.system, command)], dtype=object), protocol=4
        ),
        "persistent-id": b"\x80\x04K\x01Q.",
        "memo-bomb": b"\x80\x04K\x01r\xff\xff\xff\x7f.",
        "extension-registry": b"\x80\x04\x82\x01.",
    }


@pytest.mark.parametrize("name", hostile_pickles(Path("witness")))
def test_read_never_executes_a_file(folder: Path, tmp_path: Path, name: str) -> None:
    witness = tmp_path / "witness"
    damage(folder, LINEAR_1, hostile_pickles(witness)[name])
    with pytest.raises(ModelError, match=rf"{LINEAR_1}: "):
        read(folder)
    assert not witness.exists()


def test_hostile_pickle_runs_in_the_stock_unpickler(tmp_path: Path) -> None:
    # so that the test above can fail: the stock unpickler does run it
    witness = tmp_path / "witness"
    pickle.loads(hostile_pickles(witness)["reduce"])
    assert witness.exists()


def test_error_names_the_global_that_a_file_refers_to(folder: Path) -> None:
    damage(folder, LINEAR_1, pickle.dumps(_Runs(os.system, "true"), protocol=4))
    with pytest.raises(
        ModelError,
        match=r"it refers to posix\.system; only numpy arrays and QuantizedWeight8bit are accepted",
    ):
        read(folder)


WRONG: dict[str, tuple[str, Callable[[], Any], str]] = {
    "shape": (
        LINEAR_1,
        lambda: Int8Tensor(np.zeros((8, 96, 128), np.int8), np.ones((8, 8, 128), "bfloat16")),
        (
            r"expected transformer/decoder_layer_0/moe/linear_1/w as int8 \[8, 128, 96\] "
            r"with scales bfloat16 \[8, 8, 96\], "
            r"got int8 \[8, 96, 128\] with scales bfloat16 \[8, 8, 128\]"
        ),
    ),
    "groups": (
        LINEAR_1,
        lambda: Int8Tensor(np.zeros((8, 128, 96), np.int8), np.ones((8, 16, 96), "bfloat16")),
        r"got int8 \[8, 128, 96\] with scales bfloat16 \[8, 16, 96\]",
    ),
    "scales-type": (
        LINEAR_1,
        lambda: Int8Tensor(np.zeros((8, 128, 96), np.int8), np.ones((8, 8, 96), np.float32)),
        r"got int8 .* with scales float32",
    ),
    "not-quantised": (
        LINEAR_1,
        lambda: np.zeros((8, 128, 96), np.float32),
        r"got float32 \[8, 128, 96\]",
    ),
    "quantised": (
        "tensor00000_000",
        lambda: Int8Tensor(np.zeros((400, 960), np.int8), np.ones((1, 960), "bfloat16")),
        r"expected language_model/in_out_embed/embeddings as float32 \[400, 96\], got int8",
    ),
    "nan": (
        NORM,
        lambda: np.full(96, np.nan, np.float32),
        r"language_model/rms_norm/scale holds NaN or infinity",
    ),
    "infinite-scales": (
        QUERY,
        lambda: Int8Tensor(np.zeros((96, 256), np.int8), np.full((1, 256), np.inf, "bfloat16")),
        r"query/w holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_read_of_unexpected_tensors_raises(folder: Path, fault: str) -> None:
    name, make, message = WRONG[fault]
    (folder / name).write_bytes(file_of(make()))
    with pytest.raises(ModelError, match=rf"{name}: .*{message}"):
        read(folder)


def test_read_of_another_element_type_raises(folder: Path) -> None:
    damage(
        folder,
        "tensor00000_000",
        pickle.dumps(np.zeros((400, 96), np.float64), protocol=4),
        padding=0,
    )
    with pytest.raises(
        ModelError, match=r"elements of type 'f8'; expected float32 \(f4\), int8 \(i1\) or bfloat16"
    ):
        read(folder)


# ---- writing


@pytest.mark.parametrize("case", CASES)
def test_write_matches_the_reference_byte_for_byte(case: str, tmp_path: Path) -> None:
    source = CONFORMANCE / case / "ckpt-0"
    checkpoint.write(
        ((t.path, value) for t, value in checkpoint.read(source, config_of(case))),
        tmp_path / "copy",
    )
    names = sorted(path.name for path in source.iterdir())
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == names
    for name in names:
        assert (tmp_path / "copy" / name).read_bytes() == (source / name).read_bytes(), name


def test_random_parameters_survive_a_round_trip(tmp_path: Path) -> None:
    checkpoint.write(checkpoint.random_parameters(DEMO, 7), tmp_path)
    params = checkpoint.load(tmp_path, DEMO, make_mesh(1, 8))
    for path, value in checkpoint.random_parameters(DEMO, 7):
        module, _, name = path.rpartition("/")
        np.testing.assert_array_equal(
            reference.dequantised(jax.device_get(params[module][name])),
            reference.dequantised(value),
        )
    # from devices, where G = 8 groups fit 8 shards as they are
    checkpoint.write(params, tmp_path / "again")
    for file in (tmp_path / "again").iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_write_of_pairs_out_of_order_raises(tmp_path: Path) -> None:
    pairs = list(checkpoint.random_parameters(DEMO, 7))
    with pytest.raises(
        ValueError, match=r"follows language_model/rms_norm/scale; parameters must come sorted"
    ):
        checkpoint.write([pairs[1], pairs[0]], tmp_path)


def test_write_of_unsupported_types_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got an array of float64"):
        checkpoint.write([("a/w", np.zeros(3))], tmp_path)
