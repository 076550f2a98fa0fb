"""The report of an evaluation with a regression, opened from disk in a headless Chromium."""

from pathlib import Path

import pytest

from pipeline.evals.comparison import Rules
from pipeline.evals.history import History
from pipeline.evals.report.page import render
from tests.end_to_end.browser import Browser, browser
from tests.end_to_end.report_page import look_at_report
from tests.pipeline.evals.own_runs import night, requests

__all__ = ["browser"]  # a fixture
PLOTS = {"differences", "trend", "subjects", "calibration", "prompt-lengths", "completion-lengths"}
HOSTILE = (
    '<script>document.title = "hacked"</script>'
    '<img src="https://example.org/x" onerror="document.title=1">'
)
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the last of seven nights."""
    folder = tmp_path_factory.mktemp("nights")
    asked, history = requests(folder / "data"), History(str(folder / "history"))
    for number, skill in enumerate((0.5, 0.6, 0.9, 0.8, 0.7, 1.0, 0.0)):
        last = night(number, asked, skill, history, aside=HOSTILE)
    assert last.regressions
    (folder / "report.html").write_text(
        render(last, Rules(), {"Output": "runs/nightly", "Requests": HOSTILE})
    )
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_shows_all_plots_and_fetches_nothing(
    scheme: str, report_file: Path, browser: Browser
) -> None:
    assert look_at_report(browser, report_file, scheme) == PLOTS
    assert browser.evaluate("document.title") == "Evaluation: night 6"
    assert browser.evaluate("document.querySelector('h1').innerText").split() == [
        "Evaluation",
        "regression",
    ]


def test_details_of_changed_answers_unfold(report_file: Path, browser: Browser) -> None:
    browser.open(report_file)
    unfold = """[...document.querySelectorAll('details')]
      .filter(details => details.innerText.includes('worse'))
      .map(details => { const before = details.offsetHeight;
        details.open = true; return details.offsetHeight - before; })"""
    grown = browser.evaluate(unfold)
    # of four metrics: flexible-extract finds the 1 of the hostile text, in every run
    assert len(grown) == 3
    assert min(grown) > 20
    assert "mmlu_anatomy/0" in browser.evaluate("document.body.innerText")


def test_report_fits_a_phone_screen(report_file: Path, browser: Browser) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=800,
        deviceScaleFactor=1,
        mobile=True,
    )
    browser.open(report_file)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.complaints() == []
