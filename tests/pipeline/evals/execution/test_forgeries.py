"""Programs that try to be counted as right without being right, and right ones that must be.

Each forgery is run alone, before a failing assertion, and as the candidate of tests that fail for
it. None may pass in either form.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.evals.execution.programs import Program
from pipeline.evals.execution.sandbox import Sandbox

TESTS = """
import math, unittest

class Case(unittest.TestCase):
    def test(self):
        self.assertEqual(answer(1), 3)

def check(candidate):
    assert candidate(1) == 3
    assert abs(candidate(2.5) - 5.5) < 1e-6 and len(candidate([1])) == 7
    assert math.isclose(candidate(0), 2)
    assert unittest.TextTestRunner(stream=open(1, "w")).run(Case("test")).wasSuccessful()

check(answer)
"""
HELPERS = """
def answer(x):
    pass
"""
# A function that is wrong, for forgeries that do not bring their own.
WRONG = """
def answer(x):
    return 0

"""

FORGERIES = {
    # the end of the process
    "exit code 0": "import os\nos._exit(0)",
    "exit code 3": "import os\nos._exit(3)",
    "sys.exit": "import sys\nsys.exit(0)",
    "SystemExit": "raise SystemExit",
    "exit of site": "exit()",
    "abort": "import os\nos.abort()",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "finalizer": """
import os
class Last:
    def __del__(self): os._exit(0)
last = Last()
""",
    "crash": "import faulthandler\nfaulthandler._read_null()",
    # replaced names
    "constants of main": """
import __main__, os
for name in list(vars(__main__)):
    if name.isupper(): setattr(__main__, name, 0)
__main__.FAILED = __main__.NO_SANDBOX = __main__.PASSED = 0
os._exit(__main__.FAILED)
""",
    "functions of main": """
import __main__
for name, value in list(vars(__main__).items()):
    if callable(value) and not name.startswith("__"): setattr(__main__, name, lambda *a, **k: b"")
""",
    "os functions": """
import os
os._exit = lambda code: None
os.write = lambda fd, content: len(content)
os.read = lambda fd, size: bytes(size)
""",
    "AssertionError": """
import builtins
builtins.AssertionError = type("Quiet", (SystemExit,), {})
""",
    "built-in functions": """
import builtins, math
builtins.abs = lambda x: 0
builtins.len = lambda x: 7
builtins.exec = builtins.compile = builtins.__import__ = lambda *a, **k: None
math.isclose = lambda *a, **k: True
""",
    "unittest": """
import unittest
unittest.TestCase.assertEqual = lambda *a, **k: None
unittest.TestResult.wasSuccessful = lambda self: True
unittest.TextTestRunner.run = lambda self, case: unittest.TestResult()
""",
    "modules": """
import sys, types
for name in ("math", "unittest", "os", "builtins", "__main__"):
    sys.modules[name] = types.ModuleType(name)
""",
    "hooks of errors": """
import os, sys
sys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)
""",
    "equal to everything": """
class Any:
    def __eq__(self, other): return True
    __sub__ = __rsub__ = __abs__ = lambda self, *a: 0
    def __lt__(self, other): return True
    def __len__(self): return 7
    def __float__(self): return 2.0
    def __bool__(self): return True
def answer(x): return Any()
""",
    "an own check": """
def check(candidate): pass
check(None)
def answer(x):
    raise SystemExit(0)
""",
    # the interpreter's view of the program
    "jump over lines": """
import sys
def jump(frame, event, argument):
    if event == "line" and frame.f_code.co_name in ("<module>", "check"):
        lines = [line for _, _, line in frame.f_code.co_lines() if line]
        try: frame.f_lineno = max(lines)
        except ValueError: pass
    return jump
def answer(x):
    sys.settrace(jump)
    sys._getframe(1).f_trace = jump
    return 3
sys._getframe().f_trace = jump
sys.settrace(jump)
""",
    "jump with the first sys": """
import sys
del sys.modules["sys"]
import sys as second
import importlib
third = importlib.reload(second)
for module in (sys, second, third):
    module.settrace(lambda *a: None)
    module.setprofile(lambda *a: None)
""",
    "frames of the callers": """
import os, sys
frame = sys._getframe()
while frame:
    for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
        if isinstance(value, bytes):
            for fd in range(3, 32):
                try: os.write(fd, value)
                except OSError: pass
    frame = frame.f_back
""",
    "frames of an error": """
import os
try:
    1 / 0
except ZeroDivisionError as error:
    frame = error.__traceback__.tb_frame
    while frame.f_back:
        frame = frame.f_back
        for value in frame.f_locals.values():
            secret = getattr(value, "pass_code", value)
            if isinstance(secret, bytes): os.write(3, secret)
        frame.f_globals.update(read_exactly=lambda *a: b"", _answer=lambda *a: b"")
""",
    "objects of the collector": """
import gc, os
values = []
for item in gc.get_objects():
    values += gc.get_referents(item)
for value in values:
    if isinstance(value, bytes) and len(value) == 32:
        for fd in range(3, 10):
            try: os.write(fd, value)
            except OSError: pass
""",
    "code of the tests": """
import sys
def answer(x):
    frame = sys._getframe(1)
    check = frame.f_globals.get("check")
    if check: check.__code__ = (lambda candidate: None).__code__
    return 3
""",
    # descriptors
    "echo of the socket": """
import os
for fd in range(3, 16):
    try: os.write(fd, os.read(fd, 1024))
    except OSError: pass
""",
    "noise on every descriptor": """
import os
for fd in range(32):
    for content in (bytes(32), b"PASSED", b"0", b"1"):
        try: os.write(fd, content)
        except OSError: pass
""",
    "replies of an own": """
import json, os, struct
for outcome in (["ready", None], ["result", ["int", "0x3"]], ["result", ["bool", True]]) * 9:
    content = json.dumps(outcome).encode()
    for fd in range(3, 16):
        try: os.write(fd, struct.pack("<Q", len(content)) + content)
        except OSError: pass
os._exit(0)
""",
    "output": """
import sys
print("PASSED", "OK", flush=True)
sys.stderr.write("OK")
""",
    "closed descriptors": "import os\nos.closerange(0, 256)",
    # the machine's interfaces
    "ctypes": "import ctypes\nctypes.CDLL(None).exit_group(0)",
    "ctypes by its classes": """
import gc
classes = object.__subclasses__() + [item for item in gc.get_objects() if isinstance(item, type)]
names = {item.__name__: item for item in classes if "ctypes" in item.__module__}
function = names["CFuncPtr"]
""",
    "ctypes by its file": """
import importlib.machinery, sys, sysconfig
name = "_ctypes" + sysconfig.get_config_var("EXT_SUFFIX")
path = f"{sysconfig.get_path('platstdlib')}/lib-dynload/{name}"
loader = importlib.machinery.ExtensionFileLoader("_ctypes", path)
spec = importlib.machinery.ModuleSpec("_ctypes", loader, origin=path)
module = loader.create_module(spec)
""",
    "input of the siblings": """
import glob
for path in glob.glob("/proc/[0-9]*/fd/*"):
    open(path, "rb").read()
""",
    "memory of the parent": """
import os
with open(f"/proc/{os.getppid()}/mem", "r+b") as memory: memory.write(b"")
""",
    "signals": """
import os, signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
os.kill(os.getppid(), signal.SIGKILL)
""",
    "fork": "import os\nif os.fork(): os.waitpid(-1, 0)\nelse: os._exit(0)",
    "another program": "import os\nos.execv('/bin/true', ['true'])",
    "thread": "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()",
    # resources
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef deeper(): deeper()\ndeeper()",
    "memory": "parts = []\nwhile True: parts.append(bytearray(2**26))",
}
LEAKS = {
    "environment": "import os\nassert b'SECRET' in open('/proc/{pid}/environ', 'rb').read()",
    "memory": "open('/proc/{pid}/mem', 'rb')",
    "memory map": "assert open('/proc/{pid}/maps').read()",
    "command line": "assert open('/proc/{pid}/cmdline').read()",
    "descriptors": "import os\nassert os.listdir('/proc/{pid}/fd')",
    "descriptor": "import os\nassert os.readlink('/proc/{pid}/fd/0')",
    "password file": "assert open('/etc/passwd').read()",
}
CORRECT = {
    "closure": "def answer(x):\n    add = lambda y: x + y\n    return add(2)",
    "class": "class Two:\n    value = 2\ndef answer(x): return x + Two.value",
    "imports inside": "def answer(x):\n    import math\n    return x + math.isqrt(4)",
    "recursion": "def answer(x): return x + 2 if x < 1 else 1 + answer(x - 1)",
    "output": "def answer(x):\n    print(x)\n    return x + 2",
    "numpy": "import numpy as np\ndef answer(x): return np.float64(x) + 2",
    "raised limit": "import sys\nsys.setrecursionlimit(5000)\ndef answer(x): return x + 2",
    "finalizer": "class A:\n    def __del__(self): pass\na = A()\ndef answer(x): return x + 2",
    "main guard": "def answer(x): return x + 2\nif __name__ == '__main__':\n    raise ValueError",
    "annotations": "from typing import *\ndef answer(x: Optional[float]) -> float: return x + 2",
}


def test_forgeries_are_counted_as_wrong() -> None:
    assert len(FORGERIES) >= 40
    programs: dict[tuple[str, str], str] = {}
    for name, forgery in FORGERIES.items():
        programs[name, "alone"] = f"{forgery}\nassert False"
        programs[name, "candidate"] = Program.of(
            f"{WRONG}{forgery}", TESTS, helpers=HELPERS, entry_point="answer"
        )
    sandbox = Sandbox(timeout_s=1, memory_bytes=2**28, parallel_programs=8)
    passed = dict(zip(programs, sandbox.run(list(programs.values())), strict=True))
    assert [program for program, has_passed in passed.items() if has_passed] == []


def test_forgeries_do_not_change_verdicts_of_their_siblings() -> None:
    """A correct program passes and a wrong one fails while others attack what they can reach."""
    programs: list[str] = []
    for name in ("exit code 3", "input of the siblings", "signals", "closed descriptors"):
        programs += [FORGERIES[name], "assert sum([1, 2]) == 3", "assert sum([1, 2]) == 4"]
    assert Sandbox(timeout_s=20, parallel_programs=6).run(programs)[1::3] == [True] * 4
    assert Sandbox(timeout_s=20, parallel_programs=6).run(programs)[2::3] == [False] * 4


@pytest.mark.parametrize("owner", ["test", "child"])
def test_programs_read_nothing_of_other_processes(owner: str) -> None:
    """Neither of this process nor of another one of the same user."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={"SECRET": "1"}
    ) as other:
        pid = {"test": os.getpid(), "child": other.pid}[owner]
        assert Path(f"/proc/{pid}/environ").exists()
        programs = {name: leak.format(pid=pid) for name, leak in LEAKS.items()}
        passed = Sandbox(timeout_s=20).run(list(programs.values()))
        other.kill()
    assert dict(zip(programs, passed, strict=True)) == dict.fromkeys(programs, False)


def test_correct_candidates_pass() -> None:
    tests = "def check(candidate):\n    assert candidate(1) == 3\n\ncheck(answer)"
    programs = {}
    for name, candidate in CORRECT.items():
        programs[name] = Program.of(candidate, tests, helpers=HELPERS, entry_point="answer")
    passed = Sandbox(timeout_s=60).run(list(programs.values()))
    assert dict(zip(programs, passed, strict=True)) == dict.fromkeys(programs, True)
    alone = Sandbox(timeout_s=60).run([str(program) for program in programs.values()])
    assert dict(zip(programs, alone, strict=True)) == dict.fromkeys(programs, True)
