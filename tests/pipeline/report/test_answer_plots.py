"""Tables and explanations of the plots of answers; test_run_report.py checks their page."""

from pipeline.report.answer_plots import finish_reasons, logprobs


def test_finish_reasons_have_samples_and_shares() -> None:
    assert finish_reasons({"stop": 3, "length": 1}).rows == (
        ("stop", "3", "75\u00a0%"),
        ("length", "1", "25\u00a0%"),
    )


def test_logprobs_have_bins_and_the_share_of_likely_tokens() -> None:
    histogram = [
        {"from": None, "to": -11.75, "tokens": 1},
        {"from": -1.0, "to": -0.75, "tokens": 1},
        {"from": -0.25, "to": 0.0, "tokens": 2},
    ]
    plot = logprobs("logprobs", "Log-probs", "tokens", histogram)
    assert plot.rows[0] == ("-11.75 and less", "1", "25\u00a0%")
    assert plot.rows[2] == ("-0.25 to 0", "2", "50\u00a0%")
    assert "50\u00a0% of the tokens are above -0.25" in plot.explanation
    assert "The median is between -1 and -0.75" in plot.explanation
