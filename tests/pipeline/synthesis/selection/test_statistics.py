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


def test_statistics_report_has_bins_and_reasons_in_order() -> None:
    judge = selection(dedup="none", where=("a > 1",), must_not_match=("x",))
    rows: list[dict[str, Any]] = [
        {"a": 1, "mean_logprob": -0.0, "completion_tokens": 1},
        {"a": 2, "mean_logprob": -0.25, "completion_tokens": 2},
        {"a": 2, "mean_logprob": -99.0, "completion_tokens": 3},
        {"a": 2, "mean_logprob": None, "completion": "x"},
        {"a": None},
        {"_status": "error", "_error_code": "engine_crash"},
    ]
    judge.select(samples(rows))
    report = judge.statistics.report()
    assert (report["accepted"], report["rejected"], report["failed"]) == (2, 3, 1)
    assert report["reasons"]["where"] == {"a > 1": 1, "error in a > 1": 1}
    assert list(report["reasons"]["where"]) == ["a > 1", "error in a > 1"]
    assert report["mean_logprob_histogram"]["accepted"] == [
        {"from": -10.0, "to": -9.75, "rows": 1},
        {"from": -0.25, "to": 0.0, "rows": 1},
    ]
    rejected_bins = report["mean_logprob_histogram"]["rejected"]
    assert {"from": -0.25, "to": 0.0, "rows": 1} in rejected_bins, "0 is in the bin below it"
    assert all(bin_["to"] <= 0 for bin_ in rejected_bins)


def test_statistics_rank_reasons_by_frequency_then_name() -> None:
    judge = selection(dedup="none")
    codes = ["b", "a", "c", "c"]
    judge.select(samples([{"_status": "error", "_error_code": code} for code in codes]))
    assert list(judge.statistics.report()["reasons"]["generation"].items()) == [
        ("c", 2),
        ("a", 1),
        ("b", 1),
    ]
