"""The page as a browser would parse it, for runs small, huge, broken and hostile.

A browser sees it in tests/jobs.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from actors.protocol.messages import Completion, ReplicaInfo, ReplicaStats, RowRef, token_ids
from pipeline.monitoring.deprecated_keys import RENAMED
from pipeline.monitoring.progress import Progress
from pipeline.report.run_report import STATUS, render

HOSTILE = (
    "</td></svg><script>alert(1)</script><img src=x onerror=alert(2)>"
    "\" onload='alert(3)' $x^2$ &amp; {{7*7}}"
)


class Page(HTMLParser):
    """What is on a page: elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    def values(self, attribute: str) -> list[str]:
        return [
            str(attributes[attribute]) for _, attributes in self.elements if attribute in attributes
        ]


def info(name: str) -> ReplicaInfo:
    return ReplicaInfo(name, f"node of {name}", ("H100",) * 8, "1x8", 1, 1, 1, 64, 90.0)


def make_report(
    *,
    rows: int = 100,
    seconds: float = 20.0,
    replicas: int = 2,
    losses: int = 0,
    errors: int = 0,
    message: str = "is empty",
) -> dict[str, Any]:
    """A run whose replicas answer in turn; the last ones run dry early."""
    clock = [0.0]
    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    progress = Progress(
        rows,
        cost_per_replica_hour=2.0,
        clock=lambda: clock[0],
        now=lambda: began + timedelta(seconds=clock[0]),
    )
    for number in range(replicas):
        progress.replica_ready(f"replica-{number}", info(f"r{number}"))
    for row in range(rows):
        clock[0] = seconds * 0.9 * (row + 1) / rows
        name = f"replica-{row % replicas}"
        stats = ReplicaStats(
            prefill_tokens=90 * row,
            prefill_positions=100 * row,
            busy_s=clock[0] * 0.8,
            up_s=clock[0],
        )
        progress.replica_stats(name, stats)
        ref = RowRef(row // 10, row % 10)
        row_id = f"{message} {ref.row}"
        failed = Completion.failed(ref, "empty_prompt", message, row_id=row_id)
        good = Completion(
            ref,
            token_ids=token_ids([1] * (row % 9)),
            prompt_tokens=3 * row,
            cached_tokens=row,
        )
        list(progress.count([failed if row < errors else good]))
    for number in range(losses):
        progress.replica_ready(f"lost-{number}", info(message))
        clock[0] += seconds * 0.05 / losses
        progress.replica_lost(f"lost-{number}", f"{message} {number}")
        progress.batch_retried(7)
    clock[0] = seconds
    return json.loads(json.dumps(progress.report()))  # as it is on disk


def with_run(report: dict[str, Any], text: str = "x", status: str = "complete") -> dict[str, Any]:
    config = {
        "model": text,
        "task": "generate",
        "input": text,
        "output": text,
        "partition": "1/4",
        "stop": [text],
    }
    run = {
        "fingerprint": text,
        "config": config,
        "versions": {"ray": text},
        "git_commit": text,
        "shards": {"own": 9, "to_do": 4},
    }
    return {"status": status, "message": text, "run": run, **report}


REPORTS: dict[str, Callable[[], dict[str, Any]]] = {
    "small": make_report,
    "long": lambda: make_report(rows=3000, seconds=90_000, replicas=100),
    "troubled": lambda: with_run(make_report(losses=5, errors=30)),
    "one replica": lambda: make_report(replicas=1),
    "nothing answered": lambda: json.loads(json.dumps(Progress(10, clock=lambda: 0.0).report())),
    "all failed": lambda: make_report(rows=10, errors=10),
}


@pytest.mark.parametrize("kind", REPORTS)
def test_page_is_self_contained_and_tabulates_its_plots(kind: str) -> None:
    page = Page(text := render(REPORTS[kind]()))
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    assert not [
        value
        for name in ("src", "href", "xlink:href")
        for value in page.values(name)
        if not value.startswith(("#", "data:"))
    ]
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    ids = page.values("id")
    assert len(ids) == len(set(ids)), "ids of different plots collide"
    references = [
        value.removeprefix("#") for value in page.values("xlink:href") if value.startswith("#")
    ]
    assert {*references, *page.values("aria-labelledby"), *page.values("aria-describedby")} <= set(
        ids
    )
    figures = page.count("figure")
    assert figures == page.count("figcaption")
    assert page.count("svg") == page.values("role").count("img") > figures - 1
    assert page.count("details") >= figures
    assert (figures > 0) == (kind != "nothing answered")
    assert "nan" not in page.text.lower().replace("finance", "")


def test_page_shows_the_figures_of_the_run() -> None:
    page = Page(
        render(with_run(make_report(rows=100, errors=30, losses=5), "bucket/runs", "row_errors"))
    )
    text = " ".join(page.text.split())
    for words in (
        "complete, some rows failed",
        "bucket/runs",
        "partition 1 of 4",
        "5 of 9 shards were there before",
        "empty_prompt",
        "part-00000, row 2",
        "is empty 2",
        "2026-01-02 03:04:05 UTC to 2026-01-02 03:04:25 UTC: 20 s",
        "Requests run again35",
        "5 replicas lost",
        f"Cost{(40 + 0.5) * 2 / 3600:.2f}",
    ):
        assert words in text, words
    tokens = sum(3 * row for row in range(30, 100))
    assert f"{tokens / 20:,.0f} per s" in text


def test_page_describes_each_run_status() -> None:
    report = REPORTS["nothing answered"]()
    for name, status in STATUS.items():
        assert status.words in Page(render(with_run(report, "why", name))).text


def test_page_escapes_data() -> None:
    text = render(with_run(make_report(errors=5, losses=2, message=HOSTILE), HOSTILE))
    page = Page(text)
    assert page.count("script") == page.count("img") == 0
    assert not [
        name for _, attributes in page.elements for name in attributes if name.startswith("on")
    ]
    assert page.text.count("alert(1)") >= 8, "it is told, as text"
    assert "default-src 'none'" in text
    plain = Page(render(with_run(make_report(errors=5, losses=2))))
    names = [
        [name for name, _ in each.elements if name in {"figure", "svg", "table", "h2", "h3"}]
        for each in (page, plain)
    ]
    assert names[0] == names[1], "the page has another structure than with harmless data"


def test_page_shows_sample_rows_and_the_time_of_the_start() -> None:
    sample = {
        "id": HOSTILE,
        "prompt": f"first line\n{HOSTILE}",
        "text": "5",
        "tokens": [["5", -3.0], [HOSTILE, None]],
        "finish_reason": "stop",
        "prompt_tokens": 1200,
        "completion_tokens": 2,
        "scores": [{"text": HOSTILE, "loglikelihood": None, "tokens": 3, "is_greedy": False}],
        "error": None,
    }
    report = make_report(seconds=20.0)
    report |= {"samples": [sample], "ready_s": 100.0, "finish_reasons": {"stop": 1, HOSTILE: 2}}
    report["logprob_histogram"] = [{"from": None, "to": -11.75, "tokens": 3}]
    text = render(report)
    page = Page(text)
    assert page.count("script") == page.count("img") == 0
    words = " ".join(page.text.split())
    assert "ended by stop · 1,200 prompt tokens · 2 completion tokens" in words
    assert "log-likelihood none, tokens: 3" in words
    assert "after 1 min 40 s for planning, starting Ray and loading the model" in words
    assert "Time2 min 00 s" in words
    assert '<span class=p1 title="5.0\u00a0%">5</span>' in text
    titles = page.values("aria-labelledby")
    assert {"finish-reasons-title", "logprobs-title"} <= set(titles)


def test_page_omits_credentials() -> None:
    message = "cannot read s3://user:secret@bucket/x?X-Amz-Signature=secret"
    assert "secret" not in render(make_report(errors=5, losses=2, message=message))


def test_page_size_does_not_grow_with_the_run() -> None:
    small = render(make_report(rows=200, seconds=40))
    large = render(
        make_report(
            rows=2000, seconds=1e6, replicas=300, losses=200, errors=900, message="y" * 10_000
        )
    )
    assert len(large) < 4 * len(small) < 1_000_000


def test_equal_reports_give_equal_pages() -> None:
    report = make_report(losses=2, errors=3)
    assert render(report) == render(report)


def test_render_accepts_reports_with_deprecated_keys_only() -> None:
    report = make_report()
    old = json.loads(json.dumps(report))
    for section in (old["engine"], old["over_time"]):
        for current in RENAMED.values():
            section.pop(current, None)

    assert "extend_tokens" in old["engine"]
    assert render(old) == render(report)
