import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import generate_dataset
from jobs.cli.parser import parse
from jobs.synthesis.config import GenerateConfig
from pipeline.errors import ConfigError
from tests.jobs.runs import ROOT


def test_config_has_every_documented_flag() -> None:
    section = (ROOT / "README.md").read_text().split("### Synthetic data")[1].split("\n### ")[0]
    named = set(
        re.findall(
            r"(?<![\w-])--([a-z][a-z-]*)", section + (ROOT / "docs" / "synthesis.md").read_text()
        )
    )
    flags = {field.name.replace("_", "-") for field in dataclasses.fields(GenerateConfig)}
    assert len(named) > 30
    assert named <= flags


def test_sample_configuration_is_valid_and_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = ["-C", str(ROOT / "jobs" / "configs" / "word_problems.yaml")]
    config = parse(GenerateConfig, file, program="x", description="")
    config.require("all")
    assert [spec.name for spec in config.template_specs()] == ["finds", "sum"]
    with pytest.raises(SystemExit) as ended:
        generate_dataset.main([*file, "--print-config"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["templates"] == config.templates
    assert printed["fields"] == {"answer": "int64"}


def test_config_reads_templates_from_files(tmp_path: Path) -> None:
    (tmp_path / "t.j2").write_text("{{ a }}\n")
    flags = [
        "--templates",
        json.dumps({"f": {"file": str(tmp_path / "t.j2"), "weight": 3}}),
        "-i",
        "x",
        "-o",
        "y",
        "--model",
        "demo",
    ]
    (spec,) = parse(GenerateConfig, flags, program="x", description="").template_specs()
    assert (spec.name, spec.text, spec.weight) == ("f", "{{ a }}\n", 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"limit": 0}, "--limit: expected at least 1, got 0"),
        ({"shots_per_row": 1001}, "--shots-per-row: expected from 0 to 1000, got 1001"),
        ({"max_replica_hours": -1.0}, "--max-replica-hours: expected at least 0, got -1.0"),
        ({"file_mb": 4097}, "--file-mb: expected from 1 to 4096, got 4097"),
        ({"examples": 101}, "--examples: expected from 0 to 100, got 101"),
        ({"shots_per_row": 2}, "--shots and --shots-per-row belong together"),
        ({"shots": "x.jsonl"}, "--shots and --shots-per-row belong together"),
        ({"dataset": ""}, "--dataset: expected the name of a folder"),
        ({"dataset": "a/b"}, "--dataset: expected the name of a folder"),
        ({"dataset": ".hidden"}, "--dataset: expected the name of a folder"),
        ({"dataset": "prompts"}, "--dataset: expected the name of a folder"),
        ({"n": 2, "temperature": 0.0}, "--n: 2 greedy samples are all the same"),
        ({"choose": "best"}, "there is one sample of each prompt to choose from"),
        ({"min_chars": -1}, "--min-chars: expected at least 0, got -1"),
    ],
)
def test_config_refuses_values_out_of_range(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="--") as raised:
        GenerateConfig(**flags)
    assert message in str(raised.value)


def test_config_accepts_choice_over_samples_of_an_existing_run() -> None:
    config = GenerateConfig(choose="best", completions="run", limit=1, examples=0, file_mb=4096)
    assert config.rules().choose == "best"
    assert config.layout().file_bytes == 4096 * 10**6


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, False),
        ({"target_rows": 1}, True),
        ({"max_total_tokens": 1}, True),
        ({"max_replica_hours": 0.0}, True),
    ],
)
def test_config_may_end_early_with_any_limit(flags: dict[str, Any], expected: bool) -> None:
    assert GenerateConfig(**flags).may_end_early is expected
