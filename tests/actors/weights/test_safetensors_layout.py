"""The safetensors layout: read back exactly on any mesh; contradictions are errors."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from actors.model.config import GROK_1, ModelConfig, parameter_shapes
from actors.model.sharding import make_mesh
from actors.protocol.errors import ModelError
from actors.weights import checkpoint
from actors.weights import safetensors_layout as converted
from actors.weights.digest import digest
from jobs.weights.convert import convert
from tests.actors.model.models import CASES, CONFORMANCE, config_of

CONFIG = config_of("gqa")
LINEAR_1 = "transformer.decoder_layer_0.moe.linear_1.w.safetensors"
NORM = "language_model.rms_norm.scale.safetensors"


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "gqa"
    convert(str(CONFORMANCE / "gqa" / "ckpt-0"), str(folder), CONFIG)
    return folder


@pytest.fixture
def folder(converted_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted_once, tmp_path / "converted"))


def read(folder: Path, config: ModelConfig = CONFIG) -> dict[str, Any]:
    return {tensor.path: value for tensor, value in checkpoint.read(folder, config)}


# ---- reading


@pytest.mark.parametrize("mesh_shape", [(1, 1), (1, 2), (1, 8), (2, 4)])
def test_load_matches_the_source_on_every_mesh(
    converted_once: Path, mesh_shape: tuple[int, int]
) -> None:
    mesh = make_mesh(*mesh_shape)
    ours = checkpoint.load(converted_once, CONFIG, mesh)
    source = checkpoint.load(CONFORMANCE / "gqa" / "ckpt-0", CONFIG, mesh)
    assert jax.tree.structure(ours) == jax.tree.structure(source)
    jax.tree.map(np.testing.assert_array_equal, ours, source)
    assert jax.tree.map(lambda a: (a.dtype, a.sharding), ours) == jax.tree.map(
        lambda a: (a.dtype, a.sharding), source
    )


@pytest.mark.parametrize("case", CASES)
def test_layout_preserves_every_conformance_model(case: str, tmp_path: Path) -> None:
    convert(str(CONFORMANCE / case / "ckpt-0"), str(tmp_path / case), config_of(case))
    ours, source = (
        read(tmp_path / case, config_of(case)),
        read(CONFORMANCE / case / "ckpt-0", config_of(case)),
    )
    assert ours.keys() == source.keys()
    for path, value in source.items():
        jax.tree.map(np.testing.assert_array_equal, ours[path], value)


def test_files_are_readable_by_the_safetensors_library(converted_once: Path) -> None:
    arrays = safetensors.numpy.load_file(converted_once / LINEAR_1)
    source = read(CONFORMANCE / "gqa" / "ckpt-0")["transformer/decoder_layer_0/moe/linear_1/w"]
    assert sorted(arrays) == ["scales", *(f"values.{n}" for n in range(8))]
    np.testing.assert_array_equal(
        np.concatenate([arrays[f"values.{n}"] for n in range(8)], axis=1), source.weight
    )
    np.testing.assert_array_equal(arrays["scales"], source.scales)


def test_loaded_parameters_do_not_change_with_the_file(folder: Path) -> None:
    params = checkpoint.load(folder, CONFIG, make_mesh(1, 8))
    before = jax.tree.map(np.array, params)
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
    jax.tree.map(np.testing.assert_array_equal, before, params)


def test_parts_of_grok_1_are_eight() -> None:
    assert converted.parts_of(GROK_1) == 8
    names = {converted.file_name(tensor) for tensor in parameter_shapes(GROK_1)}
    assert len(names) == 770


# ---- digest


def test_digest_is_that_of_the_manifest(folder: Path, converted_once: Path) -> None:
    before = digest(folder)
    assert before == digest(converted_once)
    assert before != digest(CONFORMANCE / "gqa" / "ckpt-0")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][NORM]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert digest(folder) != before
    (folder / NORM).unlink()
    with pytest.raises(
        ModelError,
        match=rf"{NORM}: expected \d+ bytes by manifest.json, got no such file; copy or convert",
    ):
        digest(folder)


# ---- refusing


def test_open_of_an_unfinished_conversion_raises(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(
        ModelError,
        match=(
            r"an unfinished conversion, it has no manifest.json; run the same "
            r"convert_checkpoint.py"
        ),
    ):
        read(folder)


def test_open_names_missing_truncated_and_superfluous_files(folder: Path) -> None:
    (folder / NORM).unlink()
    with (folder / LINEAR_1).open("r+b") as file:
        file.truncate(5000)
    shutil.copy(folder / LINEAR_1, folder / "other.safetensors")
    with pytest.raises(ModelError) as raised:
        read(folder)
    assert f"{NORM}: missing" in str(raised.value)
    assert f"{LINEAR_1}: 5000 bytes, the manifest says" in str(raised.value)
    assert "other.safetensors: not of this model" in str(raised.value)


def test_open_of_another_model_raises(folder: Path) -> None:
    with pytest.raises(
        ModelError, match=r"not of this model.* more; .*check that --model belongs to it"
    ):
        read(folder, config_of("mha"))


MANIFEST_OF_A_FILE = (
    '{"format": "grok-batch weights", "version": 1, "parts": 8, '
    '"files": {"%s": {"bytes": %d, "sha256": ""}}}'
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '{"format": "other", "version": 1}',
        "[" * 100_000,
        '{"format": "grok-batch weights", "version": 2, "parts": 8, "files": {}}',
        '{"format": "grok-batch weights", "version": 1, "parts": 0, "files": {}}',
        MANIFEST_OF_A_FILE % ("../x.safetensors", 1),
        MANIFEST_OF_A_FILE % ("a.safetensors", -1),
    ],
)
def test_open_of_an_invalid_manifest_raises(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(
        ModelError,
        match=r"manifest.json: not a manifest of converted weights \(.*\); convert again",
    ):
        read(folder)


def replace(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file's bytes and its size in the manifest: only the file itself is wrong."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name]["bytes"] = len(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def with_header(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: str, shape: list[Any], start: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


NORM_BYTES = np.ones(96, np.float32).tobytes()
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated or no safetensors file"),
    "short": (b"\x01", "truncated or no safetensors file"),
    "endless-header": (b"\xff" * 400, "truncated or no safetensors file"),
    "header-beyond-the-file": (
        struct.pack("<Q", 60_000) + bytes(400),
        "its header would take 60000 of 408 bytes",
    ),
    "not-json": (with_header(b"{nonsense", NORM_BYTES), "damaged safetensors header"),
    "deep-json": (with_header(b"[" * 60_000, NORM_BYTES), "damaged safetensors header"),
    "a-list": (with_header([], NORM_BYTES), "damaged safetensors header"),
    "twice": (with_header(b'{"values.0": 1, "values.0": 2}', NORM_BYTES), "a name stands twice"),
    "pickle-type": (
        with_header({"values.0": entry("O", [96], 0, 384)}, NORM_BYTES),
        "element type 'O', expected one of F32",
    ),
    "overlap": (
        with_header(
            {"values.0": entry("F32", [96], 0, 384), "b": entry("F32", [96], 0, 384)}, NORM_BYTES
        ),
        "begins at byte",
    ),
    "hole": (
        with_header({"values.0": entry("F32", [96], 8, 392)}, NORM_BYTES + bytes(8)),
        "begins at byte",
    ),
    "outside": (
        with_header({"values.0": entry("F32", [9600], 0, 38400)}, NORM_BYTES),
        "its header describes",
    ),
    "bytes-behind": (
        with_header({"values.0": entry("F32", [96], 0, 384)}, NORM_BYTES + b"x"),
        "its header describes",
    ),
    "negative": (
        with_header({"values.0": entry("F32", [-96], 0, -384)}, NORM_BYTES),
        "not a whole number",
    ),
    "float-offset": (
        with_header({"values.0": entry("F32", [96], 0.0, 384)}, NORM_BYTES),
        "not a whole number",
    ),
    "huge": (
        with_header({"values.0": entry("F32", [1 << 40, 1 << 40], 0, 384)}, NORM_BYTES),
        "384 bytes for float32",
    ),
    "wrong-shape": (
        with_header({"values.0": entry("F32", [48, 2], 0, 384)}, NORM_BYTES),
        r"float32 \[96\], got values.0 float32 \[48",
    ),
    "wrong-type": (
        with_header({"values.0": entry("I8", [384], 0, 384)}, NORM_BYTES),
        r"got values.0 int8 \[384\]",
    ),
    "wrong-name": (
        with_header({"other": entry("F32", [96], 0, 384)}, NORM_BYTES),
        "with no other, got other float32",
    ),
    "nan": (
        with_header({"values.0": entry("F32", [96], 0, 384)}, np.full(96, np.nan, "f4").tobytes()),
        "holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_read_of_damaged_and_hostile_files_raises(folder: Path, fault: str) -> None:
    data, message = HOSTILE[fault]
    replace(folder, NORM, data)
    with pytest.raises(ModelError, match=rf"{NORM}: .*{message}"):
        read(folder)


def test_read_of_swapped_files_raises(folder: Path) -> None:
    query = "transformer.decoder_layer_0.multi_head_attention.query.w.safetensors"
    data = (folder / LINEAR_1).read_bytes()
    replace(folder, LINEAR_1, (folder / query).read_bytes())
    replace(folder, query, data)
    with pytest.raises(ModelError, match=r"belongs to another tensor or another model"):
        read(folder)


def test_load_of_parts_that_do_not_fit_the_mesh_raises(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"parts": 7}))
    with pytest.raises(ModelError, match=r"cannot be in 7 parts; convert again"):
        read(folder)
