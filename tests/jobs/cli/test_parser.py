import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.protocol.sampling import SamplingParams
from jobs import evaluate, generate_dataset, score_dataset
from jobs.cli.parser import parse, read_values
from jobs.run.config import ScoreConfig
from pipeline.errors import ConfigError


def read(*arguments: str) -> ScoreConfig:
    return parse(ScoreConfig, arguments, program="score_dataset.py", description="test")


BASE = ("-i", "in.parquet", "-o", "out", "--model", "demo")


def test_defaults_are_those_of_the_interface() -> None:
    config = read(*BASE)
    expected: dict[str, Any] = {
        "input": "in.parquet",
        "output": "out",
        "task": "generate",
        "prompt_column": "prompt",
        "id_column": "id",
        "max_tokens": None,
        "temperature": 0.0,
        "n": 1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "repetition_max_pattern": 0,
        "logprobs": 0,
        "prompt_logprobs": None,
        "dtype": "bfloat16",
        "on_overflow": "error",
        "resume": "auto",
        "retry_failed": False,
        "max_error_rate": 0.01,
        "max_attempts": 3,
        "stop": (),
        "dry_run": False,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert (config.replica_range(), config.mesh_shape(), config.partition_pair()) == (
        (1, 1),
        (1, 1),
        (0, 1),
    )
    assert read("-i", "a", "-o", "b", "--checkpoint", "c").mesh_shape() == (1, 8)
    assert config.sampling_params() == SamplingParams(), (
        "flags and rows without columns have the same defaults"
    )


def test_boolean_flag_needs_no_value() -> None:
    assert read(*BASE, "--dry-run").dry_run
    assert read(*BASE, "--dry-run", "true", "--ignore-eos").ignore_eos
    assert not read(*BASE, "--dry-run", "false").dry_run


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "input: a\noutput: b\nmodel: demo\nmax_tokens: 5\nstop: [x, y]\nretry_failed: "
        "true\nlogprobs: null\n"
    )
    config = read("-C", str(file), "--max-tokens", "7")
    assert (config.max_tokens, config.stop, config.retry_failed) == (7, ("x", "y"), True)
    assert config.logprobs is None
    assert read("-C", str(file), "--stop", "Q:", "--stop", "</s>").stop == ("Q:", "</s>")
    assert read(*BASE, "--stop", "[1]", "--retry-failed", "false").stop == ("[1]",)


@pytest.mark.parametrize("words", ["2", "2:8", "1:59"])
def test_replicas_of_flag_and_file_are_equal(words: str, tmp_path: Path) -> None:
    """YAML 1.1 reads 2:8 as the number 128, in base 60."""
    file = tmp_path / "job.yaml"
    file.write_text(f"replicas: {words}\n")
    low, _, high = words.partition(":")
    expected = (int(low), int(high or low))
    assert read(*BASE, "--replicas", words).replica_range() == expected
    assert read("-C", str(file), *BASE).replica_range() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--zork", "1"), "unrecognized arguments: --zork 1"),
        (("--max-tokens", "x"), "--max-tokens: expected int, got x"),
        (("--max-tokens", "0"), "--max-tokens: expected an integer of at least 1, got 0"),
        (("--dry-run", "maybe"), "--dry-run: Expected a bool. Got value: maybe"),
        (
            ("--task", "chat"),
            "--task: expected one of generate, score, perplexity, embed, teach, got 'chat'",
        ),
        (
            ("--allowed-token-ids", "x"),
            "^--allowed-token-ids: expected a list of token ids, got 'x'",
        ),
        (("--logit-bias", "5"), "^--logit-bias: expected a map from token ids or text to numbers"),
        (("-i",), "^--input: expected one argument"),
        (("--stop",), "^--stop: expected one argument"),
        (("--replicas", "3:2"), "--replicas: expected 1 <= MIN <= MAX, got 3:2"),
        (("--replicas", "many"), "--replicas: expected MIN or MIN:MAX"),
        (("--mesh", "8"), "--mesh: expected DATAxMODEL, e.g. 1x8, got '8'"),
        (("--partition", "4/4"), "--partition: expected 0 <= I < N, got 4/4"),
        (("--top-p", "0"), "--top-p: expected a number above 0 and up to 1, got 0"),
        (("--temperature", "nan"), "--temperature: .*nan"),
        (("--min-p", "1.5"), "--min-p: expected a number from 0 to 1, got 1.5"),
        (("--min-p", "nan"), "--min-p: .*nan"),
        (
            ("--repetition-penalty", "0"),
            "--repetition-penalty: expected a number from 0.01 to 100, got 0",
        ),
        (
            ("--repetition-max-pattern", "5000"),
            "--repetition-max-pattern: expected an integer from 0 to 1024, got 5000",
        ),
        (
            ("--repetition-min-count", "1"),
            "--repetition-min-count: expected an integer of at least 2, got 1",
        ),
        (("--max-error-rate", "2"), "--max-error-rate: expected from 0 to 1, got 2"),
        (("--task", "score", "--n", "2"), "--n: expected 1 for task score"),
        (("--model", "grok-1"), "--checkpoint is missing"),
        (("--input", ""), "--input is missing"),
        (("-C", "no-such-file.yaml"), "no-such-file.yaml"),
    ],
)
def test_invalid_flags_are_one_line_errors(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(*BASE, *arguments)
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_the_file_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: a\nmaxtokens: 5\n")
    with pytest.raises(ConfigError, match="maxtokens"):
        read("-C", str(file))


def test_print_config_reproduces_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*BASE, "--max-tokens", "5", "--stop", "Q:", "--replicas", "2:8", "--print-config")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["max_tokens"] == 5
    file = tmp_path / "again.yaml"
    file.write_text(printed)
    assert read("-C", str(file)) == read(
        *BASE, "--max-tokens", "5", "--stop", "Q:", "--replicas", "2:8"
    )


def test_help_lists_the_choices_of_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    assert "--task {generate,score,perplexity,embed,teach}" in capsys.readouterr().out


def test_help_states_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = capsys.readouterr().out
    for words in (
        "--batch-tokens",
        "auto: 8192",
        "--shard-rows",
        "default: 1000",
        "--max-error-rate",
        "default: 0.01",
    ):
        assert words in text
    assert text.startswith("usage: score_dataset.py [-C FILE] [--flag VALUE …]\n\n")
    assert " at 0x" not in text, "a type is named, not shown as Python does"


@pytest.mark.parametrize(
    ("job", "flags"),
    [
        (score_dataset, ("--max-tokens", "4")),
        (evaluate, ("prompts", "--tasks", "zork", "--data", "{0}")),
        (generate_dataset, ("--templates.t", "x", "--max-tokens", "4")),
    ],
)
def test_jobs_report_errors_in_the_log_format(
    job: Any, flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(tmp_path) for word in flags]
    words += ["-o", str(tmp_path / "out"), "--model", "demo"]
    words += [] if job is evaluate else ["-i", str(tmp_path / "nowhere.parquet")]
    assert job.main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert job.main([*words, "--log-format", "json"]) == 2
    said = capsys.readouterr()
    told = {each["event"]: each for each in map(json.loads, said.err.splitlines())}
    assert said.out == ""
    assert (told["error"]["level"], told["error"]["exit_code"]) == ("error", 2)
    assert told["error"]["run"].startswith("out-")
    assert {"ConfigError", "DatasetError"} >= {told["error"]["error"]}


@pytest.mark.parametrize(
    ("words", "lines", "name", "expected"),
    [
        (["5,6"], "[5, 6]", "allowed_token_ids", (5, 6)),
        (["5", "[6, 7]"], "[5, 6, 7]", "stop_token_ids", (5, 6, 7)),
        (['{"5": -1, " yes": 3}'], '{5: -1, " yes": 3}', "logit_bias", ((5, -1.0), (" yes", 3.0))),
        (['{"5": 1}', '{"6": 2}'], "[[5, 1], [6, 2]]", "logit_bias", ((5, 1.0), (6, 2.0))),
        (["a b", "c"], "[a b, c]", "bad_words", ("a b", "c")),
    ],
)
def test_items_of_a_parameter_come_from_flags_and_file(
    words: list[str], lines: str, name: str, expected: object, tmp_path: Path
) -> None:
    flags = [part for word in words for part in (f"--{name.replace('_', '-')}", word)]
    assert getattr(read(*BASE, *flags).sampling_params(), name) == expected
    file = tmp_path / "job.yaml"
    file.write_text(f"{name}: {lines}\n")
    assert getattr(read("-C", str(file), *BASE).sampling_params(), name) == expected


def test_words_that_are_not_utf_8_are_refused() -> None:
    assert read("-i", "größe", "-o", "出力", "--model", "demo").output == "出力"
    message = r"the command line has bytes that are not UTF-8: r\\udcffn; rename the file"
    with pytest.raises(ConfigError, match=message):
        read("-i", "in.parquet", "-o", "r\udcffn", "--model", "demo")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_job_file_that_is_not_utf_8_is_refused(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: größe.parquet\n", encoding=encoding)
    with pytest.raises(ConfigError, match=r"--config: the file is not UTF-8 text \(byte 0x"):
        read("-C", str(file), *BASE)


def test_values_of_python_are_read_like_a_file() -> None:
    values: dict[str, Any] = {"input": Path("in.parquet"), "output": "out", "model": "demo"}
    values |= {"stop": ("a", "b"), "max_tokens": 8, "replicas": "2:8", "logit_bias": {"5": 1.0}}
    config = read_values(ScoreConfig, values)
    assert (config.input, config.stop, config.max_tokens) == ("in.parquet", ("a", "b"), 8)
    assert (config.replica_range(), config.logit_bias) == ((2, 8), ([5, 1.0],))
    same = read(*BASE, "--stop", "a", "--stop", "b", "--max-tokens", "8", "--replicas", "2:8")
    assert config.temperature == same.temperature
    with pytest.raises(ConfigError, match="did you mean max_tokens"):
        read_values(ScoreConfig, values | {"max_token": 8})
