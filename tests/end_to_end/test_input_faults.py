"""Faults of the input, one by one, through the main job, compared with docs/input-faults.md.

WRITE_DOCS=1 pytest tests/end_to_end/test_input_faults.py      writes the page anew
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import score_dataset
from pipeline import storage
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import ROOT, table
from tests.s3 import S3Faults

PAGE = ROOT / "docs" / "input-faults.md"
SHARD_ROWS = 4


@dataclass(frozen=True)
class Fault:
    """One fault of the input.

    `make` writes the input and returns the value of -i; `good` is the number of rows that succeed.
    """

    what: str
    make: Callable[[Path], object]
    good: int  # rows
    flags: tuple[str, ...] = ()
    meanwhile: Callable[[Path], None] | None = (
        None  # what happens to the input once the run has begun
    )


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def column(**columns: Any) -> Callable[[Path], object]:
    """An input of one file: the columns given, and `id` and `prompt` unless they are among them."""

    def make(folder: Path) -> object:
        rows = len(next(iter(columns.values())))
        plain = {
            "id": [f"r{row}" for row in range(rows)],
            "prompt": [f"text {row}" for row in range(rows)],
        }
        if "prompt_token_ids" in columns:
            del plain["prompt"]
        return parquet(folder / "in.parquet", plain | columns)

    return make


def lines(*rows: object) -> Callable[[Path], object]:
    def make(folder: Path) -> object:
        path = folder / "in.jsonl"
        path.write_bytes(
            b"".join(
                row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows
            )
        )
        return path

    return make


def files(*tables: dict[str, Any]) -> Callable[[Path], object]:
    def make(folder: Path) -> object:
        for number, columns in enumerate(tables):
            parquet(folder / "in" / f"{number}.parquet", columns)
        return folder / "in"

    return make


def good_file(first: int, rows: int = 4) -> dict[str, Any]:
    return {
        "id": [f"r{first + row}" for row in range(rows)],
        "prompt": [f"text {row}" for row in range(rows)],
    }


def damaged(where: str) -> Callable[[Path], object]:
    """Two files, the second damaged at its header, footer, or in a page of data."""

    def make(folder: Path) -> object:
        files(good_file(0), good_file(4, 8))(folder)
        path = folder / "in" / "1.parquet"
        content = bytearray(path.read_bytes())
        if where == "header":
            content[:4] = b"JUNK"
        elif where == "footer":
            content[-400:-8] = bytes(392)
        else:
            start = pq.read_metadata(path).row_group(0).column(1).data_page_offset
            content[start : start + 12] = b"\xff" * 12
        path.write_bytes(bytes(content))
        return folder / "in"

    return make


def vanishing(folder: Path) -> None:
    (folder / "in" / "1.parquet").unlink()


def rewriting(folder: Path) -> None:
    parquet(folder / "in" / "1.parquet", good_file(4, 8))
    os.utime(folder / "in" / "1.parquet", ns=(1, 1))


def invalid_utf8() -> pa.Array:
    raw = pa.array([b"text 0", b"\xff\xfe\xfa", b"text 2"], pa.binary())
    return pa.Array.from_buffers(pa.string(), 3, raw.buffers())


def twice(folder: Path) -> Path:
    plain = pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(plain, folder / "in.parquet")
    return folder / "in.parquet"


def cut(folder: object) -> object:
    path = Path(str(folder)) / "1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    return folder


def emptied(folder: object) -> object:
    (Path(str(folder)) / "1.parquet").write_bytes(b"")
    return folder


def mixed(folder: Path) -> Path:
    files(good_file(0))(folder)
    (folder / "in" / "1.jsonl").write_text(json.dumps(GOOD) + "\n")
    return folder / "in"


NO_ROWS = {"id": pa.array([], pa.string()), "prompt": pa.array([], pa.string())}
GOOD = {"id": "r0", "prompt": "text 0"}
TWO_FILES = files(good_file(0), good_file(4, 8))
FAULTS = (
    Fault("prompt: null", column(prompt=["a", None, "b"]), 2),
    Fault("prompt: empty", column(prompt=["a", "", "b"]), 2),
    Fault("prompt: only white space", column(prompt=["a", "   ", "b"]), 3),
    Fault("prompt: column of numbers", column(prompt=[1, 2]), 0),
    Fault("prompt: bytes that are no UTF-8, in a string column", column(prompt=invalid_utf8()), 2),
    Fault(
        "prompt: bytes that are no UTF-8, in a binary column",
        column(prompt=pa.array([b"a", b"\xff", b"c"])),
        2,
    ),
    Fault("prompt: longer than --max-len", column(prompt=["a", "long " * 500, "b"]), 2),
    Fault("prompt: a cell of 20 MB", column(prompt=["a", "x" * 20_000_000, "b"]), 2),
    Fault(
        "prompt: column missing",
        column(question=["a", "b"], prompt=pa.nulls(2)),
        0,
        ("--prompt-column", "text"),
    ),
    Fault("prompt: nothing but nulls", column(prompt=pa.nulls(2)), 0),
    Fault(
        "prompt and prompt_token_ids at once",
        files({"prompt": ["a"], "prompt_token_ids": [[1]]}),
        0,
    ),
    Fault(
        "token ids: out of the vocabulary",
        column(prompt_token_ids=[[5], [5, 999_999], [-1], [7]]),
        2,
    ),
    Fault("token ids: null among them", column(prompt_token_ids=[[5], [5, None], [7]]), 2),
    Fault("token ids: beyond int32", column(prompt_token_ids=[[5], [2**40], [7]]), 2),
    Fault("token ids: empty list", column(prompt_token_ids=[[5], [], [7]]), 2),
    Fault("token ids: column of texts", column(prompt_token_ids=["5", "7"]), 0),
    Fault("id: twice", column(id=["a", "b", "a"]), 0),
    Fault("id: null", column(id=["a", None, "b"]), 0),
    Fault("id: column of lists", column(id=[[1], [2]]), 0),
    Fault("id: bytes that are no UTF-8", column(id=invalid_utf8()), 2),
    Fault(
        "max_tokens column: out of range, null, not whole",
        column(max_tokens=[2, 0, None, 10**6, 2]),
        3,
    ),
    Fault(
        "temperature column: NaN, negative, infinite",
        column(temperature=[0.0, float("nan"), -1.0, float("inf")]),
        1,
    ),
    Fault("top_p column: texts", column(top_p=["0.5", "high"]), 0),
    Fault("stop column: an empty text among them", column(stop=[["a"], [""], None]), 2),
    Fault("column with the name of an output column", column(text=["a", "b"]), 0),
    Fault("two columns of one name", twice, 0),
    Fault(
        "nested columns pass through",
        column(
            meta=[{"a": [1, {"b": None}["b"]]}, None],
            pairs=pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        ),
        2,
    ),
    Fault("Parquet: damaged header", damaged("header"), 12),
    Fault("Parquet: damaged footer", damaged("footer"), 0),
    Fault("Parquet: damaged page", damaged("page"), 4),
    Fault("Parquet: cut off", lambda folder: cut(TWO_FILES(folder)), 0),
    Fault("Parquet: a file of no bytes", lambda folder: emptied(TWO_FILES(folder)), 0),
    Fault("Parquet: a file of no rows beside others", files(good_file(0), NO_ROWS), 4),
    Fault("no rows at all", files(NO_ROWS), 0),
    Fault("files of different columns", files(good_file(0), good_file(4) | {"extra": [1] * 4}), 0),
    Fault("files of different types", files(good_file(0), {"id": [4, 5], "prompt": ["a", "b"]}), 0),
    Fault("Parquet and JSON lines mixed", mixed, 0),
    Fault("nothing there", lambda folder: folder / "nowhere", 0),
    Fault("a file that vanishes while the run goes on", TWO_FILES, 4, meanwhile=vanishing),
    Fault("a file that is rewritten while the run goes on", TWO_FILES, 4, meanwhile=rewriting),
    Fault(
        "JSON lines: a line that is no JSON",
        lines(GOOD, b"{broken\n", {"id": "r2", "prompt": "c"}),
        2,
    ),
    Fault(
        "JSON lines: a line that is no object",
        lines(GOOD, b"[1]\n", {"id": "r2", "prompt": "c"}),
        2,
    ),
    Fault(
        "JSON lines: byte-order mark", lines(b"\xef\xbb\xbf", GOOD, {"id": "r1", "prompt": "b"}), 2
    ),
    Fault(
        "JSON lines: CR LF, blank lines, no newline at the end",
        lines(b'{"prompt": "x"}\r\n\r\n{"prompt": "y"}'),
        2,
    ),
    Fault(
        "JSON lines: bytes that are no UTF-8", lines(GOOD, b'{"id": "r1", "prompt": "\xff"}\n'), 1
    ),
    Fault("JSON lines: a lone surrogate", lines(GOOD, b'{"id": "r1", "prompt": "\\ud800"}\n'), 1),
    Fault(
        "JSON lines: a lone surrogate in another column",
        lines(GOOD, b'{"id": "r1", "prompt": "b", "x": "\\ud800"}\n'),
        2,
    ),
    Fault(
        "JSON lines: prompt of another type",
        lines(GOOD, {"id": "r1", "prompt": 7}, {"id": "r2", "prompt": ["a"]}),
        1,
    ),
    Fault("JSON lines: ids of several types", lines(GOOD, {"id": 1, "prompt": "b"}), 0),
    Fault("JSON lines: id missing in a line", lines(GOOD, {"prompt": "b"}), 0),
    Fault(
        "JSON lines: other columns of several types",
        lines(GOOD | {"x": 1}, {"id": "r1", "prompt": "b", "x": {"y": []}}),
        2,
    ),
    Fault(
        "JSON lines: the same key twice",
        lines(GOOD, b'{"id": "r1", "prompt": "a", "prompt": "b"}\n'),
        2,
    ),
    Fault(
        "JSON lines: nested ten thousand deep",
        lines(GOOD, b'{"id": "r1", "prompt": ' + b"[" * 10_000 + b"\n"),
        1,
    ),
    Fault(
        "JSON lines: a number that no column holds",
        lines(GOOD, b'{"id": "r1", "prompt": "b", "x": ' + b"9" * 30 + b"}\n"),
        2,
    ),
)


@dataclass(frozen=True)
class Seen:
    """What a user sees of a fault."""

    code: int
    message: str  # the last line of standard error
    rows: tuple[str, ...]  # status or error code of each row that was written, in order
    messages: tuple[str, ...]  # of the error rows
    lines: int = 1  # of the message


def run_job(fault: Fault, folder: Path, capsys: pytest.CaptureFixture[str]) -> Seen:
    folder.mkdir(parents=True, exist_ok=True)
    source = fault.make(folder)

    def meanwhile() -> None:
        if fault.meanwhile is not None:
            fault.meanwhile(folder)

    given = ["--max-tokens", "3"]
    arguments = [
        "-i",
        str(source),
        "-o",
        str(folder / "out"),
        "--model",
        "demo",
        "--max-len",
        "64",
        *given,
        *fault.flags,
    ]
    arguments += ["--max-error-rate", "1", "--shard-rows", str(SHARD_ROWS), "--logprobs", "null"]
    code = score_dataset.main(arguments, FakeBackend(before_run=meanwhile))
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    columns = ["status", "error_code", "error_message"]
    rows = (
        table(folder / "out").select(columns).to_pylist()
        if (folder / "out" / "data").is_dir()
        else []
    )
    told = said.err[max(0, said.err.rfind("error: ")) :].strip() if code not in (0, 3) else ""
    return Seen(
        code,
        plain(told, folder),
        tuple(row["error_code"] or row["status"] for row in rows),
        tuple(plain(row["error_message"], folder) for row in rows if row["status"] == "error"),
        len(told.splitlines()),
    )


def plain(text: str, folder: Path) -> str:
    """Returns a message without what differs from run to run."""
    text = text.replace(str(folder), "…")
    text = re.sub(
        r"\b\d{17,}\b|version 1 \b",
        lambda found: "<version>" if found[0].isdigit() else found[0],
        text,
    )
    text = re.sub(r"has 1 now", "has <version> now", text)
    return text if len(text) <= 330 else text[:329] + "…"


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    return {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_fault_keeps_good_rows_and_reports_one_line(
    fault: Fault,
    tmp_path: Path,
    seen: dict[str, Seen],
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = seen[fault.what] = run_job(fault, tmp_path / "work", capsys)
    assert found.rows.count("ok") == fault.good, found
    assert found.code in (
        (0,) if found.rows and set(found.rows) == {"ok"} and not found.message else (1, 2, 3)
    ), found
    if found.code in (1, 2):
        assert found.lines == 1
        assert found.message.startswith("error: "), found
    if found.code == 2:
        assert found.rows == (), "refused, so nothing was started"
    assert all(found.messages), "every error row says why"


@pytest.mark.slow
@pytest.mark.s3
def test_bucket_without_permission_is_refused(
    s3_url: str,
    s3_faults: S3Faults,
    tmp_path: Path,
    seen: dict[str, Seen],
    capsys: pytest.CaptureFixture[str],
) -> None:
    s3_faults.always = "403"
    arguments = ["-i", f"{s3_url}/in", "-o", str(tmp_path / "out"), "--model", "demo"]
    code = score_dataset.main([*arguments, "--max-tokens", "3"], FakeBackend())
    message = capsys.readouterr().err.strip().replace(s3_url, "s3://bucket")
    assert (code, "permission denied" in message, len(message.splitlines())) == (2, True, 1)
    seen["a bucket without permission"] = Seen(code, message, (), ())


def page(seen: dict[str, Seen]) -> str:
    """Returns docs/input-faults.md."""
    introduction = (
        "Every line was tried by `tests/end_to_end/test_input_faults.py`, which also wrote this "
        "page (`WRITE_DOCS=1`) and fails when\n"
        "it is no longer true. Exit code 2: refused before anything started. 1: all that could "
        "be read is committed. 3: all rows\n"
        "are committed, some with `status = error`. 0: no fault at all. The runs had "
        "`--max-error-rate 1`; beyond it the code is\n"
        "4. Rows are never lost: a shard that cannot be read is named, passed over, and run by "
        "the same command later."
    )
    out = [
        "# Faults of the input, and what you see",
        "",
        introduction,
        "",
        "| fault | exit code | message | rows written |",
        "|---|---|---|---|",
    ]
    for what, one in seen.items():
        message = one.message or "; ".join(dict.fromkeys(one.messages)) or "none"
        counts = ", ".join(
            f"{len(list(same))} {status}"
            for status, same in itertools.groupby(sorted(one.rows, key=order))
        )
        out.append(f"| {what} | {one.code} | {escaped(message)} | {counts or 'none'} |")
    return "\n".join(out) + "\n"


def order(status: str) -> tuple[bool, str]:
    return status != "ok", status


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("\r", "\\r")


@pytest.mark.slow
@pytest.mark.s3
def test_documented_faults_match_the_runs(
    seen: dict[str, Seen], request: pytest.FixtureRequest
) -> None:
    if len(seen) <= len(FAULTS):
        pytest.skip("needs all tests of this file")
    written = page(seen)
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(written)
    assert PAGE.read_text() == written, (
        "docs/input-faults.md is out of date: "
        "WRITE_DOCS=1 pytest tests/end_to_end/test_input_faults.py"
    )


def broken_after_four_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yields four rows, then fails like a damaged page."""
    yield next(batches).slice(0, 4)
    raise pa.ArrowInvalid("unexpected end of page")


def test_unreadable_shard_is_added_by_a_later_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk fails for a while: the run skips the shard; the same command adds it."""
    source = TWO_FILES(tmp_path)
    arguments = [
        "-i",
        str(source),
        "-o",
        str(tmp_path / "out"),
        "--model",
        "demo",
        "--max-tokens",
        "3",
        "--max-len",
        "64",
    ]
    iter_batches = pq.ParquetFile.iter_batches

    def failing(self: pq.ParquetFile, **options: Any) -> Iterator[pa.RecordBatch]:
        batches = iter_batches(self, **options)
        is_second_file = self.metadata.num_rows == 8
        if is_second_file and "prompt" in options["columns"]:
            return broken_after_four_rows(batches)
        return batches

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetFile, "iter_batches", failing)
        assert score_dataset.main([*arguments, "--shard-rows", "4"], FakeBackend()) == 1
    assert "4 rows in 1 shards could not be read" in capsys.readouterr().err
    assert not storage.stat(str(tmp_path / "out" / "_SUCCESS"))
    assert table(tmp_path / "out").num_rows == 8
    assert score_dataset.main([*arguments, "--shard-rows", "4"], FakeBackend()) == 0
    assert table(tmp_path / "out")["id"].to_pylist() == [f"r{row}" for row in range(12)]
