import io
import json
import sys
from datetime import UTC, datetime

import pytest

from actors.protocol.messages import ReplicaInfo, ReplicaStats
from pipeline.monitoring.live_view import LiveView
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from tests.pipeline.monitoring.test_progress import Clock, bad, good

NOON = datetime(2026, 11, 24, 12, 0, 0, 5000, tzinfo=UTC)


def json_log() -> tuple[RunLog, io.StringIO]:
    stream = io.StringIO()
    return RunLog("json", run="nightly-1a2b3c4d", stream=stream, now=lambda: NOON), stream


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_log_as_text_is_shorter_than_as_json() -> None:
    stream = io.StringIO()
    text = RunLog(stream=stream)
    text.event("replica_lost", "replica-0 is lost (killed)", replica="replica-0")
    text.event("shard_committed", shard=3)
    assert stream.getvalue() == "replica-0 is lost (killed)\n"
    log, stream = json_log()
    log.event(
        "replica_lost",
        "replica-0 is lost\n(killed)",
        level="warning",
        replica="replica-0",
        node=None,
    )
    log.event("shard_committed", shard=3)
    common = {"time": "2026-11-24T12:00:00.005Z", "run": "nightly-1a2b3c4d"}
    assert events(stream) == [
        common
        | {
            "level": "warning",
            "event": "replica_lost",
            "message": "replica-0 is lost\n(killed)",
            "replica": "replica-0",
        },
        common | {"level": "info", "event": "shard_committed", "shard": 3},
    ]


def test_results_are_text_on_stdout_or_json_events(
    capsys: pytest.CaptureFixture[str],
) -> None:
    RunLog(stream=sys.stderr).result(None, "report   out/report.html")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("report   out/report.html\n", "")
    log, stream = json_log()
    log.result(None, "model    demo")
    log.result("cluster", "cluster  local Ray", cluster="local Ray")
    assert [event["event"] for event in events(stream)] == ["cluster"]


def test_known_error_is_one_line_and_an_exit_code() -> None:
    stream = io.StringIO()
    error = ValueError("no input at s3://key:secret@bucket/in; check the path")
    assert RunLog(stream=stream).failed(error, 2) == 2
    assert RunLog(stream=stream).failed(error, 75, "interrupted") == 75
    assert stream.getvalue().splitlines() == [
        "error: no input at s3://bucket/in; check the path",
        "interrupted: no input at s3://bucket/in; check the path",
    ]
    log, stream = json_log()
    assert log.failed(error, 2) == 2
    (told,) = events(stream)
    assert (told["level"], told["event"], told["exit_code"], told["error"]) == (
        "error",
        "error",
        2,
        "ValueError",
    )
    assert told["message"] == "no input at s3://bucket/in; check the path"


def test_log_contains_no_credentials() -> None:
    log, stream = json_log()
    log.event("started", "reads s3://key:secret@bucket/in", output="s3://key:secret@bucket/out")
    assert "secret" not in stream.getvalue()
    assert events(stream)[0]["output"] == "s3://bucket/out"


def test_run_logs_events_of_replicas_shards_and_requests() -> None:
    log, stream = json_log()
    progress = Progress(4, log=log, clock=Clock())
    info = ReplicaInfo("replica-0", "node-a", ("H100",) * 8, "1x8", 1, 1, 1, 64, 61.23456)
    progress.replica_ready("replica-0", info)
    progress.replica_ready("replica-1", None)
    progress.batch_retried(7)
    progress.replica_lost("replica-1", "killed")  # the pool has told this one, in words
    progress.shard_committed(5, 1000, 2)
    progress.replica_retired("replica-0", "no work was left for it")
    told = [
        {name: event[name] for name in event if name not in {"time", "run"}}
        for event in events(stream)
    ]
    assert told == [
        {
            "level": "info",
            "event": "replica_up",
            "replica": "replica-0",
            "node": "node-a",
            "load_s": 61.235,
            "mesh": "1x8",
        },
        {"level": "info", "event": "replica_up", "replica": "replica-1"},
        {"level": "warning", "event": "requests_retried", "requests": 7},
        {"level": "info", "event": "shard_committed", "shard": 5, "rows": 1000, "errors": 2},
        {
            "level": "info",
            "event": "replica_retired",
            "replica": "replica-0",
            "reason": "no work was left for it",
        },
    ]


def test_progress_as_json_has_the_figures_of_the_view() -> None:
    log, stream = json_log()
    progress = Progress(3, replicas=lambda: (1, 2), log=log, clock=Clock())
    list(progress.count([good(0), bad(1)]))
    progress.replica_stats("replica-0", ReplicaStats(busy_s=1, up_s=2))
    shown = io.StringIO()
    view = LiveView(log, stream=shown)
    with view, view.following(progress, next_phase="the end"):
        pass
    [event] = events(stream)
    assert shown.getvalue() == ""
    assert event["event"] == "progress"
    assert str(event["message"]).startswith("running | rows 2/3 (67%) | ")
    figures = {
        "rows": 2,
        "rows_total": 3,
        "tokens_in": 30,
        "tokens_out": 10,
        "errors": 1,
        "codes": {"empty_prompt": 1},
        "up": 1,
        "wanted": 2,
        "phase": "running",
    }
    assert {name: event[name] for name in figures} == figures
    assert "engine" not in event


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_log_as_json_is_valid_on_any_terminal(encoding: str) -> None:
    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding=encoding, errors="backslashreplace")
    message = "größe 数 \udcff"
    RunLog("json", stream=stream).event("note", message)
    assert json.loads(file.getvalue().decode(encoding))["message"] == message


def test_events_have_no_raw_control_character() -> None:
    hostile = "a\x1b[31m\r\n\x9b2J\u202e\U000e0001\ud800"
    stream = io.StringIO()
    RunLog(stream=stream).event("lost", f"replica {hostile}")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().rstrip("\n").isprintable()

    log, stream = json_log()
    log.event("lost", f"replica {hostile}", replica=hostile)
    assert stream.getvalue().rstrip("\n").isprintable()
    (event,) = events(stream)
    assert (event["message"], event["replica"]) == (f"replica {hostile}", hostile)


def test_results_have_no_raw_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    RunLog().result(None, "results  out\x1b[31m\n/https://u:secret@host/x?key=secret")
    assert capsys.readouterr().out == "results  out\\x1b[31m\\n/https://host/x?key=…\n"


def test_log_of_another_run_shares_the_stream() -> None:
    log, stream = json_log()
    log.of_run("other").event("a")
    log.event("b")
    assert [event["run"] for event in events(stream)] == ["other", "nightly-1a2b3c4d"]
