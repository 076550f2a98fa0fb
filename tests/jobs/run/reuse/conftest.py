"""A folder with inputs and runs."""

from pathlib import Path

import pytest

from tests.jobs.run.reuse.older import Runs


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(tmp_path, capsys)
