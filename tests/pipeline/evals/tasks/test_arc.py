from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import PromptOptions
from tests.pipeline.evals import own_data
from tests.pipeline.evals.own_data import arc_row

EASY = "ai2_arc/ARC-Easy/test-00000-of-00001.parquet"


def test_choices_are_texts_and_their_number_varies(data: DataFolder) -> None:
    requests = build_requests(["arc_easy"], data, PromptOptions())
    assert [len(request.choices or ()) for request in requests] == [4, 3, 5]
    assert requests[1].prompt == "Question: How heavy is stone 1?\nAnswer:"
    assert requests[1].choices == (" 1 grams", " 2 grams", " 3 grams")
    assert requests[1].target == " 2 grams"  # its label is 2


def test_each_task_reads_its_folder(data: DataFolder) -> None:
    [first, *_] = build_requests(["arc_challenge"], data, PromptOptions(limit=1))
    assert first.id == "arc_challenge/0"
    assert "stone 5" in first.prompt


@pytest.mark.parametrize(
    "damage", [{"answerKey": "E"}, {"choices": {"text": ["a", None], "label": ["A", "B"]}}]
)
def test_damaged_row_is_refused(damage: dict[str, object], tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    own_data.rewrite(folder / EASY, [arc_row(0), arc_row(1) | damage])
    with pytest.raises(DatasetError, match="ARC-Easy/test, row 1: expected a text for each label"):
        build_requests(["arc_easy"], DataFolder(str(folder)), PromptOptions())
