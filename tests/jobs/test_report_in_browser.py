"""report.html of a real run, as a person sees it: opened from disk in a headless Chromium."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.jobs.browser import Browser, find_chromium
from tests.jobs.runs import job

PLOTS = {"throughput", "shares", "prompt-lengths", "completion-lengths", "capacity", "replica-map", "troubles"}
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
HOSTILE = '<script>document.title = "hacked"</script><img src="https://example.org/x" onerror="document.title=1">'
BOXES = """[...document.querySelectorAll('figure svg')].map(svg => { const box = svg.getBoundingClientRect();
  return {name: svg.getAttribute('aria-labelledby'), x: box.x, y: box.y + scrollY, width: box.width, height: box.height}; })"""
OUTSIDE = """[...document.querySelectorAll('figure svg')].flatMap(svg => { const out = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => { const box = text.getBoundingClientRect();
    return box.left < out.left - 1 || box.right > out.right + 1 || box.top < out.top - 1 || box.bottom > out.bottom + 1; })
  .map(text => text.textContent); })"""


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of the demo model with failing rows whose ids are hostile."""
    folder = tmp_path_factory.mktemp("run")
    prompts = [f"{number} + {number} =" if number % 4 else "" for number in range(40)]
    ids = [f"{HOSTILE} {number}" for number in range(40)]
    pq.write_table(pa.table({"id": ids, "prompt": prompts}), folder / "in.parquet")
    flags = ["--model", "demo", "--max-tokens", 3, "--max-len", 64, "--max-error-rate", 0.5, "--cost-per-replica-hour", 3]
    done = job("-i", folder / "in.parquet", "-o", folder / "out", *flags)
    assert done.returncode == 3, done.stderr
    assert str(folder / "out" / "report.html") in done.stdout
    return folder / "out" / "report.html"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on PATH; as root on Debian: apt-get install --no-install-recommends chromium")
    with Browser(program, tmp_path / "profile") as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_plot_is_seen_and_nothing_is_fetched_run_or_complained_about(
    scheme: str, report_file: Path, browser: Browser
) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(report_file)
    boxes: list[dict[str, Any]] = browser.evaluate(BOXES)
    assert {box["name"].removesuffix("-title") for box in boxes} == PLOTS
    page = Image.open(io.BytesIO(browser.photograph())).convert("RGB")
    paper = page.getpixel((2, 2))
    assert paper == ((255, 255, 255) if scheme == "light" else (20, 23, 28))
    for box in boxes:
        assert box["width"] > 300, box
        assert box["height"] > 60, box
        shot = browser.photograph({key: box[key] for key in ("x", "y", "width", "height")})
        colors = Image.open(io.BytesIO(shot)).convert("RGB").getcolors(1 << 24)
        assert colors is not None
        inked = sum(count for count, color in colors if color != paper)
        assert inked > 0.01 * box["width"] * box["height"], f"{box['name']} is empty"
        assert len(colors) > 20, f"{box['name']} has no lines or text"
    assert browser.evaluate(OUTSIDE) == [], "text is cut off"
    assert browser.evaluate("document.title") == "Run report: demo, generate"
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    assert browser.fetched() == [report_file.as_uri()]
    assert browser.complaints() == []


def test_it_fits_a_telephone(report_file: Path, browser: Browser) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(report_file)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.complaints() == []
