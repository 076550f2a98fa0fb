"""docs/security.md, line by line: code execution, tokens, secrets, and paths out of the run."""

import ast
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import score_dataset
from pipeline.storage.redaction import redact_credentials
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import table

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "actors", "jobs")

# -- no code from data -----------------------------------------------------------------

EXECUTING = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "torch",
    "pandas",
}
CALLS = {"eval", "exec", "compile", "__import__"}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for name in PACKAGES:
        for path in sorted((ROOT / name).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {str(node.module).split(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def executing(tree: ast.Module) -> list[str]:
    """Returns what in a module could run code that came with data."""
    found = []
    for node in ast.walk(tree):
        found += [f"{node.lineno}: imports {name}" for name in imported(node) & EXECUTING]  # type: ignore[attr-defined]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in CALLS or ("allow_pickle" in words and words["allow_pickle"] != "False"):
            found.append(f"{node.lineno}: {name}")
        if words.get("shell") == "True" or name in ("os.system", "os.popen"):
            found.append(f"{node.lineno}: {name} through a shell")
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load") and "Safe" not in words.get(
            "Loader", ""
        ) + "Safe" * (words.get("Loader") == "_PlainNumbers"):
            found.append(f"{node.lineno}: {name}")
    return found


def test_sources_never_execute_input() -> None:
    """Checkpoint pickles are parsed by actors/weights/pickle_reader.py, which calls nothing."""
    found = {
        str(path.relative_to(ROOT)): seen for path, tree in modules() if (seen := executing(tree))
    }
    # what a model wrote, run in a process that may only compute
    sandbox = found.pop("pipeline/evals/execution/sandbox_child.py")
    assert {call.split(": ")[1] for call in sandbox} == {"exec", "compile"}
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from torch import load",
        "import cloudpickle as c",
        "np.load(f, allow_pickle=True)",
        "eval(x)",
        "subprocess.run(x, shell=True)",
        "yaml.load(x, Loader=yaml.Loader)",
        "os.system(x)",
    ],
)
def test_scan_finds_code_execution(text: str) -> None:
    assert executing(ast.parse(text))


def test_yaml_loader_builds_no_objects() -> None:
    from jobs.cli.parser import _load

    with pytest.raises(Exception, match="could not determine a constructor"):
        _load("!!python/object/apply:os.system ['true']")


# -- tokens ----------------------------------------------------------------------------


def test_ray_is_started_where_authentication_is_chosen() -> None:
    starts = [
        str(path.relative_to(ROOT))
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init"
    ]
    # both within `ray_settings`; tests/jobs/cluster shows the tokens
    assert set(starts) == {"jobs/cluster/connection.py", "jobs/cluster/local_ray.py"}


# -- secrets ---------------------------------------------------------------------------

SECRETS = ("pa55word", "s1gnature", "c0ffeeKEY", "t0ken")


class _Files(BaseHTTPRequestHandler):
    content = b""

    def do_HEAD(self) -> None:
        self._send(200, len(self.content), b"")

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        if not asked:
            self._send(200, len(self.content), self.content)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        data = self.content[int(first) : int(last or len(self.content)) + 1]
        self._send(
            206, len(data), data, f"bytes {first}-{int(first) + len(data) - 1}/{len(self.content)}"
        )

    def _send(
        self, status: int, length: int, data: bytes, content_range: str | None = None
    ) -> None:
        self.send_response_only(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        return None


@contextlib.contextmanager
def web(content: bytes) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Files", (_Files,), {"content": content}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def parquet(columns: dict[str, object]) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), out)  # type: ignore[arg-type]
    return out.getvalue().to_pybytes()


def test_secrets_in_urls_and_environment_are_written_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "c0ffeeKEY")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t0ken")
    with web(parquet({"prompt": ["good", None, b"\xff".decode("latin-1")]})) as host:
        url = f"http://user:pa55word@{host}/in.parquet?X-Amz-Signature=s1gnature"
        flags = [
            "-o",
            str(tmp_path / "out"),
            "--model",
            "demo",
            "--max-tokens",
            "2",
            "--max-error-rate",
            "1",
        ]
        assert score_dataset.main(["-i", url, *flags, "--max-len", "64"], FakeBackend()) == 3
        # refused: what differs is shown
        assert score_dataset.main(["-i", url, *flags, "--max-len", "32"]) == 2
        assert score_dataset.main(["-i", url.replace("in.parquet", "in.jsonl"), *flags]) == 2
    said = capsys.readouterr()
    texts = {
        "terminal": said.out + said.err,
        "ids": json.dumps(table(tmp_path / "out")["id"].to_pylist()),
    }
    texts |= {
        str(path): path.read_bytes().decode("latin-1")
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert len(texts) > 5
    assert [
        (where, secret) for where, text in texts.items() for secret in SECRETS if secret in text
    ] == []
    assert (
        "in.parquet" in json.loads((tmp_path / "out" / "run.json").read_text())["config"]["input"]
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SECRET@bucket/a b", "s3://bucket/a b"),
        ("https://h/f?X-Amz-Signature=abc&x=1", "https://h/f?X-Amz-Signature=…&x=1"),
        ("https://h/f?sv=1&sig=a%2Bb'", "https://h/f?sv=1&sig=…'"),
        ("https://h/f?sv=1&sig=a'b&x=1", "https://h/f?sv=1&sig=…&x=1"),
        ("nobody@example.org wrote //not a url", "nobody@example.org wrote //not a url"),
    ],
)
def test_credentials_are_redacted(text: str, shown: str) -> None:
    assert redact_credentials(text) == shown


# -- the run folder --------------------------------------------------------------------

HOSTILE = [
    "../../escaped",
    "/absolute",
    "..",
    "a/../../b",
    "nul\x00byte",
    "line\nbreak",
    "$(touch escaped)",
    "<script>alert(1)</script>",
]


def test_paths_are_not_made_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = [
        "x..%2f..%2fescaped.parquet",
        "$(touch escaped).parquet",
        "line\nbreak.parquet",
        "<b>.parquet",
        "-o.parquet",
    ]
    for number, name in enumerate(names):
        ids = [f"{number}{one}" if number else one for one in HOSTILE]
        pq.write_table(
            pa.table({"id": ids, "prompt": ["text", None] * (len(ids) // 2)}), folder / name
        )
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs" / "out"
    flags = ["--model", "demo", "--max-tokens", "2", "--max-error-rate", "1", "--max-len", "64"]
    assert score_dataset.main(["-i", str(folder), "-o", str(out), *flags], FakeBackend()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "runs"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    hours = {path for path in written if re.fullmatch(r"replica-hours/[0-9a-f]{32}\.json", path)}
    assert len(hours) == 1
    assert written - hours == {
        "run.json",
        "report.json",
        "report.html",
        "_SUCCESS",
        *(f"data/part-{n:05d}.parquet" for n in range(5)),
    }
    assert set(table(out)["id"].to_pylist()) >= set(HOSTILE)
    assert "<script>alert" not in (out / "report.html").read_text()
