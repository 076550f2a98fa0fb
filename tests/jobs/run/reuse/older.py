"""Runs of the main job over growing data, on replicas that answer by arithmetic."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.protocol.messages import Completion, Request
from jobs import score_dataset
from tests import fakes
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import table

Row = Mapping[str, Any]


@dataclass
class Runs:
    """A folder with inputs and runs; counts the rows that replicas compute."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    computed: Counter[Any] = field(default_factory=Counter)  # ids of rows of the last run
    answer: Callable[[Request], Completion] = fakes.answer

    def write(self, name: str, rows: Iterable[Row]) -> None:
        """Writes a file of the input as JSON lines."""
        path = self.folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, output: str, *flags: object, code: int = 0, reuse: Iterable[str] = ()) -> str:
        """Runs the job over the folder `in`, and returns what it prints."""
        self.computed.clear()

        def answer(request: Request) -> Completion:
            self.computed[request.row_id] += 1
            return self.answer(request)

        words: list[object] = ["-i", self.folder / "in", "-o", self.folder / output]
        words += ["--model", "demo", "--shard-rows", 4]
        if "--task" not in flags:
            words += ["--max-tokens", 3]
        for older in reuse:
            words += ["--reuse", self.folder / older]
        backend = FakeBackend(answer=answer, info=fakes.DESCRIBED, draws_plots=False)
        words += flags
        assert score_dataset.main([*map(str, words)], backend) == code
        captured = self.capture.readouterr()
        return captured.out + captured.err

    def table(self, output: str) -> pa.Table:
        """Returns the rows of a run."""
        return table(self.folder / output)

    def report(self, output: str) -> dict[str, Any]:
        """Returns report.json of a run."""
        report: dict[str, Any] = json.loads((self.folder / output / "report.json").read_text())
        return report


def prompts(first: int, last: int, **columns: Any) -> list[dict[str, Any]]:
    """Returns rows with the ids from `first` to `last`, excluded."""
    numbers = range(first, last)
    return [{"id": f"r{number}", "prompt": f"Row {number} is", **columns} for number in numbers]
