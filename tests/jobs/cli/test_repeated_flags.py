"""Flags and keys that are given twice or that do not exist."""

from pathlib import Path

import pytest

from jobs.cli.parser import parse
from jobs.run.config import ScoreConfig
from pipeline.errors import ConfigError

BASE = ("-o", "out", "--model", "demo")


def read(*arguments: str) -> ScoreConfig:
    return parse(ScoreConfig, arguments, program="score_dataset.py", description="")


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("-i", "a", "-i", "b"), "--input"),
        (("-i", "a", "--input", "b"), "--input"),
        (("--input=a", "-i", "b"), "--input"),
        (("-i", "a", "-o", "elsewhere"), "--output"),
    ],
)
def test_second_input_or_output_is_refused(words: tuple[str, ...], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag}: expected one file, folder or glob, got '"):
        read(*BASE, *words)


def test_equal_values_of_a_flag_are_accepted() -> None:
    assert read(*BASE, "-i", "a", "-i", "a", "--max-len", "8", "--max-len", "8").input == "a"
    assert read(*BASE, "-i", "a", "--stop", "x", "--stop", "y").stop == ("x", "y")


def test_last_value_of_other_flags_counts() -> None:
    assert read(*BASE, "-i", "a", "--max-len", "8", "--max-len=9").max_len == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input: a\ninput: b\n", "key 'input' is set twice, in lines 1 and 2; remove one"),
        ("max_tokens: 8\nstop: x\nmax-tokens: 9\n", "key 'max_tokens' .*lines 1 and 3"),
        ("stop: [{a: 1, a: 2}]\n", "key 'a' is set twice, in lines 1 and 1"),
    ],
)
def test_key_that_stands_twice_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    for words in (("-C", str(file)), (f"--config={file}",)):
        with pytest.raises(ConfigError, match=message):
            read(*BASE, "-i", "a", *words)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--max-new-tokens", "--max-tokens"),
        ("--temprature", "--temperature"),
        ("--max_tokens", "--max-tokens"),
        ("--maxTokens", "--max-tokens"),
        ("--stop-sequences", "--stop"),
        ("--output-dir", None),
        ("--zork", None),
    ],
)
def test_unknown_flag_is_refused_with_a_similar_one(word: str, hint: str | None) -> None:
    with pytest.raises(ConfigError, match="unrecognized arguments: --") as caught:
        read(*BASE, "-i", "a", word, "1")
    if hint is None:
        assert "did you mean" not in str(caught.value)
    else:
        assert f"; did you mean {hint}?; see --help" in str(caught.value)


def test_unknown_key_is_refused_with_a_similar_one(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("max_new_tokens: 5\n")
    with pytest.raises(ConfigError, match=r"'max_new_tokens' .*did you mean max_tokens\?"):
        read("-C", str(file))
