from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from tests.pipeline.evals import own_data

HUMANEVAL = "humaneval/openai_humaneval"


def test_rows_of_several_files_are_in_order_of_their_names(tmp_path: Path) -> None:
    data = DataFolder(str(own_data.write(tmp_path)))
    rows = data.rows("mmlu/all", "test", ("question",))
    assert len(rows) == sum(own_data.TEST_ROWS.values())
    assert rows[0] == {"question": own_data.choice_row("abstract_algebra", 0)["question"]}


def test_rows_of_missing_data_set_are_refused(tmp_path: Path) -> None:
    data = DataFolder(str(tmp_path / "nowhere"))
    message = r"no .*/nowhere/gsm8k/main/test-\*.parquet; --data must hold"
    with pytest.raises(DatasetError, match=message):
        data.rows("gsm8k/main", "test", ("question",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("prompt", "entry_point"), "no column .*entry_point"),
        (("prompt", "test"), "column 'test' has 1 null values"),
    ],
)
def test_rows_without_needed_values_are_refused(
    columns: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    folder = own_data.write(tmp_path)
    rows: list[dict[str, object]] = [{"prompt": "p", "test": None}]
    own_data.rewrite(folder / HUMANEVAL / "test-00000-of-00001.parquet", rows)
    with pytest.raises(DatasetError, match=message):
        DataFolder(str(folder)).rows(HUMANEVAL, "test", columns)


def test_json_lines_refuse_values_that_are_not_texts(tmp_path: Path) -> None:
    (tmp_path / "shots.jsonl").write_text('{"question": "x"}\n{"question": 1}\n')
    with pytest.raises(DatasetError, match=r"line 2 of .*shots.jsonl: expected a JSON object"):
        DataFolder(str(tmp_path)).json_lines("shots.jsonl", ("question",))
