"""Verification: what is wrong is listed, all of it, without reading the weights.

What is right passes.
"""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors.model.config import DEMO, GROK_1, parameter_shapes
from actors.protocol.errors import ModelError
from actors.weights import checkpoint
from actors.weights.pickle_reader import Int8Tensor
from actors.weights.pickle_writer import pickle_tensor
from actors.weights.weight_files import WeightFolder
from actors.weights.xai_layout import inspect
from jobs import verify_checkpoint
from jobs.weights.convert import convert
from jobs.weights.verify import Problem, read_digests, verify
from pipeline.errors import ConfigError
from tests.actors.model.models import CASES, CONFORMANCE, config_of

SOURCE = Path(__file__).parents[3] / "jobs" / "demo" / "ckpt-0"
EMBEDDING, NORM, LINEAR_1 = "tensor00000_000", "tensor00001_000", "tensor00003_000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SOURCE, tmp_path / "ckpt-0"))


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    convert(str(SOURCE), str(tmp_path / "converted"), DEMO)
    return tmp_path / "converted"


def run(*arguments: object) -> int:
    return verify_checkpoint.main([*map(str, arguments), "--model", "demo"])


def file_of(tensor: np.ndarray | Int8Tensor) -> bytes:
    return b"".join(pickle_tensor(tensor))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_verify_accepts_conformance_checkpoints(case: str, deep: bool) -> None:
    assert verify(str(CONFORMANCE / case / "ckpt-0"), config_of(case), deep=deep) == (
        [],
        "xAI's ckpt-0",
    )


def test_verify_prints_the_format_of_valid_weights(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--checkpoint", folder) == 0
    assert "xAI's ckpt-0, 38 tensors" in capsys.readouterr().out


def damage_missing(folder: Path) -> None:
    (folder / LINEAR_1).unlink()


def damage_extra(folder: Path) -> None:
    shutil.copy(folder / NORM, folder / "tensor00038_000")


def damage_truncated(folder: Path) -> None:
    with (folder / LINEAR_1).open("r+b") as file:
        file.truncate(1000)


def damage_tail(folder: Path) -> None:
    with (folder / EMBEDDING).open("r+b") as file:
        file.truncate((folder / EMBEDDING).stat().st_size - 3)


def damage_shape(folder: Path) -> None:
    (folder / NORM).write_bytes(file_of(np.ones(256, np.float32)))


def damage_nan(folder: Path) -> None:
    (folder / NORM).write_bytes(file_of(np.full(128, np.inf, np.float32)))


def damage_hostile(folder: Path) -> None:
    code = b"cos\nsystem\n(S'touch " + str(folder / "witness").encode() + b"'\ntR."
    (folder / NORM).write_bytes(code + bytes(1000))


def damage_class(folder: Path) -> None:
    (folder / NORM).write_bytes(pickle.dumps(os.path.join, protocol=4) + bytes(1000))


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "missing": (damage_missing, LINEAR_1, "missing, "),
    "extra": (damage_extra, "tensor00038_000", "not of this model (38 tensors)"),
    "truncated": (
        damage_truncated,
        LINEAR_1,
        "1000 bytes, but transformer/decoder_layer_0/moe/linear_1/w",
    ),
    "tail": (damage_tail, EMBEDDING, "truncated or damaged"),
    "shape": (
        damage_shape,
        NORM,
        "expected language_model/rms_norm/scale as float32 [128], got float32 [256]",
    ),
    "nan": (damage_nan, NORM, "holds NaN or infinity"),
    "hostile": (damage_hostile, NORM, "opcodes of pickle protocol 0"),
    "class": (damage_class, NORM, "it refers to posixpath.join"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_verify_finds_each_damage(folder: Path, fault: str) -> None:
    damage, name, message = DAMAGE[fault]
    damage(folder)
    (problem,), _ = verify(str(folder), DEMO)
    assert problem.file == name
    assert message in problem.message
    assert not (folder / "witness").exists()


def test_verify_lists_all_damages(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for damage in (damage_missing, damage_extra, damage_tail, damage_shape):
        damage(folder)
    assert run("--checkpoint", folder) == 1
    shown = capsys.readouterr().out
    assert "4 problems" in shown
    for name in (LINEAR_1, "tensor00038_000", EMBEDDING, NORM):
        assert name in shown


class CountingFolder(WeightFolder):
    """Counts the bytes that are read."""

    bytes_read = 0

    def read(self, name: str, start: int, end: int, align: int = 0) -> np.ndarray:
        self.bytes_read += end - start
        return super().read(name, start, end, align)


def test_verify_reads_only_the_ends_of_large_files(tmp_path: Path) -> None:
    """A file of 24 MB is judged by its beginning and its end.

    A truncated end, infinite scales and another shape are seen.
    """
    tensor = next(
        t
        for t in parameter_shapes(GROK_1)
        if t.path.endswith("layer_0/multi_head_attention/linear/w")
    )
    assert tensor.scales_shape is not None
    weight = np.full(tensor.shape, 3, np.int8)
    good = file_of(Int8Tensor(weight, np.ones(tensor.scales_shape, "bfloat16")))
    (tmp_path / "good").write_bytes(good)
    (tmp_path / "cut").write_bytes(good[:-3])
    (tmp_path / "infinite").write_bytes(
        file_of(Int8Tensor(weight, np.full(tensor.scales_shape, np.inf, "bfloat16")))
    )
    (tmp_path / "other").write_bytes(
        file_of(Int8Tensor(weight.reshape(3072, -1), np.ones((8, 12288), "bfloat16")))
    )
    with CountingFolder(tmp_path) as weights:
        inspect(weights, "good", len(good), tensor)
        assert 0 < weights.bytes_read < 200_000
        for name, message in [
            ("cut", "truncated or damaged"),
            ("infinite", "NaN or infinity"),
            ("other", r"got int8 \[3072"),
        ]:
            with pytest.raises(ModelError, match=message):
                inspect(weights, name, (tmp_path / name).stat().st_size, tensor)


def test_deep_verify_finds_damage_inside_files(folder: Path) -> None:
    embedding = np.ones((DEMO.vocab_size, DEMO.emb_size), np.float32)
    embedding[300, 5] = np.nan
    (folder / EMBEDDING).write_bytes(file_of(embedding))
    with (folder / LINEAR_1).open("r+b") as file:
        file.seek(8192)
        file.write(bytes(8192))
    assert verify(str(folder), DEMO)[0] == []
    first, second = verify(str(folder), DEMO, deep=True, hole_bytes=4096)[0]
    assert (first.file, second.file) == (EMBEDDING, LINEAR_1)
    assert "holds NaN or infinity" in first.message
    assert "blocks of 4,096 bytes are zero; an unfinished download" in second.message


def test_verify_compares_a_file_of_digests(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ckpt-0/{path.name}"
        for path in sorted(folder.iterdir())
    ]
    (tmp_path / "sums").write_text("\n".join(lines))
    assert run("--checkpoint", folder, "--deep", "true", "--digests", tmp_path / "sums") == 0
    # the key and value projections have one shape: nothing but their digests tells them apart
    key, value = ("tensor00005_000", "tensor00008_000")
    shutil.copy(folder / key, tmp_path / "key")
    shutil.copy(folder / value, folder / key)
    shutil.copy(tmp_path / "key", folder / value)
    assert run("--checkpoint", folder) == 0
    assert run("--checkpoint", folder, "--deep", "true", "--digests", tmp_path / "sums") == 1
    assert capsys.readouterr().out.count("sha256") == 2
    kept = read_digests("\n".join(lines[:4] + lines[9:]), "sums")
    problems, _ = verify(str(folder), DEMO, deep=True, digests=kept)
    unnamed = Problem(
        "tensor00004_000",
        "transformer/decoder_layer_0/moe/linear_v/w",
        "not in the file of digests",
    )
    assert problems[0] == unnamed
    assert len(problems) == 5
    with pytest.raises(
        ConfigError, match=r"sums, line 1: expected 'sha256  file name', got 'nonsense'"
    ):
        read_digests("nonsense", "sums")


def test_digests_may_be_uppercase_and_have_comments_and_folders() -> None:
    text = "# of ckpt-0\n\n" + "AB" * 32 + " *ckpt-0/tensor00000_000\n"
    assert read_digests(text, "sums") == {"tensor00000_000": "ab" * 32}


def test_verify_checks_converted_weights(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--checkpoint", converted, "--deep", "true") == 0
    assert "converted layout, 38 tensors" in capsys.readouterr().out
    name = "transformer.decoder_layer_1.moe.linear.w.safetensors"
    with (converted / name).open("r+b") as file:
        file.seek(9000)
        file.write(b"\x55\x56\x57")
    (converted / "language_model.rms_norm.scale.safetensors").unlink()
    (missing,), _ = verify(str(converted), DEMO)
    assert (missing.file, missing.tensor) == (
        "language_model.rms_norm.scale.safetensors",
        "language_model/rms_norm/scale",
    )
    problems, _ = verify(str(converted), DEMO, deep=True)
    assert [problem.file for problem in problems] == [
        "language_model.rms_norm.scale.safetensors",
        name,
    ]
    assert "expected " in problems[1].message
    assert run("--checkpoint", converted) == 1


def test_verify_reports_damaged_or_missing_manifest(converted: Path) -> None:
    manifest = converted / "manifest.json"
    manifest.write_text(json.dumps({"format": "other"}))
    (problem,), _ = verify(str(converted), DEMO)
    assert problem.message.startswith("not a manifest of converted weights")
    manifest.unlink()
    (problem,), _ = verify(str(converted), DEMO)
    assert problem.message.startswith("missing: an unfinished conversion")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--checkpoint is missing"),
        (["--checkpoint", "nowhere-at-all"], "no such folder"),
        (["--checkpoint", "tests"], "no checkpoint, it holds neither tensor00000_000"),
        (["--checkpoint", "x", "--digests", "y"], "--digests needs --deep true"),
        (["--checkpoint", "strange://x"], "no file system for this kind of URL"),
    ],
)
def test_invalid_arguments_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.s3
@pytest.mark.slow
def test_verify_on_s3(s3_url: str) -> None:
    checkpoint.write(checkpoint.random_parameters(DEMO, 3), f"{s3_url}/ckpt-0")
    assert verify(f"{s3_url}/ckpt-0", DEMO, deep=True) == ([], "xAI's ckpt-0")
    assert verify(f"{s3_url}/ckpt-0", config_of("gqa"))[0] != []
    convert(f"{s3_url}/ckpt-0", f"{s3_url}/converted", DEMO)
    assert verify(f"{s3_url}/converted", DEMO) == ([], "converted layout")
