import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InterruptedRunError
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.shards import plan_shards
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder
from pipeline.output.run_state import read_state, remaining
from pipeline.run import run
from pipeline.tasks import GENERATE
from tests.fakes import FakeReplicas
from tests.host_side import make_pipeline

ROWS = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = [[row % 30 + 1] * (row % 20 + 1) if row % 13 else [] for row in range(ROWS)]
    table = pa.table(
        {
            "id": [f"r{row}" for row in range(ROWS)],
            "prompt_token_ids": pa.array(ids, pa.list_(pa.int32())),
        }
    )
    path = tmp_path_factory.mktemp("input") / "prompts.parquet"
    pq.write_table(table, path)
    return path


def drive(
    source: Path, output: Path, replicas: FakeReplicas, stop_after: int | None = None
) -> None:
    """Runs what is left of the data set; interrupts itself after some commits when told to."""
    files = list_input(str(source))
    schema = inspect_columns(files, InputColumns(GENERATE))
    shards, folder = plan_shards(files, 7), RunFolder(str(output))
    commits = 0

    def stopping() -> bool:
        return stop_after is not None and commits >= stop_after

    for _ in run(
        remaining(shards, read_state(folder, shards, "print")),
        make_pipeline(schema, folder, "print", replicas, Progress(ROWS), stopping),
    ):
        commits += 1


def rows_of(output: Path) -> list[dict[str, object]]:
    parts = sorted((output / "data").glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    output = tmp_path_factory.mktemp("undisturbed")
    drive(source, output, FakeReplicas(1))
    return rows_of(output)


def test_run_writes_every_row_in_order(undisturbed: list[dict[str, object]]) -> None:
    expected = [
        (f"r{row}", sample) for row in range(ROWS) for sample in range(2 if row % 13 else 1)
    ]
    assert [(row["id"], row["sample_index"]) for row in undisturbed] == expected
    assert {row["id"] for row in undisturbed if row["status"] == "error"} == {
        f"r{row}" for row in range(0, ROWS, 13)
    }


def test_output_does_not_depend_on_interruptions_or_losses(
    source: Path, undisturbed: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=8, deadline=None)
    @given(st.integers(1, 4), st.integers(0, 999), st.lists(st.integers(0, 4), max_size=3))
    def check(count: int, seed: int, stops: list[int]) -> None:
        output = tmp_path_factory.mktemp("disturbed")
        for number, stop in enumerate(stops):
            try:
                drive(
                    source,
                    output,
                    FakeReplicas(count, seed + number, bad_luck=0.05),
                    stop_after=stop,
                )
            except InterruptedRunError:
                continue
        drive(source, output, FakeReplicas(count, seed, bad_luck=0.05))
        assert json.dumps(rows_of(output)) == json.dumps(undisturbed)

    check()
