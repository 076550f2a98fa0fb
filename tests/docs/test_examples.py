"""Worked examples: all blocks of a page run in order on the demo model, and print what it has."""

from pathlib import Path
from typing import Any

import pytest

from jobs import score_dataset
from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.checks import our_program
from tests.docs.engine_backend import EngineBackend
from tests.docs.notebooks import run_cell
from tests.docs.shell import commands

FOLDER = "docs/examples/"
EXAMPLES = sorted({block.page for block in blocks() if block.page.startswith(FOLDER)})


def run_command(block: Block) -> None:
    """Runs the command of a block on a real replica in this process."""
    [command] = commands(block.text)
    program = our_program(command.words)
    assert program is not None
    backend = EngineBackend(draws_plots=False)
    assert score_dataset.main(program.arguments, backend) == 0, block


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: Path(page).stem)
def test_example_prints_what_its_page_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    shown = ""
    for block in blocks():
        if block.page != page:
            continue
        if block.language == "python":
            printed += run_cell(block.text, namespace)
        elif block.language == "bash":
            run_command(block)
        elif block.language == "text":
            shown += block.text
    assert printed == shown
