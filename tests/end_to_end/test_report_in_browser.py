"""report.html of a real run, as a person sees it: opened from disk in a headless Chromium."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.end_to_end.browser import Browser, browser
from tests.end_to_end.report_page import look_at_report
from tests.jobs.runs import job

__all__ = ["browser"]  # a fixture
PLOTS = {
    "finish-reasons",
    "logprobs",
    "throughput",
    "shares",
    "prompt-lengths",
    "completion-lengths",
    "capacity",
    "replica-map",
    "failures",
}
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
HOSTILE = (
    '<script>document.title = "hacked"</script>'
    '<img src="https://example.org/x" onerror="document.title=1">'
)


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of the demo model with failing rows whose ids are hostile."""
    folder = tmp_path_factory.mktemp("run")
    prompts = [f"{number} + {number} =" if number % 4 else "" for number in range(40)]
    ids = [f"{HOSTILE} {number}" for number in range(40)]
    pq.write_table(pa.table({"id": ids, "prompt": prompts}), folder / "in.parquet")
    flags = [
        "--model",
        "demo",
        "--max-tokens",
        3,
        "--max-len",
        64,
        "--max-error-rate",
        0.5,
        "--cost-per-replica-hour",
        3,
    ]
    done = job("-i", folder / "in.parquet", "-o", folder / "out", *flags)
    assert done.returncode == 3, done.stderr
    assert str(folder / "out" / "report.html") in done.stdout
    return folder / "out" / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_shows_all_plots_and_fetches_nothing(
    scheme: str, report_file: Path, browser: Browser
) -> None:
    assert look_at_report(browser, report_file, scheme) == PLOTS
    assert browser.evaluate("document.title") == "Run report: demo, generate"


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
