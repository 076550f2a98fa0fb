"""Writes files of worked examples, which evaluations read, from lm-evaluation-harness.

    make lm-eval
    .venv-lm-eval/bin/python jobs/evaluate_cot_shots.py -o DATA/gsm8k/cot_shots.jsonl
    .venv-lm-eval/bin/python jobs/evaluate_cot_shots.py --task bbh_cot_fewshot -o bbh_shots.jsonl

The worked examples are texts of other authors: they are copied from the harness's task files and
are not part of this repository.
"""

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

GSM8K_FILE = Path("tasks") / "gsm8k" / "gsm8k-cot.yaml"
BBH_FOLDER = Path("tasks") / "bbh" / "cot_fewshot"
GSM8K = "gsm8k_cot"
BBH = "bbh_cot_fewshot"
Example = dict[str, str]


@dataclass(frozen=True)
class ShotsConfig:
    """One call of jobs/evaluate_cot_shots.py."""

    output: str | None = flag(
        None,
        "the file to write, any URL: gsm8k/cot_shots.jsonl or bbh/cot_shots.jsonl below --data of "
        "jobs/evaluate.py",
        short="-o",
    )
    task: Literal["gsm8k_cot", "bbh_cot_fewshot"] = flag(
        "gsm8k_cot", "task or group whose worked examples are written"
    )
    harness: str | None = flag(
        None, "folder of the package lm_eval; default: the one that is installed"
    )


class _SafeLoader(yaml.SafeLoader):
    """Reads the harness's files without running what their `!function` tags name."""


_SafeLoader.add_constructor("!function", lambda _loader, node: str(node.value))


def worked_examples(package: Path, task: str) -> list[Example]:
    """Returns the worked examples in the harness's task files, with the keys that the task reads.

    Raises:
        ConfigError: there is no such file, or it holds no examples.
    """
    files = [package / GSM8K_FILE]
    if task == BBH:
        # files that start with an underscore are templates and groups
        files = sorted((package / BBH_FOLDER).glob("[!_]*.yaml"))
    if not files:
        raise ConfigError(
            f"{package / BBH_FOLDER} has no task files; expected lm-evaluation-harness 0.4.13"
        )
    examples: list[Example] = []
    for file in files:
        try:
            content: dict[str, Any] = yaml.load(
                file.read_text(encoding="utf-8"), Loader=_SafeLoader
            )
            examples += READERS[task](content)
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file} holds no worked examples of {task} ({quoted(error)}); expected "
                "lm-evaluation-harness 0.4.13"
            ) from error
    return examples


def _gsm8k_examples(content: dict[str, Any]) -> list[Example]:
    samples = content["fewshot_config"]["samples"]
    return [{"question": sample["question"], "answer": sample["target"]} for sample in samples]


def _bbh_examples(content: dict[str, Any]) -> list[Example]:
    examples = []
    for sample in content["fewshot_config"]["samples"]:
        example = {
            "task": content["task"].removeprefix(f"{BBH}_"),
            "description": content["description"],
            "input": sample["input"],
            "target": sample["target"],
        }
        examples.append(example)
    return examples


READERS: dict[str, Callable[[dict[str, Any]], list[Example]]] = {
    GSM8K: _gsm8k_examples,
    BBH: _bbh_examples,
}


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
        examples = worked_examples(package, config.task)
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
