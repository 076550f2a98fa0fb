"""What earlier versions gave, as JSON in tests/data/regression, and how jobs give it again.

The files were written by the version that they pin, by these very tests:

    GROK_BATCH_PIN=1 .venv/bin/python -m pytest tests/regression

which stores what is found in place of comparing it. A change that is meant to give other results
does the same and says so; any other change leaves the files alone.

Jobs run in this process, on replicas that answer by arithmetic, over an object store in memory:
URLs and versions of its objects (digests of their bytes) are the same on every machine, so that
fingerprints and bytes are, too.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from tests.memory_s3 import MemoryS3, serve

DATA = Path(__file__).parents[1] / "data" / "regression"
ROOT = "s3://bucket"
PIN = "GROK_BATCH_PIN"


def check(file: str, case: str, found: Any, tolerance: float = 0.0) -> None:
    """Asserts that `found` is what the file has, floats within `tolerance` (large ones: more)."""
    path = DATA / file
    pins = json.loads(path.read_text()) if path.exists() else {}
    found = json.loads(json.dumps(found))
    differing = list(differences(case, pins.get(case), found, tolerance))
    if differing and os.environ.get(PIN):
        text = json.dumps({**pins, case: found}, indent=1, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return
    assert not differing, f"{path.name}: {'; '.join(differing[:10])}"


def differences(where: str, then: Any, now: Any, tolerance: float = 0.0) -> Iterable[str]:
    """Yields a line for each value that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            yield from differences(f"{where}.{name}", then.get(name), now.get(name), tolerance)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from differences(f"{where}[{index}]", one, other, tolerance)
    elif not _same(then, now, tolerance):
        yield f"{where} was {then!r}, is {now!r}"


def _same(then: Any, now: Any, tolerance: float) -> bool:
    if isinstance(then, float) and isinstance(now, float):
        return abs(then - now) <= tolerance * max(1.0, abs(then) / 10)
    return type(then) is type(now) and bool(then == now)


def sha256(data: bytes) -> str:
    """Returns the digest that is pinned in place of bytes."""
    return hashlib.sha256(data).hexdigest()


def memory(patch: pytest.MonkeyPatch) -> MemoryS3:
    """Puts the store that is returned in the place of S3 while `patch` holds."""
    store = MemoryS3()
    serve(store, patch)
    return store


def put(name: str, data: bytes) -> str:
    """Stores an object and returns its URL."""
    url = storage.join(ROOT, name)
    storage.put_if_absent(url, data)
    return url


def put_lines(name: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Stores rows as JSON lines and returns the URL."""
    return put(name, "".join(json.dumps(row) + "\n" for row in rows).encode())


def objects(store: MemoryS3, folder: str) -> dict[str, bytes]:
    """Returns what lies below a folder, by its name there."""
    prefix = storage.join(ROOT, folder).removeprefix("s3://") + "/"
    below = [name for name in sorted(store.objects) if name.startswith(prefix)]
    return {name.removeprefix(prefix): store.objects[name] for name in below}


def read_table(data: bytes) -> pa.Table:
    """Returns the table of a Parquet file."""
    return pq.read_table(pa.BufferReader(data))


def schema(table: pa.Table) -> dict[str, Any]:
    """Returns names, types and metadata; of the fingerprint, which knows paths, only its length."""
    told = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    if "run_fingerprint" in told:
        told["run_fingerprint"] = f"{len(told['run_fingerprint'])} characters"
    return {"columns": [[field.name, str(field.type)] for field in table.schema], "metadata": told}
