"""replica.py without Ray: batches from several threads share one engine.

Failures reach every caller.
"""

import pickle
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from actors.compile_cache import CompileCache
from actors.engine.compilation import CompiledPrograms, ProgramShape
from actors.engine.config import EngineConfig
from actors.protocol.errors import ModelError, ReplicaError
from actors.protocol.events import Heartbeat
from actors.protocol.messages import Batch, Completion, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from actors.replica import Replica, ReplicaSpec, StartUp
from actors.weights.digest import digest
from actors.weights.node_cache import VARIABLE
from tests.actors.engine.engines import CONFORMANCE, generate, golden, model_config, score


def spec(**changes: object) -> ReplicaSpec:
    sizes = EngineConfig(
        max_len=64, prefill_tokens=128, slots=4, page_size=8, decode_steps=4, cache_tokens=512
    )
    fields = {
        "model": model_config("mha"),
        "checkpoint": str(CONFORMANCE / "mha" / "ckpt-0"),
        "mesh": (1, 1),
        "dtype": "float32",
        "engine": sizes,
        **changes,
    }
    return ReplicaSpec(**fields)  # type: ignore[arg-type]


@pytest.fixture
def replica():  # type: ignore[no-untyped-def]
    made = Replica(spec(), name="r0")
    yield made
    made.close()


def batch(*requests: Request) -> Batch:
    return Batch(requests)


def moved(request: Request, shard: int) -> Request:
    return Request(
        RowRef(shard, request.ref.row), request.prompt_ids, request.sampling, request.continuations
    )


def test_replica_info_describes_devices_and_sizes(replica: Replica) -> None:
    info = replica.info()
    assert (info.name, info.mesh, info.slots, info.cache_tokens, len(info.devices)) == (
        "r0",
        "1x1",
        4,
        512,
        1,
    )
    model = model_config("mha")
    assert info.cache_bytes == 512 * 4 * (
        2 * model.num_layers * model.num_kv_heads * model.key_size + 1
    )
    assert info.weight_bytes > 4 * model.vocab_size * model.emb_size
    assert info.load_s > 0


def test_replica_reads_weights_from_its_node_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, copy = CONFORMANCE / "mha" / "ckpt-0", tmp_path / "bucket" / "mha"
    memory = fsspec.filesystem("memory")
    memory.put(f"{source}/", "/bucket/mha", recursive=True)
    shutil.copytree(source, copy)
    copy.with_name("mha.complete").write_text("memory://bucket/mha\n")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    reads: list[tuple[object, ...]] = []
    cat_file = type(memory).cat_file

    def recorded(self: Any, path: str, start: int, end: int, **options: Any) -> bytes:
        reads.append((path, start, end))
        content: bytes = cat_file(self, path, start, end, **options)
        return content

    monkeypatch.setattr(type(memory), "cat_file", recorded)
    try:
        digest("memory://bucket/mha")
        reads_of_digest = sorted(reads)
        reads.clear()
        Replica(spec(checkpoint="memory://bucket/mha"), name="r0").close()
    finally:
        memory.rm("/bucket", recursive=True)
    assert sorted(reads) == reads_of_digest


def test_batches_in_flight_together_get_their_own_rows(replica: Replica) -> None:
    prompts = [golden("mha")[f"p{i}_tokens"].tolist() for i in range(4)]
    batches = [
        batch(
            *(moved(generate(i, prompt, 3 + n), n) for i, prompt in enumerate(prompts)),
            moved(score(9, prompts[1], [n]), n),
        )
        for n in range(6)
    ]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(replica.run, batches))
    for sent, result in zip(batches, results, strict=True):
        assert sorted(c.ref for c in result.completions) == sorted(r.ref for r in sent.requests)
        lengths = {c.ref: len(c.token_ids) for c in result.completions}
        assert all(lengths[r.ref] <= r.sampling.max_tokens for r in sent.requests if r.sampling)
    assert replica.stats().requests == 30
    assert replica.stats().busy_s > 0


def test_invalid_requests_become_error_rows_alone(replica: Replica) -> None:
    result = replica.run(
        batch(
            generate(0, [5], 2),
            generate(1, [600], 2),
            generate(2, [5] * 64, 2),
            generate(3, [7], 2),
        )
    )
    by_row = {c.ref.row: c for c in result.completions}
    assert [by_row[row].error_code for row in range(4)] == [
        None,
        "invalid_token",
        "prompt_too_long",
        None,
    ]
    assert "600" in (by_row[1].error_message or "")
    assert replica.run(batch()).completions == ()


def test_engine_failure_reaches_waiting_and_later_batches(
    replica: Replica,
) -> None:
    def broken() -> list[object]:
        raise RuntimeError("out of memory")

    replica._engine.step = broken  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(3) as threads:
        futures = [
            threads.submit(replica.run, batch(moved(generate(0, [5], 2), n))) for n in range(3)
        ]
        for future in futures:
            with pytest.raises(
                ReplicaError, match="r0: the engine stopped: RuntimeError: out of memory"
            ):
                future.result(timeout=30)
    with pytest.raises(ReplicaError, match="out of memory"):
        replica.run(batch(generate(0, [5], 2)))


def test_duplicate_row_in_flight_fails_the_replica(replica: Replica) -> None:
    with pytest.raises(ReplicaError, match="already in the engine"):
        replica.run(batch(generate(0, [5], 2), generate(0, [5], 2)))


def test_closed_replica_raises_replica_error() -> None:
    replica = Replica(spec(), name="gone")
    replica.close()
    with pytest.raises(ReplicaError, match="gone: "):
        replica.run(batch(generate(0, [5], 2)))


def test_int8_and_dense_weights_agree() -> None:
    prompt = golden("mha")["p2_tokens"].tolist()
    request = Request(RowRef(0, 0), token_ids(prompt), Sampling(max_tokens=6))
    found = []
    for weights in ("int8", "dense"):
        replica = Replica(spec(weights=weights))
        found.append(replica.run(batch(request)).completions[0])
        replica.close()
    assert found[0].token_ids == found[1].token_ids
    assert found[0].token_logprobs is not None
    assert found[0].token_logprobs.tolist() == pytest.approx(
        (found[1].token_logprobs or [])[:], abs=1e-4
    )


def test_mesh_without_devices_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="mesh 1x512 needs 512 devices"):
        Replica(spec(mesh=(1, 512)))


def test_replica_spec_is_picklable() -> None:
    assert pickle.loads(pickle.dumps(spec())) == spec()


def test_heartbeat_distinguishes_step_compilation_and_idle(replica: Replica) -> None:
    assert replica.heartbeat() == Heartbeat("idle")
    real, go, entered = replica._engine.step, threading.Event(), threading.Event()

    def held() -> list[object]:
        entered.set()
        go.wait()
        return real()  # type: ignore[return-value]

    replica._engine.step = held  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(1) as threads:
        answered = threads.submit(replica.run, batch(generate(0, [5], 1)))
        assert entered.wait(30)
        time.sleep(0.05)
        heartbeat = replica.heartbeat()
        assert (heartbeat.doing, heartbeat.for_s >= 0.05) == ("step", True)
        replica._engine.programs.compiling_since_s = time.perf_counter()
        assert replica.heartbeat().doing == "compilation"
        replica._engine.programs.compiling_since_s = None
        replica._engine.programs.compiled_at_s = time.perf_counter()
        later = replica.heartbeat()
        since_compilation_s = time.perf_counter() - replica._engine.programs.compiled_at_s
        assert 0 <= later.for_s <= since_compilation_s, (
            "a compilation that ended starts the count again"
        )
        go.set()
        assert answered.result(60).completions[0].error_code is None
    ends = time.monotonic() + 10
    while replica.heartbeat().doing != "idle":
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_heartbeat_reports_a_real_compilation(replica: Replica) -> None:
    programs = replica._engine.programs
    activities: list[str] = []

    class WatchedPrograms(CompiledPrograms):
        def compile(self, name: str, params: Any, args: Sequence[Any]) -> Callable[..., Any]:
            activities.append(replica.heartbeat().doing)
            return super().compile(name, params, args)

    programs._compiled = WatchedPrograms(programs.context, programs.params)
    replica.run(batch(generate(0, [5, 6], 1)))
    assert set(activities) == {"compilation"}
    assert programs.compiling_since_s is None


def test_first_call_has_the_rows_of_all_batches_sent_at_once(replica: Replica) -> None:
    real_step = replica._engine.step
    requests_at_step: list[int] = []

    def counted() -> list[Completion]:
        requests_at_step.append(len(replica._tickets))
        return real_step()

    replica._engine.step = counted  # type: ignore[method-assign]
    with ThreadPoolExecutor(3) as threads:
        results = threads.map(replica.run, [batch(generate(row, [5], 1)) for row in range(3)])
        assert len(list(results)) == 3
    assert requests_at_step[0] == 3


def test_heartbeat_of_a_broken_engine_is_idle(replica: Replica) -> None:
    def broken() -> list[object]:
        raise RuntimeError("out of memory")

    replica._engine.step = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(ReplicaError):
        replica.run(batch(generate(0, [5], 2)))
    assert replica.heartbeat() == Heartbeat("idle")


def test_start_up_reports_weights_and_programs() -> None:
    start = StartUp()
    assert start.heartbeat() == Heartbeat("loading")
    start.allow_compilation()
    replica = Replica(spec(), "r0", start)
    replica.close()
    assert start.heartbeat() == Heartbeat("loading", loaded=1.0)

    programs = replica._engine.programs
    start.compiled = CompiledPrograms(programs.context, programs.params)
    shape = ProgramShape("prefill", 8, 8)
    start.compiled.request(shape, programs.cache).result(120)
    start.compiled.close()
    expected = Heartbeat("loading", loaded=1.0, programs=1, compiled=1)
    assert start.heartbeat() == expected


class NotedCache(CompileCache):
    """Notes what is copied."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), "s3://bucket/jax")
        self.copies: list[str] = []

    def download(self) -> None:
        self.copies.append("download")

    def upload(self) -> None:
        self.copies.append("upload")


def test_replica_compiles_after_the_programs_of_another_one_came() -> None:
    start = StartUp()
    start.cache = NotedCache()
    with ThreadPoolExecutor(2) as threads:
        turns = [threads.submit(start.wait_for_turn) for _ in range(2)]
        assert not any(turn.done() for turn in turns)
        start.allow_compilation()
        for turn in turns:
            turn.result(30)
    assert start.cache.copies == ["download"], "once, before the first program"


def test_first_replica_compiles_at_once_and_shares_its_programs() -> None:
    start = StartUp()
    start.cache = NotedCache()
    start.allow_compilation()
    start.wait_for_turn()
    start.set_programs(None)
    start.wait_for_programs()
    assert start.cache.copies == ["upload"]


def test_replica_compiles_itself_when_its_turn_does_not_come() -> None:
    start = StartUp(turn_timeout_s=0.0)
    start.cache = NotedCache()
    start.wait_for_turn()
    assert start.cache.copies == ["download"]
