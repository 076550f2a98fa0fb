"""Writes gsm8k/cot_shots.jsonl, which evaluations read, from an installed lm-evaluation-harness.

    make lm-eval
    .venv-lm-eval/bin/python jobs/evaluate_cot_shots.py -o DATA/gsm8k/cot_shots.jsonl

The worked examples are texts of other authors: they are copied from the harness's task file of
gsm8k_cot and are not part of this repository.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from actors.protocol.plain_text import quoted

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.errors import GrokBatchError
from jobs.cli.command import run_main
from jobs.cli.flag_checks import require_flags
from jobs.cli.parser import flag, parse
from jobs.cli.uploaded_folder import check_output_is_kept
from pipeline import storage
from pipeline.errors import ConfigError

TASK_FILE = Path("tasks") / "gsm8k" / "gsm8k-cot.yaml"


@dataclass(frozen=True)
class ShotsConfig:
    """One call of jobs/evaluate_cot_shots.py."""

    output: str | None = flag(
        None,
        "the file to write, any URL: gsm8k/cot_shots.jsonl below --data of jobs/evaluate.py",
        short="-o",
    )
    harness: str | None = flag(
        None, "folder of the package lm_eval; default: the one that is installed"
    )


class _SafeLoader(yaml.SafeLoader):
    """Reads the harness's files without running what their `!function` tags name."""


_SafeLoader.add_constructor("!function", lambda _loader, node: str(node.value))


def worked_examples(package: Path) -> list[dict[str, str]]:
    """Returns question and answer of each worked example in the harness's task file.

    Raises:
        ConfigError: there is no such file, or it holds no examples.
    """
    file = package / TASK_FILE
    try:
        task: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=_SafeLoader)
        examples = [
            {"question": sample["question"], "answer": sample["target"]}
            for sample in task["fewshot_config"]["samples"]
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file} holds no worked examples of gsm8k_cot ({quoted(error)}); expected "
            "lm-evaluation-harness 0.4.13"
        ) from error
    return examples


def main(arguments: Sequence[str]) -> int:
    """Writes the file of a command line and returns the exit code."""
    try:
        config = parse(
            ShotsConfig,
            arguments,
            program="evaluate_cot_shots.py",
            description=str(__doc__).split("\n\n", maxsplit=1)[0],
        )
        require_flags(config, ["output"])
        check_output_is_kept(config, ["output"])
        output = str(config.output)
        package = Path(config.harness) if config.harness else _installed_package()
        examples = worked_examples(package)
        lines = ""
        for example in examples:
            lines += json.dumps(example, ensure_ascii=False) + "\n"
        storage.overwrite(output, lines.encode())
    except GrokBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {config.output}: {len(examples)} worked examples")
    return 0


def _installed_package() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "lm-evaluation-harness is not installed for this interpreter; run make lm-eval and "
            "start this script with .venv-lm-eval/bin/python, or name the folder of the package "
            "with --harness"
        )
    return Path(spec.origin).parent


if __name__ == "__main__":
    run_main(main)
