"""jobs/evaluate_cot_shots.py: worked examples from a task files of the harness, with our texts."""

from pathlib import Path

import pytest

from jobs.evaluate_cot_shots import main
from pipeline.evals.data_folder import DataFolder

TASK = """
task: gsm8k_cot
process_docs: !function utils.boom
fewshot_config:
  samples:
  - question: How many are 2 and
      3?
    target: They are 5. The answer is 5.
  - {question: "Ein Stück?", target: "The answer is 1."}
"""


def test_job_writes_shots_that_evaluations_read(tmp_path: Path) -> None:
    file = tmp_path / "lm_eval" / "tasks" / "gsm8k" / "gsm8k-cot.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(TASK)
    assert (
        main(
            [
                "-o",
                str(tmp_path / "gsm8k" / "cot_shots.jsonl"),
                "--harness",
                str(tmp_path / "lm_eval"),
            ]
        )
        == 0
    )
    assert DataFolder(str(tmp_path)).json_lines(
        "gsm8k/cot_shots.jsonl", ("question", "answer")
    ) == [
        {"question": "How many are 2 and 3?", "answer": "They are 5. The answer is 5."},
        {"question": "Ein Stück?", "answer": "The answer is 1."},
    ]


def test_job_writes_shots_of_every_task_of_bbh(tmp_path: Path) -> None:
    folder = tmp_path / "lm_eval" / "tasks" / "bbh" / "cot_fewshot"
    folder.mkdir(parents=True)
    (folder / "_bbh.yaml").write_text("group: bbh\n")
    (folder / "navigate.yaml").write_text(
        "task: bbh_cot_fewshot_navigate\n"
        'description: "Turn around.\\n\\n"\n'
        "fewshot_config:\n"
        '  samples: [{input: "Left?", target: We turn. So the answer is no.}]\n'
    )
    output = tmp_path / "bbh" / "cot_shots.jsonl"
    arguments = ["--task", "bbh_cot_fewshot", "-o", str(output)]
    assert main([*arguments, "--harness", str(tmp_path / "lm_eval")]) == 0
    assert DataFolder(str(tmp_path)).json_lines(
        "bbh/cot_shots.jsonl", ("task", "description", "input", "target")
    ) == [
        {
            "task": "navigate",
            "description": "Turn around.\n\n",
            "input": "Left?",
            "target": "We turn. So the answer is no.",
        }
    ]


def test_missing_examples_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--harness", str(tmp_path)]) == 2
    assert main(["-o", str(tmp_path / "x"), "--harness", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "--output is missing" in said
    assert "holds no worked examples of gsm8k_cot" in said
    assert "gsm8k-cot.yaml" in said
