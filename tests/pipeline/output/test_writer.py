"""pipeline/output/writer.py: any order in, one complete object per shard out, each exactly once."""

import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.messages import RowRef
from pipeline import storage
from pipeline.errors import CommitError, ConfigError, DatasetError, InterruptedRunError
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.reader import read_rows
from pipeline.input.shards import plan_shards
from pipeline.output.run_folder import RunFolder
from pipeline.output.run_state import finish, read_state, remaining
from pipeline.output.schema import output_schema
from pipeline.output.writer import CommittedShard, Writer
from pipeline.records import OutputRow, PromptRow, Shard, ShardNotice, ShardOpened, UnreadableShard
from pipeline.tasks import GENERATE
from tests.pipeline.output.samples import completed, failed, ids, row, schema_of


def run(
    folder: RunFolder,
    shards: Iterable[tuple[Shard, pa.Table]],
    rows: Iterable[OutputRow],
    mark: str = "fp",
) -> list[CommittedShard]:
    opened = [ShardOpened(shard, table) for shard, table in shards]
    writer = Writer(folder, schema_of(opened[0].passthrough), mark)
    return committed(writer.write([*opened, *rows]))


def committed(items: Iterable[CommittedShard | UnreadableShard]) -> list[CommittedShard]:
    """Returns the items, which are all commits."""
    commits = []
    for item in items:
        assert isinstance(item, CommittedShard)
        commits.append(item)
    return commits


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    root = str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_url"))
    return RunFolder(storage.join(root, "run"))


def read_part(folder: RunFolder, number: int) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.read(folder.part_url(number))[0]))


# -- columns ----------------------------------------


def test_columns_of_a_good_and_a_failed_row(folder: RunFolder) -> None:
    good = OutputRow(completed(RowRef(0, 0)), "hello")
    commits = run(folder, [(Shard(0, "f", 0, 2), ids(2))], [failed(RowRef(0, 1)), good])
    assert commits == [CommittedShard(0, 2, 2, {"engine_crash": 1}, 3, 2, 1, published=True)]
    table = read_part(folder, 0)
    assert table.schema.equals(schema_of(ids(2)).arrow)
    assert table.schema.metadata[b"run_fingerprint"] == b"fp"
    assert table.schema.metadata[b"schema_version"] == b"1"
    first, second = table.to_pylist()
    assert first == {
        "id": "id-0",
        "x": 0,
        "sample_index": 0,
        "status": "ok",
        "error_code": None,
        "error_message": None,
        "attempts": 1,
        "text": "hello",
        "token_ids": [0, 1],
        "finish_reason": "length",
        "stop_reason": None,
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "cached_tokens": 1,
        "token_logprobs": [0.0, -0.5],
        "cumulative_logprob": -0.5,
        "top_token_ids": [[0, 1], [2, 3]],
        "top_logprobs": [[0.0, -1.0], [-2.0, -3.0]],
        "prompt_logprobs": [None, 0.0, -1.0],
        "prompt_top_token_ids": [None, [0, 1], [2, 3]],
        "prompt_top_logprobs": [None, [-1.0, -1.0], [-1.0, -1.0]],
        "seed": 0,
    }
    told = {
        "id": "id-1",
        "x": 1,
        "sample_index": 0,
        "status": "error",
        "error_code": "engine_crash",
        "attempts": 3,
    }
    told |= {"error_message": "row 1 did not work", "finish_reason": "error"}
    assert second == dict.fromkeys(first) | told


def test_metadata_is_in_the_footer_for_other_readers(folder: RunFolder) -> None:
    run(folder, [(Shard(3, "f", 0, 1), ids(1))], [row(RowRef(3, 0))])
    footer = pq.ParquetFile(pa.BufferReader(storage.read(folder.part_url(3))[0])).metadata
    assert footer.metadata[b"run_fingerprint"] == b"fp"
    assert footer.row_group(0).column(0).compression == "ZSTD"


# -- commits ----------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    samples=st.lists(st.integers(1, 3), min_size=1, max_size=9),
    shard_rows=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_any_order_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, samples: list[int], shard_rows: int, seed: int
) -> None:
    shards = [
        (
            Shard(number, "f", start, len(samples[start : start + shard_rows])),
            ids(len(samples[start : start + shard_rows]), start),
        )
        for number, start in enumerate(range(0, len(samples), shard_rows))
    ]
    rows = [
        row(RowRef(index // shard_rows, index % shard_rows, sample, count))
        if index % 3
        else failed(RowRef(index // shard_rows, index % shard_rows, sample, count))
        for index, count in enumerate(samples)
        for sample in range(count)
    ]
    shuffled = random.Random(seed).sample(rows, len(rows))
    folders = [RunFolder(str(tmp_path_factory.mktemp("run"))) for _ in range(2)]
    commits = [
        run(folder, shards, order) for folder, order in zip(folders, (rows, shuffled), strict=True)
    ]
    assert sorted(commit.shard for commit in commits[1]) == list(range(len(shards)))
    for shard, _ in shards:
        one, other = (storage.read(folder.part_url(shard.number))[0] for folder in folders)
        assert one == other
    table = pa.concat_tables(read_part(folders[1], shard.number) for shard, _ in shards)
    assert table["x"].to_pylist() == [
        index for index, count in enumerate(samples) for _ in range(count)
    ]
    assert table["sample_index"].to_pylist() == [
        sample for count in samples for sample in range(count)
    ]


def test_shard_is_published_with_its_last_row(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    writer = Writer(folder, schema_of(ids(1)), "fp")
    seen: list[frozenset[int]] = []

    def stream() -> Iterable[OutputRow | ShardNotice]:
        yield ShardOpened(Shard(0, "f", 0, 2), ids(2))
        yield row(RowRef(0, 1))
        seen.append(folder.committed())
        yield row(RowRef(0, 0))
        yield ShardOpened(Shard(1, "f", 2, 1), ids(1))
        while 0 not in folder.committed():  # it is written beside the stream
            time.sleep(0.001)
        yield row(RowRef(1, 0))

    assert [commit.shard for commit in committed(writer.write(stream()))] == [0, 1]
    assert seen == [frozenset()]


def test_unusual_passthrough_types_survive(tmp_path: Path) -> None:
    from tests.pipeline.input.test_reader import UNUSUAL

    table = pa.table({"id": pa.array([1, 2, 3]), **UNUSUAL})
    folder = RunFolder(str(tmp_path))
    refs = [RowRef(0, number, sample, 2) for number in range(3) for sample in range(2)]
    run(folder, [(Shard(0, "f", 0, 3), table)], [row(ref) for ref in reversed(refs)])
    part = read_part(folder, 0).select(table.column_names)
    assert part.schema.equals(table.schema)
    assert part.to_pylist() == [line for line in table.to_pylist() for _ in range(2)]


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 40),
    shard_rows=st.integers(1, 9),
    stops=st.lists(st.integers(0, 30), max_size=4),
    seed=st.integers(0, 999),
)
def test_stopped_runs_give_the_same_table(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    shard_rows: int,
    stops: list[int],
    seed: int,
) -> None:
    """Resuming after any stop gives complete output, whatever the order of completions.

    From reader to writer; the same run is repeated until nothing remains.
    """
    base = tmp_path_factory.mktemp("resume")
    table = pa.table(
        {
            "id": list(range(rows)),
            "prompt": [f"p{index}" for index in range(rows)],
            "y": [index / 7 for index in range(rows)],
        }
    )
    pq.write_table(table, base / "in.parquet", row_group_size=7)
    files = list_input(str(base / "in.parquet"))
    inputs = inspect_columns(files, InputColumns(GENERATE))
    shards = plan_shards(files, shard_rows)
    folder, order = RunFolder(str(base / "run")), random.Random(seed)

    def drive(stop: int | None) -> None:
        todo = remaining(shards, read_state(folder, shards, "fp"))
        writer = Writer(
            folder,
            output_schema(inputs, task=GENERATE, logprobs=2, prompt_logprobs=2, choices=False),
            "fp",
        )
        opened: list[OutputRow | ShardNotice] = []
        finished = []
        for item in read_rows(todo, inputs):
            if isinstance(item, ShardOpened):
                opened.append(item)
            else:
                assert isinstance(item, PromptRow)
                finished.append(row(item.ref))
        order.shuffle(finished)
        try:
            list(writer.write([*opened, *finished[:stop]]))
        except CommitError:
            assert stop is not None  # an incomplete shard: what a killed driver leaves

    for stop in [*stops, None]:
        drive(stop)
    assert finish(folder, shards, folder.committed())
    parts = pa.concat_tables(read_part(folder, shard.number) for shard in shards)
    assert parts.select(["id", "y"]).equals(table.select(["id", "y"]))
    text = [f"text {index}.0" for shard in shards for index in range(shard.rows)]
    assert parts["text"].to_pylist() == text


# -- exactly once ----------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(RowRef(0, 0)), row(RowRef(0, 0)), row(RowRef(0, 1))], "duplicate result for"),
        ([row(RowRef(0, 0)), row(RowRef(0, 1)), row(RowRef(0, 1))], "shard 0 is not open"),
        ([row(RowRef(7, 0))], "shard 7 is not open"),
        ([row(RowRef(0, 2))], "shard 0 has no such row"),
        ([row(RowRef(0, 0))], "1 shards open; shard 0 still awaits 1 samples"),
        ([row(RowRef(0, 0, 0, 3)), row(RowRef(0, 1))], "shard 0 still awaits 2 samples"),
        (
            [row(RowRef(0, 0, 0, 2)), row(RowRef(0, 0, 1, 3))],
            "expected 2 samples as in another sample of its row",
        ),
    ],
)
def test_exactly_once_is_checked(tmp_path: Path, rows: list[OutputRow], message: str) -> None:
    with pytest.raises(CommitError, match=message):
        run(RunFolder(str(tmp_path)), [(Shard(0, "f", 0, 2), ids(2))], rows)


def test_shards_open_once_and_with_their_rows(tmp_path: Path) -> None:
    first = (Shard(0, "f", 0, 2), ids(2))
    with pytest.raises(CommitError, match="already open"):
        run(RunFolder(str(tmp_path)), [first, first], [])
    with pytest.raises(CommitError, match="another number"):
        run(RunFolder(str(tmp_path)), [first, (Shard(1, "f", 2, 2), ids(3))], [])


def test_error_in_the_stream_keeps_complete_shards(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    writer = Writer(folder, schema_of(ids(1)), "fp")

    def stream() -> Iterable[OutputRow | ShardNotice]:
        yield ShardOpened(Shard(0, "f", 0, 1), ids(1))
        yield ShardOpened(Shard(1, "f", 1, 1), ids(1))
        yield row(RowRef(0, 0))
        raise InterruptedRunError("stop")

    commits = writer.write(stream())
    first = next(commits)
    assert isinstance(first, CommittedShard)
    assert first.shard == 0, "it is told, too"
    with pytest.raises(InterruptedRunError):
        next(commits)
    assert folder.committed() == {0}


# -- two drivers ----------------------------------------


def test_two_drivers_publish_each_shard_once(folder: RunFolder) -> None:
    shards = [(Shard(number, "f", number * 2, 2), ids(2, number * 2)) for number in range(6)]
    barrier = Barrier(2)

    def drive(seed: int) -> list[CommittedShard]:
        rows = [row(RowRef(number, index)) for number in range(6) for index in range(2)]
        random.Random(seed).shuffle(rows)
        barrier.wait()
        return run(folder, shards, rows)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(drive, range(2))
    published = sorted(commit.shard for commit in [*one, *other] if commit.published)
    assert published == list(range(6))
    assert len(one) == len(other) == 6
    assert read_part(folder, 3)["id"].to_pylist() == ["id-6", "id-7"]


def test_losing_to_another_run_stops(folder: RunFolder) -> None:
    shards = [(Shard(0, "f", 0, 1), ids(1))]
    run(folder, shards, [row(RowRef(0, 0))], mark="theirs")
    with pytest.raises(ConfigError, match="fingerprint theirs, expected ours"):
        run(folder, shards, [row(RowRef(0, 0))], mark="ours")


# -- retry failed ----------------------------------------


def first_run(folder: RunFolder) -> Shard:
    """Commits 4 rows with 1, 2, 1, 2 samples, where row 1 (one sample) and row 2 failed."""
    shard = Shard(0, "f", 0, 4)
    rows = [
        row(RowRef(0, 0)),
        row(RowRef(0, 1, 0, 2)),
        failed(RowRef(0, 1, 1, 2)),
        failed(RowRef(0, 2), "invalid_prompt"),
    ]
    run(folder, [(shard, ids(4))], [*rows, row(RowRef(0, 3, 0, 2)), row(RowRef(0, 3, 1, 2))])
    return shard


def again(folder: RunFolder, shard: Shard) -> list[CommittedShard]:
    rows = [row(RowRef(0, 2)), row(RowRef(0, 1, 1, 2)), row(RowRef(0, 1, 0, 2))]
    return run(folder, [(shard, ids(4).take([1, 2]))], rows)


def test_rows_that_ran_again_are_merged(folder: RunFolder, tmp_path: Path) -> None:
    shard = first_run(folder)
    (todo,) = _to_retry(shard, folder)
    assert todo.only == (1, 2)
    assert again(folder, todo) == [CommittedShard(0, 2, 3, {}, 9, 6, 3, published=True)]
    undisturbed = RunFolder(str(tmp_path / "undisturbed"))
    counts = (1, 2, 1, 2)
    run(
        undisturbed,
        [(shard, ids(4))],
        [row(RowRef(0, r, s, n)) for r, n in enumerate(counts) for s in range(n)],
    )
    assert read_part(folder, 0).equals(read_part(undisturbed, 0))
    assert read_part(folder, 0).schema.metadata == read_part(undisturbed, 0).schema.metadata
    assert _to_retry(shard, folder) == ()


def test_part_replaced_by_another_driver_is_kept(folder: RunFolder) -> None:
    shard = first_run(folder)
    (todo,) = _to_retry(shard, folder)
    late = Writer(folder, schema_of(ids(1)), "fp")
    before = None

    def stream() -> Iterable[OutputRow | ShardNotice]:
        nonlocal before
        yield ShardOpened(todo, ids(4).take([1, 2]))
        assert again(folder, todo)[0].published
        before = storage.read(folder.part_url(0))
        yield from [failed(RowRef(0, 2)), failed(RowRef(0, 1))]

    assert [commit.published for commit in committed(late.write(stream()))] == [False]
    assert storage.read(folder.part_url(0)) == before is not None


def test_committed_part_that_vanished_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"part-00000\.parquet has vanished"):
        run(RunFolder(str(tmp_path)), [(Shard(0, "f", 0, 4, only=(1,)), ids(1))], [])


def test_unreadable_shard_passes_through(tmp_path: Path) -> None:
    writer = Writer(RunFolder(str(tmp_path)), schema_of(ids(1)), "fp")
    unreadable = UnreadableShard(Shard(3, "f", 0, 4), DatasetError("it has vanished"))
    assert list(writer.write([unreadable])) == [unreadable]


def _to_retry(shard: Shard, folder: RunFolder) -> tuple[Shard, ...]:
    state = read_state(folder, [shard], "fp", failures_in=[shard])
    return remaining([shard], state, retry_failed=True)
