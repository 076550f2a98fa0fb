from typing import Any

from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Selection
from tests.pipeline.synthesis.sample_tables import KEPT, samples


def selection(**rules: Any) -> Selection:
    return Selection(SelectionRules(dedup_memory_mb=1, **rules), KEPT, logprobs=True)


def test_statistics_bound_the_number_of_reasons() -> None:
    judge = selection(dedup="none")
    rows = [{"_status": "error", "_error_code": f"code {number}"} for number in range(300)]
    judge.select(samples(rows))
    counts = judge.statistics.reasons["generation"]
    assert len(counts) == 201
    assert sum(counts.values()) == 300
    assert counts["other reasons"] == 100
