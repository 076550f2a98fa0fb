"""infra/observability: alerts, dashboard and docs use metrics that exist in a real Prometheus."""

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.run.metrics import COST_BUDGET, METRICS, PREFIX, RUN_INFO, RUNS_ENDED, RUNS_STARTED
from tests.infra.tools import program, python_with
from tests.jobs.runs import ROOT
from tests.ray_nodes import free_ports, running_cluster

FOLDER = ROOT / "infra" / "observability"
RULES, RULES_TEST = (
    FOLDER / "prometheus" / "grok-batch.rules.yml",
    FOLDER / "prometheus" / "grok-batch.rules.test.yml",
)
DASHBOARD = FOLDER / "grafana" / "grok-batch.json"
EVERY = (*METRICS, RUN_INFO, COST_BUDGET, RUNS_STARTED, RUNS_ENDED)
NAMES = {f"ray_{PREFIX}{metric.name}" for metric in EVERY}
APT = "apt-get install prometheus"


def named(text: str) -> set[str]:
    """Returns the metrics of this project that a text names."""
    return set(re.findall(rf"\bray_{PREFIX}\w+", text))


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions() -> dict[str, str]:
    """Returns what the panels ask for, by panel and legend, with Grafana's variables filled in."""
    found = {}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            filled = target["expr"].replace("$__rate_interval", "1m").replace('=~"$run"', '=~".*"')
            found[f"{panel['title']}: {target['refId']} {target['legendFormat']}"] = filled
    return found


def alerts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return found


# -- what is written -------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [RULES, RULES_TEST, DASHBOARD, ROOT / "docs" / "observability.md"],
    ids=lambda path: path.name,
)
def test_rules_and_panels_use_existing_metrics(path: Path) -> None:
    used = named(path.read_text())
    assert len(used) > 8
    assert used - NAMES == set()


def test_dashboard_shows_every_metric() -> None:
    assert NAMES - named(DASHBOARD.read_text()) == set()


def test_documentation_lists_every_metric() -> None:
    table = (ROOT / "docs" / "observability.md").read_text()
    for metric in EVERY:
        labels = ", ".join(f"`{label}`" for label in metric.labels[1:])
        row = f"| `ray_{PREFIX}{metric.name}` | {metric.metric_type} | "
        [line] = [line for line in table.splitlines() if line.startswith(row)]
        assert metric.help.rstrip(".") in line, (
            f"{metric.name}: the page says other than the code: {metric.help}"
        )
        assert not labels or labels in line


def test_alerts_are_complete_and_tested() -> None:
    tested = {
        case["alertname"]
        for test in yaml.safe_load(RULES_TEST.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    for alert in alerts():
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description"}
        assert "{{ $labels.run }}" in alert["annotations"]["summary"]
        assert f"`{alert['alert']}`" in (ROOT / "docs" / "observability.md").read_text()
    assert tested == {alert["alert"] for alert in alerts()}


def test_panels_fit_the_grid_and_have_descriptions() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    variables = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert variables == ["datasource", "run"]
    assert all(
        'run=~"$run"' in target["expr"] for panel in panels for target in panel.get("targets", [])
    )


SDK = """
import json, sys
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
plugins.register_default_plugins()
print(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(json.load(open(sys.argv[1])))))
"""
# keys of Prometheus' annotations and variables
BEYOND_SDK = {"titleFormat", "textFormat", "step", "definition"}


def lost(written: Any, understood: Any, path: str = "") -> Iterator[str]:
    """Yields what is in the file and not in what Grafana's model made of it."""
    if isinstance(written, dict):
        for key, value in written.items():
            if key not in understood:
                yield f"{path}.{key}"
            else:
                yield from lost(value, understood[key], f"{path}.{key}")
    elif isinstance(written, list):
        assert len(written) == len(understood), path
        for number, (one, other) in enumerate(zip(written, understood, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif written != understood:
        yield f"{path}: {written!r} became {understood!r}"


def test_dashboard_is_valid_for_grafana(tmp_path: Path) -> None:
    python = python_with("grafana_foundation_sdk")

    def through(content: dict[str, Any]) -> list[str]:
        (tmp_path / "dashboard.json").write_text(json.dumps(content))
        command = [python, "-c", SDK, str(tmp_path / "dashboard.json")]
        made = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        return [
            each
            for each in lost(content, json.loads(made))
            if each.rpartition(".")[2] not in BEYOND_SDK
        ]

    assert through(dashboard()) == []
    mistaken = dashboard()
    mistaken["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    assert through(mistaken) == [".panels[1].fieldConfig.defaults.units"]


# -- promtool --------------------------------------------------------------------------


def promtool(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [program("promtool", APT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def test_alert_rules_pass_promtool_tests() -> None:
    assert promtool("check", "config", FOLDER / "prometheus" / "prometheus.yml").returncode == 0
    done = promtool("test", "rules", RULES_TEST)
    assert done.returncode == 0, done.stdout + done.stderr


ALWAYS = (
    "ray_grok_batch_replicas_up or ray_grok_batch_cost_total "
    'or label_replace(vector(1), "run", "a", "", "")'
)


@pytest.mark.parametrize("expr", ["vector(0) > 1", ALWAYS], ids=["never", "always"])
def test_rule_that_never_or_always_fires_is_detected(expr: str, tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text())
    for rule in rules["groups"][0]["rules"]:
        rule |= {"expr": expr, "for": "0s"}
    (tmp_path / RULES.name).write_text(yaml.safe_dump(rules))
    (tmp_path / RULES_TEST.name).write_text(RULES_TEST.read_text())
    done = promtool("test", "rules", tmp_path / RULES_TEST.name)
    assert done.returncode == 1
    failed = set(re.findall(r"alertname: (\w+), time", done.stdout + done.stderr))
    assert failed == {alert["alert"] for alert in alerts()}, done.stdout + done.stderr


# -- a real Prometheus -----------------------------------------------------------------


class Prometheus:
    """A server with this repository's configuration, on the nodes of the cluster in `folder`."""

    def __init__(self, folder: Path, cluster: Path) -> None:
        self.port = free_ports(1)[0]
        config = (FOLDER / "prometheus" / "prometheus.yml").read_text()
        config = config.replace("interval: 10s", "interval: 1s").replace(
            "interval: 30s", "interval: 1s"
        )
        (folder / "prometheus.yml").write_text(config)
        (folder / RULES.name).write_text(RULES.read_text())
        (folder / "ray").symlink_to(cluster / "ray")
        self.command = [
            program("prometheus", APT),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        self.log = folder / "prometheus.log"

    @contextlib.contextmanager
    def running(self) -> Iterator["Prometheus"]:
        with self.log.open("w") as log:
            process = subprocess.Popen(self.command, stdout=log, stderr=log)
        try:
            yield self
        finally:
            process.terminate()
            process.wait(30)

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def values(self, expr: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query", query=expr)["result"]
        return found


JOB = """
input: jobs/demo/prompts.parquet
model: demo
max_tokens: 8
max_len: 64
batch_tokens: 256
shard_rows: 50
max_error_rate: 0.5
log_format: json
cost_per_replica_hour: 36
cost_budget: 0.01
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_panels_show_data_of_a_run_in_prometheus(
    tmp_path: Path,
) -> None:
    """Found by Ray's own service discovery; asked while the run goes on, and after its end."""
    program("prometheus", APT)
    (tmp_path / "job.yaml").write_text(JOB)
    fast = {"RAY_metrics_report_interval_ms": "1000"}
    with (
        running_cluster(nodes=1, **fast) as cluster,
        Prometheus(tmp_path, cluster.folder).running() as prometheus,
    ):
        flags = ["-C", str(tmp_path / "job.yaml")]
        flags += ["-o", str(tmp_path / "night")]
        command = [sys.executable, "tests/infra/metrics_job.py", *flags]
        with (tmp_path / "log").open("w") as log:
            env = cluster.env | {"RAY_ADDRESS": cluster.gcs}
            job = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=log
            )
        seen: dict[str, dict[str, Any]] = {}
        empty, firing = dict(expressions()), set[str]()
        while job.poll() is None:
            time.sleep(1)
            with contextlib.suppress(OSError):
                seen |= {
                    each["metric"]["__name__"]: each
                    for each in prometheus.values(f'{{__name__=~"ray_{PREFIX}.*"}}')
                }
                empty = {name: expr for name, expr in empty.items() if not prometheus.values(expr)}
                firing |= {
                    each["labels"]["alertname"] for each in prometheus.ask("alerts")["alerts"]
                }
        time.sleep(3)
        empty = {name: expr for name, expr in empty.items() if not prometheus.values(expr)}
        ended = prometheus.values("ray_grok_batch_runs_ended_total")
        health = {
            rule["name"]: rule["health"]
            for group in prometheus.ask("rules")["groups"]
            for rule in group["rules"]
        }
        total = {
            each["metric"]["code"]: float(each["value"][1])
            for each in prometheus.values("ray_grok_batch_errors_total")
        }
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    said = (tmp_path / "log").read_text() + prometheus.log.read_text()
    assert job.returncode == 3, said
    assert NAMES - set(seen) <= {f"ray_{PREFIX}{RUNS_ENDED.name}"}, said
    run = {event["run"] for event in events}
    assert {each["metric"]["run"] for each in seen.values()} == run
    assert empty == {}, said
    assert {"GrokBatchReplicasLost", "GrokBatchErrorRate", "GrokBatchCostOverBudget"} <= firing
    assert set(health.values()) == {"ok"}
    assert [(each["metric"]["outcome"], each["value"][1]) for each in ended] == [
        ("row_errors", "1")
    ]
    report = json.loads((tmp_path / "night" / "report.json").read_text())
    assert total == report["errors_by_code"]
    told = [event["event"] for event in events]
    assert told[0] == "started"
    assert told[-1] == "finished"
    assert told.count("shard_committed") == report["rows"]["shards_committed"] == 6
    assert {"replica_up", "requests_retried", "progress", "results", "cluster"} <= set(told)
