from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests, parts, read_requests, to_table
from pipeline.evals.suite import PromptOptions
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.output.publication import to_parquet
from pipeline.records import InputFile
from pipeline.tasks import TASKS
from tests.pipeline.evals import own_data
from tests.pipeline.evals.own_requests import REQUESTS, SCORED


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (("mmlu_virology",), DatasetError, "holds no row of mmlu_virology"),
        ((), ConfigError, "at least one task"),
    ],
)
def test_requests_without_documents_are_refused(
    names: tuple[str, ...], error: type[Exception], message: str, tmp_path: Path
) -> None:
    data = DataFolder(str(own_data.write(tmp_path)))
    with pytest.raises(error, match=message):
        build_requests(names, data, PromptOptions())


def test_requests_survive_parquet_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "requests.parquet"
    file.write_bytes(to_parquet(to_table(REQUESTS)))
    assert read_requests(str(file)) == REQUESTS
    assert to_parquet(to_table(read_requests(str(file)))) == file.read_bytes()


def test_invalid_request_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "requests.parquet"
    for requests, message in (
        ((), "has no row"),
        ((SCORED, SCORED), "'mmlu_anatomy/0' comes twice"),
    ):
        file.write_bytes(to_parquet(to_table(requests)))
        with pytest.raises(DatasetError, match=message):
            read_requests(str(file))
    pq.write_table(pa.table({"id": ["a"]}), file)
    with pytest.raises(DatasetError, match=r"columns .*'task'.* are missing"):
        read_requests(str(file))


def test_main_job_accepts_both_parts(tmp_path: Path) -> None:
    for job_task, table in parts(to_table(REQUESTS)).items():
        file = tmp_path / f"{job_task}.parquet"
        pq.write_table(table, file)
        schema = inspect_columns(
            [InputFile(str(file), 1, "", table.num_rows)], InputColumns(TASKS[job_task])
        )
        assert schema.passthrough.names == ["id", "task", "doc_id", "target"]
        assert schema.has_choices == (job_task == "score")
    assert schema.parameters == ("max_tokens", "temperature", "stop", "n")
    assert list(parts(to_table([SCORED]))) == ["score"]
