from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import PromptOptions
from pipeline.evals.tasks.hellaswag import clean
from tests.pipeline.evals import own_data

FILE = "hellaswag/data/validation-00000-of-00001.parquet"


def test_marks_in_brackets_are_removed_from_prompt_and_endings(data: DataFolder) -> None:
    [first, second] = build_requests(["hellaswag"], data, PromptOptions())
    assert first.prompt == "Planting a tree: A woman digs a hole in a garden. She The tree"
    assert first.choices is not None
    assert first.choices[:3] == (" is lifted. into it.", "  is eaten by it.", " sings to her.")
    assert first.target == first.choices[0]
    assert second.target == " It is sand."


def test_clean_keeps_what_the_harness_keeps() -> None:
    assert clean(" a [title] b [step] c  d ") == "a. b c d"


def test_label_that_is_no_ending_is_refused(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    rows = pq.read_table(folder / FILE).to_pylist()
    own_data.rewrite(folder / FILE, [rows[0] | {"label": ""}])
    with pytest.raises(DatasetError, match="row 0: expected a label from 0 to 3, got ''"):
        build_requests(["hellaswag"], DataFolder(str(folder)), PromptOptions())
