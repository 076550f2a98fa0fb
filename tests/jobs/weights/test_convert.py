"""Weight conversion: equal numbers, written once despite interruptions, in its own files only."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from actors.engine.config import EngineConfig
from actors.model.config import DEMO
from actors.model.sharding import make_mesh
from actors.protocol.errors import ModelError
from actors.protocol.messages import Batch, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from actors.replica import Replica, ReplicaSpec
from actors.weights import checkpoint
from actors.weights.pickle_writer import pickle_tensor
from jobs import convert_checkpoint
from jobs.cli.command import run_command
from jobs.weights.convert import convert
from jobs.weights.verify import verify
from pipeline import storage

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "jobs" / "demo" / "ckpt-0"
NORM = "language_model.rms_norm.scale.safetensors"


def run(*arguments: object) -> int:
    return convert_checkpoint.main([*map(str, arguments), "--model", "demo"])


def same(one: Any, other: Any) -> None:
    for (tensor, a), (_, b) in zip(
        checkpoint.read(one, DEMO), checkpoint.read(other, DEMO), strict=True
    ):
        assert jax.tree.all(jax.tree.map(np.array_equal, a, b)), tensor.path


def test_conversion_reports_tensors_and_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-i", SOURCE, "-o", tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert "38 tensors" in shown.out
    assert "converted 0.00 of 0.00 GB" in shown.err
    same(SOURCE, tmp_path / "out")
    assert verify(str(tmp_path / "out"), DEMO, deep=True) == ([], "converted layout")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert run("-i", SOURCE, "-o", tmp_path / "out") == 0  # nothing to do
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_conversion_continues_and_keeps_existing_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("-i", SOURCE, "-o", out) == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "manifest.json").unlink()
    gone = sorted(name for name in whole if name != "manifest.json")[::2]
    for name in gone:
        (out / name).unlink()
    (out / f".{gone[0]}.0123.aside").write_bytes(b"half")  # what kill -9 leaves of a file
    kept = {
        path.name: path.stat().st_mtime_ns
        for path in out.iterdir()
        if path.suffix == ".safetensors"
    }
    assert run("-i", SOURCE, "-o", out, "--verify", "false") == 0
    assert {
        path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")
    } == whole
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept


@pytest.mark.slow
def test_conversion_continues_after_kill_at_any_moment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "jobs/convert_checkpoint.py",
        "-i",
        str(SOURCE),
        "-o",
        str(out),
        "--model",
        "demo",
        "--workers",
        "1",
    ]
    seen = []
    for wanted in (1, 8):
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while (
            process.poll() is None
            and len(list(out.glob("*.safetensors"))) < wanted
            and time.monotonic() < deadline
        ):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(len(list(out.glob("*.safetensors"))))
    assert seen[0] >= 1
    assert seen[1] >= seen[0]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert verify(str(out), DEMO, deep=True) == ([], "converted layout")
    same(SOURCE, out)


def test_conversion_continues_after_sigterm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def put_and_signal(url: str, data: bytes) -> bool:
        created = storage.put_if_absent(url, data)
        os.kill(os.getpid(), signal.SIGTERM)
        return created

    def work() -> int:
        convert(str(SOURCE), str(out), DEMO, workers=1, put_if_absent=put_and_signal)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert run_command(work) == 75
    assert signal.getsignal(signal.SIGTERM) == before
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()
    assert run("-i", SOURCE, "-o", out) == 0
    same(SOURCE, out)


def test_conversion_rejects_files_of_another_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other = shutil.copytree(SOURCE, tmp_path / "other")
    (other / "tensor00001_000").write_bytes(
        b"".join(pickle_tensor(np.full(DEMO.emb_size, 7, np.float32)))
    )
    assert run("-i", other, "-o", out) == 0
    (out / "manifest.json").unlink()
    assert run("-i", SOURCE, "-o", out) == 1
    assert f"{NORM}: differs from" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()


def test_damaged_target_is_found_while_converting(tmp_path: Path) -> None:
    def put_damaged(url: str, data: bytes) -> bool:
        last_byte = data[-1] ^ 1
        return storage.put_if_absent(url, data[:-1] + bytes([last_byte]))

    with pytest.raises(ModelError, match="damaged or of another source, delete it and convert"):
        convert(str(SOURCE), str(tmp_path / "out"), DEMO, put_if_absent=put_damaged)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_conversion_rejects_unknown_files_in_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "strange.safetensors").write_bytes(b"")
    assert run("-i", SOURCE, "-o", tmp_path / "out") == 1
    assert (
        "strange.safetensors: not of this model; choose another --target" in capsys.readouterr().err
    )
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x"], "--source is missing"),
        (["-i", "x"], "--target is missing"),
        (["-i", "nowhere-at-all", "-o", "x"], "nowhere-at-all: no such folder"),
        (
            ["-i", str(ROOT / "docs"), "-o", "x"],
            "no checkpoint, it holds none of the files tensor00000_000",
        ),
        (["-i", str(SOURCE), "-o", "x", "--workers", "0"], "--workers: expected at least 1, got 0"),
        (["-i", str(SOURCE), "-o", "x", "--fast", "true"], "--fast"),
    ],
)
def test_invalid_arguments_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_checkpoint.main(["-i", str(SOURCE), "-o", "x", "--model", "grok-2"]) == 2
    assert "--model: expected one of grok-1, demo" in capsys.readouterr().err


@pytest.mark.s3
@pytest.mark.slow
def test_conversion_from_s3_to_s3(s3_url: str, tmp_path: Path) -> None:
    checkpoint.write(
        ((t.path, value) for t, value in checkpoint.read(SOURCE, DEMO)), f"{s3_url}/ckpt-0"
    )
    assert run("-i", f"{s3_url}/ckpt-0", "-o", f"{s3_url}/converted") == 0
    assert verify(f"{s3_url}/converted", DEMO, deep=True) == ([], "converted layout")
    mesh = make_mesh(1, 8)
    ours, source = (checkpoint.load(url, DEMO, mesh) for url in (f"{s3_url}/converted", SOURCE))
    jax.tree.map(np.testing.assert_array_equal, ours, source)


@pytest.mark.slow
def test_engine_output_is_equal_for_both_layouts(tmp_path: Path) -> None:
    assert run("-i", SOURCE, "-o", tmp_path / "out") == 0
    answers = []
    for folder in (SOURCE, tmp_path / "out"):
        engine = EngineConfig(max_len=64, slots=4, logprobs=2)
        replica = Replica(ReplicaSpec(DEMO, str(folder), (1, 2), "float32", engine))
        requests = tuple(
            Request(
                RowRef(0, row),
                token_ids([5 + row, 9, 33, 7]),
                Sampling(max_tokens=8, temperature=0.8, seed=row, ignore_eos=True),
            )
            for row in range(3)
        )
        result = replica.run(Batch(requests))
        replica.close()
        answers.append(
            {
                c.ref.row: (c.token_ids, c.token_logprobs, c.error_message)
                for c in result.completions
            }
        )
    assert answers[0] == answers[1]
    assert [len(ids) for ids, _, _ in answers[0].values()] == [8, 8, 8]
