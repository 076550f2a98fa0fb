from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, PromptOptions
from pipeline.evals.tasks import winogrande
from tests.pipeline.evals import own_data

FILE = "winogrande/winogrande_xl/validation-00000-of-00001.parquet"


def test_both_sentences_share_the_part_before_the_gap(data: DataFolder) -> None:
    [first, second] = build_requests(["winogrande"], data, PromptOptions())
    assert first.prompt == "The box did not fit the shelf because the"
    assert first.choices == (" box was too wide.", " shelf was too wide.", " box", " shelf")
    assert first.target == " box was too wide."
    # a gap at the start leaves nothing to share
    assert second.prompt == ""
    assert second.target == "Ada thanked Nora for the help that Ada had been given."


def test_score_compares_the_rest_after_each_name(data: DataFolder) -> None:
    [request, _] = build_requests(["winogrande"], data, PromptOptions())
    # the first sentence is less likely as a whole, its rest is likelier
    answers = (Answer(loglikelihoods=(-9.0, -8.0, -7.0, -4.0)),)
    verdict = winogrande.score(request, answers)
    assert verdict.values == {"acc,none": 1.0}
    assert verdict.answer == " box"
    assert verdict.confidence == pytest.approx(0.8807970779778823)  # 1 / (1 + e^-2)


def test_failed_row_is_wrong(data: DataFolder) -> None:
    [request, _] = build_requests(["winogrande"], data, PromptOptions())
    assert winogrande.score(request, (Answer(error="x: y"),)).values == {"acc,none": 0.0}


@pytest.mark.parametrize("damage", [{"sentence": "No gap."}, {"answer": ""}])
def test_damaged_row_is_refused(damage: dict[str, object], tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    rows = pq.read_table(folder / FILE).to_pylist()
    own_data.rewrite(folder / FILE, [rows[0] | damage])
    with pytest.raises(DatasetError, match="row 0: expected a sentence with '_' and an answer"):
        build_requests(["winogrande"], DataFolder(str(folder)), PromptOptions())
