"""Values of data sets and secrets of URLs in everything that commands print and write. No Ray."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import convert_checkpoint, evaluate, generate_dataset, score_dataset, verify_checkpoint
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import table

CODES = "\x1b[31mred\x1b[0m\r\n\x9b2J\x07\u202e\u2028"
LONG = "long value " * 1000
HOSTILE = CODES + LONG
SECRET = "s3cr3t"
URLS = (
    f"unknown://user:{SECRET}/{SECRET}@{SECRET}@host/x",
    f"unknown://host/x?access_token={SECRET}&api_key={SECRET}",
    f"unknown://host/x?key={SECRET}",
    f"unknown://host/x?password={SECRET}&private_token={SECRET}&sig={SECRET}",
)
ROWS: list[dict[str, Any]] = [
    {"prompt": "2 + 3 =", "temperature": HOSTILE},
    {"prompt": "2 + 3 =", "stop": {HOSTILE: 1}},
    {"prompt": "2 + 3 =", "max_tokens": [HOSTILE]},
    {"prompt": "2 + 3 =", "logit_bias": json.dumps({HOSTILE: 1})},
    {"prompt": "2 + 3 =", "allowed_token_ids": HOSTILE},
    {"prompt": {HOSTILE: HOSTILE}},
    {"prompt": [HOSTILE]},
    {"prompt": None},
    {
        "prompt": "2 + 3 =",
        "temperature": 0.5,
        "stop": "x",
        "max_tokens": 3,
        "logit_bias": '{"5": 1}',
        "allowed_token_ids": [8, 9],
    },
]


def check_lines(text: str) -> None:
    """Checks that a text has no control character but line breaks, and no long value."""
    for line in text.split("\n"):
        assert line.replace("\xa0", " ").isprintable(), line[:200]
        assert LONG[:400] not in line


def test_hostile_rows_reach_no_message_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    lines = [json.dumps({"id": f"{CODES}{n}", **row}) for n, row in enumerate(ROWS)]
    source.write_text("\n".join([*lines, "{" + json.dumps(HOSTILE)]))
    words = ["-i", str(source), "-o", str(tmp_path / "out"), "--model", "demo"]
    words += ["--max-tokens", "4", "--max-error-rate", "1"]
    assert score_dataset.main(words, FakeBackend()) == 3
    said = capsys.readouterr()
    check_lines(said.err)
    check_lines(said.out)

    messages = table(tmp_path / "out")["error_message"].to_pylist()
    assert len([message for message in messages if message]) == len(ROWS)
    for message in filter(None, messages):
        check_lines(message)
        assert "\n" not in message

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for examples in report["error_examples"].values():
        for example in examples:
            check_lines(f"{example['id']}{example['message']}")
    check_lines((tmp_path / "out" / "report.html").read_text())


@pytest.mark.parametrize(
    "flag",
    [
        "--input", "--model", "--checkpoint", "--tokenizer", "--task", "--replicas", "--mesh",
        "--partition", "--prompt-column", "--id-column", "--max-tokens", "--temperature",
        "--logit-bias", "--allowed-token-ids", "--dtype", "--resume", "--zork",
    ],
)  # fmt: skip
def test_hostile_flags_reach_no_message_raw(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"prompt": "2 + 3 ="}))
    words = ["-o", str(tmp_path / "out"), "--model", "demo", f"{flag}={HOSTILE}"]
    if flag != "--input":
        words += ["-i", str(source)]
    assert score_dataset.main(words, FakeBackend()) == 2
    said = capsys.readouterr()
    check_lines(said.err + said.out)
    assert said.err.splitlines()[-1].startswith("error: ")
    assert len(said.err.splitlines()[-1]) < 2500


@pytest.mark.parametrize("url", URLS)
def test_secrets_of_urls_reach_no_message(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"prompt": "2 + 3 ="}))
    demo = ["--model", "demo", "--max-tokens", "4"]
    score_words = ["-i", str(source), "-o", str(tmp_path / "out"), *demo]
    for flag in ("-i", "-o", "--checkpoint", "--tokenizer", "--model", "--zork"):
        words = [*score_words, flag, url]
        if flag in ("-i", "-o"):
            words = [word for word in words if word not in {str(source), str(tmp_path / "out")}]
            words = [word for word in words if word not in {"-i", "-o"}]
            words += ["-i", url, "-o", url]
        assert score_dataset.main(words, FakeBackend()) == 2
    assert verify_checkpoint.main(["--checkpoint", url, "--model", "demo"]) == 2
    assert convert_checkpoint.main(["--source", url, "--target", url, "--model", "demo"]) == 2
    assert evaluate.main(["--tasks", "mmlu", "--data", url, "-o", str(tmp_path), *demo[:2]]) == 2
    generate = ["-i", url, "-o", str(tmp_path / "made"), "--templates.t", "x", *demo]
    assert generate_dataset.main(generate, FakeBackend()) == 2
    said = capsys.readouterr()
    assert "error: " in said.err
    assert SECRET not in said.err + said.out
