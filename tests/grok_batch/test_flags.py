"""flags.py: functions show the flags of their configuration."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import grok_batch
from jobs.evaluation.config import EvaluateConfig
from jobs.planning.config import PlanConfig
from jobs.run.config import ScoreConfig
from jobs.synthesis.config import GenerateConfig


@pytest.mark.parametrize(
    ("function", "config_class"),
    [
        (grok_batch.score, ScoreConfig),
        (grok_batch.evaluate, EvaluateConfig),
        (grok_batch.generate, GenerateConfig),
        (grok_batch.plan, PlanConfig),
    ],
)
def test_signature_and_docstring_have_every_flag(
    function: Callable[..., Any], config_class: type[Any]
) -> None:
    parameters = inspect.signature(function).parameters
    assert "flags" not in parameters
    for field in dataclasses.fields(config_class):
        parameter = parameters[field.name]
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert parameter.default in (field.default, {})
            assert field.metadata["help"] in str(function.__doc__)


def test_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'scores'"):
        grok_batch.scores  # noqa: B018
    assert {"score", "Run", "ConfigError"} <= set(dir(grok_batch))
