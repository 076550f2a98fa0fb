"""Runs any task of lm-evaluation-harness through the main job. Needs `make lm-eval`.

    .venv-lm-eval/bin/python jobs/evaluate_lm_eval.py --tasks arc_easy,lambada_openai -o RUN
        [flags of the model]

The harness makes the requests and the metrics; `GrokBatchLM` answers the requests. Requests of one
type are one run folder below the output, named by a digest of its rows: the same command again
continues.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

try:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError as absent:
    if absent.name != "lm_eval" or __name__ != "__main__":
        raise
    print(
        "error: lm-evaluation-harness is not installed here; make lm-eval, then "
        ".venv-lm-eval/bin/python jobs/evaluate_lm_eval.py",
        file=sys.stderr,
    )
    sys.exit(2)

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.errors import GrokBatchError
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.flag_checks import require_flags
from jobs.cli.model_flags import ModelFlags
from jobs.cli.parser import flag, parse
from jobs.cli.uploaded_folder import check_output_is_kept
from jobs.run.backend import RAY, Backend
from jobs.run.execute import run_job
from jobs.run.models import model_config
from jobs.run.plan import DEMO
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.evals.requests import JobTask
from pipeline.input import formats
from pipeline.output.publication import to_parquet
from pipeline.requests.tokenizer import Tokenizer
from pipeline.storage.redaction import redact_credentials

MAX_TOKENS = 256  # tokens of a completion if the task sets none: the default of the harness
KNOWN_OPTIONS = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"})
RESULTS = ("results", "groups", "versions", "n-shot", "n-samples")  # keys of results.json
Ids = list[int]


@dataclass(frozen=True)
class HarnessConfig(ModelFlags):
    """One call of jobs/evaluate_lm_eval.py."""

    tasks: tuple[str, ...] = flag(
        (), "names of the harness's tasks, separated by commas, repeatable"
    )
    output: str | None = flag(
        None,
        "run folder: a main-job run per kind of request, and results.json; any URL",
        short="-o",
    )
    include_path: str | None = flag(None, "folder with further task files of the harness")
    num_fewshot: int | None = flag(None, "shots; default: the task's")
    limit: int | None = flag(None, "only the first N documents of each task")
    prefix_token: int | None = flag(
        None, "id before a text without context; default: the model's end-of-text"
    )

    def task_names(self) -> list[str]:
        """Returns the names of --tasks, without those that are empty."""
        names = ",".join(self.tasks).split(",")
        return [name.strip() for name in names if name.strip()]


class GrokBatchLM(LM):  # type: ignore[misc]  # the package is optional: mypy does not see it
    """The harness's model interface over the main job.

    Every method takes all requests of its kind and returns their answers in order. A row that fails
    raises DatasetError: the harness cannot represent it, and a metric without some rows is wrong.
    """

    def __init__(self, config: HarnessConfig, backend: Backend = RAY) -> None:
        """Reads the tokenizer; starts nothing.

        Raises:
            ConfigError: output or tokenizer are missing.
        """
        super().__init__()
        require_flags(config, ["output"])
        check_output_is_kept(config, ["output"])
        tokenizer_url = config.tokenizer
        if not tokenizer_url and config.model == "demo":
            tokenizer_url = str(DEMO / "tokenizer.model")
        if not tokenizer_url:
            raise ConfigError("--tokenizer is missing: the harness hands over text")
        model = model_config(config.model)
        self._config = config
        self._output = str(config.output)
        self._backend = backend
        self._tokenizer = Tokenizer(storage.read(tokenizer_url)[0])
        self._prefix = model.eos_token if config.prefix_token is None else config.prefix_token
        self._max_len = config.max_len or model.sequence_len

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Returns log-likelihood and whether it is greedy, of each (context, continuation)."""
        pairs = [self._encoded_pair(*request.args) for request in requests]
        return [(row["loglikelihood"], row["is_greedy"]) for row in self._score(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Returns the log-likelihood of each text.

        A text is split into windows of the greatest length, so that each token is scored once.
        """
        texts = self._tokenizer.encode([request.args[0] for request in requests])
        windows: list[tuple[Ids, Ids]] = []
        text_numbers: list[int] = []  # of each window
        for number, ids in enumerate(texts):
            for pair in get_rolling_token_windows(ids, self._prefix, self._max_len - 1, 1):
                windows.append(make_disjoint_window(pair))
                text_numbers.append(number)

        totals = [0.0] * len(requests)
        for number, row in zip(text_numbers, self._score(windows), strict=True):
            totals[number] += row["loglikelihood"]
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Returns the completion of each (context, options), up to its first stop string."""
        contexts = self._tokenizer.encode([request.args[0] for request in requests])
        rows = []
        for number, (ids, request) in enumerate(zip(contexts, requests, strict=True)):
            prompt = ids or [self._prefix]
            sampling = _sampling(request.args[1])
            rows.append({"id": number, "prompt_token_ids": prompt, **sampling})
        return [row["text"] for row in self._run("generate", rows, ("text",))]

    def _encoded_pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Returns the ids of context and continuation, which are encoded together and then split.

        White space that ends the context begins the continuation.
        """
        text = context + continuation
        stripped_context = context.rstrip()
        if not stripped_context:
            return [self._prefix], self._tokenizer.encode([text])[0]
        context_ids, text_ids = self._tokenizer.encode([stripped_context, text])
        return context_ids, text_ids[len(context_ids) :]

    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[dict[str, Any]]:
        rows = [
            {"id": number, "prompt_token_ids": context, "continuation_token_ids": continuation}
            for number, (context, continuation) in enumerate(pairs)
        ]
        return self._run("score", rows, ("loglikelihood", "is_greedy"))

    def _run(
        self, job_task: JobTask, rows: Sequence[Mapping[str, Any]], results: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Runs rows through the main job and returns their results in order."""
        if not rows:
            return []
        data = to_parquet(pa.Table.from_pylist(list(map(dict, rows))))
        digest = hashlib.blake2b(data, digest_size=8).hexdigest()
        folder = storage.join(self._output, f"{job_task}-{digest}")
        requests_url = f"{folder}.parquet"
        storage.put_if_absent(requests_url, data)
        main_job = self._config.score_config(job_task, requests_url, folder)
        code = run_job(main_job, self._backend)
        if not code.is_complete:
            raise DatasetError(
                f"the run in {folder} ended with exit code {code}; its message is above"
            )

        columns = ("id", "status", "error_code", "error_message", *results)
        output_rows = _read(storage.join(folder, "data"), columns)
        for row in output_rows:
            if row["status"] != "ok":
                raise DatasetError(
                    f"row {row['id']} of {requests_url} failed: {row['error_code']}: "
                    f"{row['error_message']}"
                )
        return sorted(output_rows, key=lambda row: int(row["id"]))


def _read(folder: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for part in storage.list_objects(folder):
        with formats.open_parquet(part.url) as parquet:
            rows += parquet.read(list(columns)).to_pylist()
    return rows


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sampling columns of a row.

    Args:
        options: generation options of a task of the harness.

    Raises:
        ConfigError: the engine does not support an option.
    """
    unknown = set(options) - KNOWN_OPTIONS
    if unknown:
        raise ConfigError(
            f"a task asks for generation options {sorted(unknown)}; expected some of "
            f"{sorted(KNOWN_OPTIONS)}"
        )
    until = options.get("until") or []
    stop = [until] if isinstance(until, str) else list(until)
    temperature = 0.0
    if options.get("do_sample") is not False and options.get("temperature"):
        temperature = float(options["temperature"])
    return {
        "stop": stop,
        "max_tokens": int(options.get("max_gen_toks") or MAX_TOKENS),
        "temperature": temperature,
        "top_p": float(options.get("top_p") or 1.0),
        "top_k": int(options.get("top_k") or 0),
    }


def main(arguments: Sequence[str], backend: Backend = RAY) -> int:
    """Evaluates the tasks of a command line and returns the exit code."""
    try:
        config = parse(
            HarnessConfig,
            arguments,
            program="evaluate_lm_eval.py",
            description=str(__doc__).split("\n\n", maxsplit=1)[0],
        )
        if not config.task_names():
            raise ConfigError("--tasks is missing; see --help")
        evaluation = simple_evaluate(
            model=GrokBatchLM(config, backend),
            tasks=config.task_names(),
            num_fewshot=config.num_fewshot,
            limit=config.limit,
            task_manager=TaskManager(include_path=config.include_path),
        )
    except GrokBatchError as error:
        print(f"error: {redact_credentials(str(error))}", file=sys.stderr)
        return ExitCode.BAD_ARGUMENTS
    content = {name: evaluation[name] for name in RESULTS if name in evaluation}
    url = storage.join(str(config.output), "results.json")
    storage.overwrite(url, (json.dumps(content, indent=2, default=str) + "\n").encode())
    print(f"results  {redact_credentials(url)}")
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
