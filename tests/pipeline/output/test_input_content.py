import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.output.input_content import DIGEST_KEY, content_digests, run_input_keys
from pipeline.output.run_folder import RunFolder, check_run, input_keys
from pipeline.records import InputFile


def input_file(path: Path, rows: int = 1) -> InputFile:
    status = path.stat()
    return InputFile(str(path), status.st_size, str(status.st_mtime_ns), rows)


def begin(folder: RunFolder, files: list[InputFile]) -> None:
    listing = []
    for url, digest in content_digests(files).items():
        listing.append({"url": url, DIGEST_KEY: digest})
    check_run(folder, {"input": input_keys(files)}, {"input": listing})


def test_digests_are_those_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    remote = InputFile("s3://bucket/b", 3, "etag", 1)
    files = [input_file(tmp_path / "a"), remote]
    assert content_digests(files) == {str(tmp_path / "a"): hashlib.sha256(b"abc").hexdigest()}
    assert content_digests(files, limit_bytes=2) == {}


def test_digest_of_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(DatasetError, match="it changed"):
        content_digests([replace(input_file(tmp_path / "a"), version="1")])


def test_touched_file_keeps_the_version_of_the_run(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    files = [input_file(tmp_path / name) for name in "abc"]
    folder = RunFolder(str(tmp_path / "run"))
    assert run_input_keys(folder, files) == input_keys(files)
    begin(folder, files)

    os.utime(tmp_path / "a", ns=(1, 1))
    (tmp_path / "b").write_bytes(b"B")
    os.utime(tmp_path / "b", ns=(2, 2))
    now = [input_file(tmp_path / name) for name in "abc"]
    keys = run_input_keys(folder, now)
    assert keys[0] == input_keys(files)[0]
    assert keys[1:] == input_keys(now)[1:]
    more_rows = [replace(now[0], rows=2)]
    assert run_input_keys(folder, more_rows) == input_keys(more_rows)


def test_run_of_an_earlier_version_has_no_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    files = [input_file(tmp_path / "a")]
    folder = RunFolder(str(tmp_path / "run"))
    check_run(folder, {"input": input_keys(files)}, {"input": [{"url": files[0].url}]})
    os.utime(tmp_path / "a", ns=(1, 1))
    now = [input_file(tmp_path / "a")]
    assert run_input_keys(folder, now) == input_keys(now)


def test_run_without_input_has_the_keys_of_the_files(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint_keys": {}}))
    files = [InputFile("/data/a", 3, "1", 1)]
    assert run_input_keys(folder, files) == input_keys(files)
