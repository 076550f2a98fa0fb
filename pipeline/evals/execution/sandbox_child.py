"""Forks confined processes that execute Python programs; started by sandbox.py.

    python -I sandbox_child.py TIMEOUT_S MEMORY_BYTES FOLDER

Standard input is a socket. Each message on it brings the socket of one program, and a byte: PLAIN
for a program in one process, TESTED for one whose candidate and tests have a process each. This
process holds no program, no pass code and no environment; those of a program arrive on its own
socket, in the process that executes it, which closes all others. Uses the standard library only.
"""

import ast
import gc
import hashlib
import importlib
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn

# started as a file, Python looks for modules beside it, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from pipeline.evals.execution import remote_calls
from pipeline.evals.execution.confinement import confine
from pipeline.evals.execution.remote_calls import read_exactly

PLAIN = b"P"
TESTED = b"T"
PASS_CODE_BYTES = 32
DIGEST = hashlib.sha256
LENGTH = remote_calls.LENGTH

# seconds that reading a program and importing its modules may take
PREPARATION_S = 60.0
# modules that the standard library imports while its functions run
IMPORTED_LATE = (
    "_strptime",
    "decimal",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.punycode",
    "encodings.utf_16",
    "encodings.utf_32",
    "encodings.utf_8_sig",
    "random",
    "traceback",
    "unicodedata",
)
# Modules that a program may import, beside those of the standard library.
PACKAGES = {"numpy": ("numpy", "numpy.fft", "numpy.linalg", "numpy.polynomial", "numpy.random")}
# Modules of the standard library that act when they are imported, or reach the memory of a process.
REFUSED = frozenset(
    {
        "antigravity",
        "ctypes",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "readline",
        "rlcompleter",
        "this",
        "tkinter",
        "turtle",
        "turtledemo",
        "venv",
    }
)
# With these a program could skip its own lines.
TRACING = ("settrace", "setprofile")


def main() -> None:
    """Serves programs until the other end of standard input is closed."""
    timeout_s = float(sys.argv[1])
    memory_bytes = int(sys.argv[2])
    folder = sys.argv[3]
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets processes that have ended

    control = socket.socket(fileno=os.dup(0))
    null_device = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null_device, descriptor)
    os.close(null_device)

    while True:
        layout, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not layout:
            return
        [connection] = descriptors
        process = _Process(timeout_s, memory_bytes, folder, connection)
        if layout == TESTED:
            tests_end, candidate_end = socket.socketpair()
            if os.fork() == 0:
                control.close()
                tests_end.close()
                process.run(process.run_candidate, candidate_end.detach())
            candidate_end.close()
            if os.fork() == 0:
                control.close()
                process.run(process.run_tests, tests_end.detach())
            tests_end.close()
        elif os.fork() == 0:
            control.close()
            process.run(process.run_plain)
        os.close(connection)


class _Process:
    """A process of one program, from its fork to its end."""

    def __init__(self, timeout_s: float, memory_bytes: int, folder: str, connection: int) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._connection = connection

    def run(self, part: Any, *args: Any) -> NoReturn:
        """Runs one of the methods below and ends the process."""
        try:
            signal.setitimer(signal.ITIMER_REAL, PREPARATION_S)  # SIGALRM ends the process
            part(*args)
        # whatever a program raises, SystemExit included, ends it without its pass code
        except BaseException:  # noqa: BLE001
            os._exit(1)
        os._exit(0)

    def run_plain(self) -> None:
        """Executes a program, and sends its pass code back if it runs to its end."""
        source = _read_text(self._connection)
        code = compile(source, "<program>", "exec", dont_inherit=True)
        self._prepare(source)
        # The pass code is on the stack of the interpreter meanwhile, and nowhere else: no variable,
        # no frame and no container leads to it.
        _answer(
            self._connection,
            read_exactly(self._connection, PASS_CODE_BYTES),
            exec(code, {}),  # type: ignore[func-returns-value]
        )

    def run_candidate(self, calls: int) -> None:
        """Executes the candidate of a program and answers calls of its functions."""
        source = _read_text(self._connection)
        os.close(self._connection)
        code = compile(source, "<program>", "exec", dont_inherit=True)
        self._prepare(source)
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        remote_calls.serve_calls(calls, namespace)

    def run_tests(self, calls: int) -> None:
        """Executes the tests of a program, and sends its pass code back if they succeed."""
        outcome, _ = remote_calls.receive(calls)
        if outcome != remote_calls.READY:
            raise ValueError(f"expected {remote_calls.READY!r}, got {outcome!r}")

        entry_point = _read_text(self._connection)
        helpers = _read_text(self._connection)
        tests = _read_text(self._connection)
        pass_code = read_exactly(self._connection, PASS_CODE_BYTES)
        helpers_code = _compile_helpers(helpers)
        tests_code = compile(tests, "<tests>", "exec", dont_inherit=True)
        self._prepare(helpers, tests)

        namespace: dict[str, Any] = {}
        exec(helpers_code, namespace)
        namespace[entry_point] = remote_calls.RemoteFunction(calls, entry_point)
        exec(tests_code, namespace)
        os.write(self._connection, pass_code)

    def _prepare(self, *sources: str) -> None:
        """Imports what the sources import, starts the time of this process and confines it."""
        _import_modules(sources)
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)  # a confined process cannot
        confine(self._memory_bytes, self._folder)
        _forget_tools()


def _compile_helpers(helpers: str) -> CodeType:
    """Returns the code of the helpers, or empty code if they are not Python: few tests call any."""
    try:
        return compile(helpers, "<helpers>", "exec", dont_inherit=True)
    except SyntaxError:
        return compile("", "<helpers>", "exec", dont_inherit=True)


def _answer(connection: int, pass_code: bytes, _result: None) -> None:
    os.write(connection, pass_code)


def _read_text(connection: int) -> str:
    """Returns the next text: its length, its digest, and its bytes.

    Raises:
        EOFError: there are fewer bytes.
        ValueError: the digest is of another text.
    """
    (length,) = LENGTH.unpack(read_exactly(connection, LENGTH.size))
    digest = read_exactly(connection, DIGEST().digest_size)
    content = read_exactly(connection, length)
    if DIGEST(content).digest() != digest:
        raise ValueError("the text is not the one that was sent")
    return content.decode("utf-8", "surrogatepass")


def _import_modules(sources: Iterable[str]) -> None:
    """Imports the allowed modules that sources import anywhere; afterwards no file can be read.

    A module that is not here is left for the program to find out.
    """
    sys.modules["ctypes"] = None  # type: ignore[assignment]  # none of them shall bring it in
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of numpy: threads are refused
    for name in _imported_names(sources):
        package = name.partition(".")[0]
        is_standard = package in sys.stdlib_module_names and package not in REFUSED
        is_private = package.startswith("_") and package != "__future__"
        if is_standard and not is_private:
            _import(name)
        for module in PACKAGES.get(package, ()):
            _import(module)
    os.environ.clear()
    del sys.modules["ctypes"]


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        return


def _imported_names(sources: Iterable[str]) -> Iterator[str]:
    for source in sources:
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            yield from _names_of(node)


def _names_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        for alias in node.names:
            yield f"{node.module}.{alias.name}"


def _forget_tools() -> None:
    """Removes what would let a program change the memory of its process, or skip its own lines.

    Modules that are not loaded cannot be imported any more: no file can be read.
    """
    for name in ("ctypes", "_ctypes"):
        sys.modules.pop(name, None)
    sys.path.clear()
    sys.path_importer_cache.clear()

    functions = [getattr(sys, name) for name in TRACING]
    for container in gc.get_objects():
        if type(container) is dict:
            for name in TRACING:
                if container.get(name) in functions:
                    del container[name]


if __name__ == "__main__":
    main()
