"""help_topics.py: `--help` starts with the flags people need first, and has each flag once."""

import dataclasses
import re

import pytest

from jobs.cli.flag_checks import flag_name
from jobs.cli.help_topics import FIRST, topics_of
from jobs.cli.parser import parse
from jobs.evaluation.config import EvaluateConfig
from jobs.run.config import ScoreConfig
from jobs.synthesis.config import GenerateConfig

CONFIGS = (ScoreConfig, EvaluateConfig, GenerateConfig)


def test_fields_are_grouped_once_in_the_order_of_topics() -> None:
    topics = {"first": ("b", "absent"), "second": ("b", "a"), "empty": ("absent",)}
    grouped = topics_of(topics, ("a", "b", "c"))
    assert grouped == {"first": ["b"], "second": ["a"], "other flags": ["c"]}
    assert list(grouped) == ["first", "second", "other flags"]


def test_fields_without_topics_are_one_group() -> None:
    assert topics_of({}, ("a", "b")) == {"other flags": ["a", "b"]}


@pytest.mark.parametrize("config_class", CONFIGS)
def test_every_flag_of_a_command_has_a_topic(config_class: type) -> None:
    fields = tuple(field.name for field in dataclasses.fields(config_class))
    grouped = topics_of(config_class.HELP_TOPICS, fields)
    assert "other flags" not in grouped
    assert next(iter(grouped)) == FIRST
    assert len(grouped[FIRST]) == 10
    listed = [name for names in grouped.values() for name in names]
    assert sorted(listed) == sorted(fields)


@pytest.mark.parametrize("config_class", CONFIGS)
def test_help_shows_each_flag_below_its_topic(
    config_class: type, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(config_class, ["--help"], program="job", description="A job.")
    sections = re.split(r"^(\S.*):$", capsys.readouterr().out, flags=re.MULTILINE)
    text_of = dict(zip(sections[1::2], sections[2::2], strict=True))
    fields = tuple(field.name for field in dataclasses.fields(config_class))
    for title, names in topics_of(config_class.HELP_TOPICS, fields).items():
        for name in names:
            assert re.search(rf"^  .*{flag_name(name)}\b", text_of[title], re.MULTILINE)
