"""lm-evaluation-harness over this project's engine: any of its tasks, run as the main job runs rows. Needs `make lm-eval`.

    .venv-lm-eval/bin/python jobs/evaluate_lm_eval.py --tasks arc_easy,lambada_openai -o RUN [flags
    of the model]

The harness makes the requests and the metrics; `GrokBatchLM` answers them. Each kind of request
becomes one run folder below the output, named by a digest of its rows: the same command again
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
from jobs.cli.exit_codes import ExitCode
from jobs.cli.model_flags import ModelFlags
from jobs.cli.parser import flag, parse
from jobs.run.backend import RAY, Backend
from jobs.run.execute import run_job
from jobs.run.models import model_config
from jobs.run.plan import DEMO
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.evals.requests import Kind
from pipeline.input import formats
from pipeline.output.publication import to_parquet
from pipeline.requests.tokenizer import Tokenizer
from pipeline.storage.redaction import redact_credentials

MAX_TOKENS = 256  # of a completion, where the task does not say: the harness's default
KNOWN_OPTIONS = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"})
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
        None, "id that stands before a text without context; default: the model's end-of-text"
    )

    def task_names(self) -> list[str]:
        """Returns what --tasks names, one by one."""
        return [name.strip() for each in self.tasks for name in each.split(",") if name.strip()]


class GrokBatchLM(LM):  # type: ignore[misc]  # the package is optional: mypy does not see it
    """The harness's model interface over the main job.

    Every method takes all requests of its kind and returns their answers in order. A row that fails
    raises DatasetError: the harness has no place for it, and a number with holes is none.
    """

    def __init__(self, config: HarnessConfig, backend: Backend = RAY) -> None:
        """Reads the tokenizer; starts nothing.

        Raises:
            ConfigError: output or tokenizer are missing.
        """
        super().__init__()
        if not config.output:
            raise ConfigError("--output is missing; see --help")
        source = config.tokenizer or (
            str(DEMO / "tokenizer.model") if config.model == "demo" else None
        )
        if source is None:
            raise ConfigError("--tokenizer is missing: the harness hands over text")
        model = model_config(config.model)
        self._config, self._output = config, config.output
        self._backend = backend
        self._tokenizer = Tokenizer(storage.read(source)[0])
        self._prefix = model.eos_token if config.prefix_token is None else config.prefix_token
        self._max_len = config.max_len or model.sequence_len

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Returns log-likelihood and whether it is greedy, of each (context, continuation)."""
        pairs = [self._encoded_pair(*request.args) for request in requests]
        return [(row["loglikelihood"], row["is_greedy"]) for row in self._score(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Returns the log-likelihood of each whole text, in windows of the longest length, each token scored once."""
        windows: list[tuple[Ids, Ids]] = []
        owners: list[int] = []
        for number, ids in enumerate(
            self._tokenizer.encode([request.args[0] for request in requests])
        ):
            for pair in get_rolling_token_windows(ids, self._prefix, self._max_len - 1, 1):
                windows.append(make_disjoint_window(pair))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, row in zip(owners, self._score(windows), strict=True):
            totals[owner] += row["loglikelihood"]
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Returns the completion of each (context, options), up to its first stop string."""
        contexts = self._tokenizer.encode([request.args[0] for request in requests])
        rows = [
            {"id": number, "prompt_token_ids": ids or [self._prefix], **_sampling(request.args[1])}
            for number, (ids, request) in enumerate(zip(contexts, requests, strict=True))
        ]
        return [row["text"] for row in self._run("generate", rows, ("text",))]

    def _encoded_pair(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Context and continuation are encoded together and cut.

        White space that ends the context begins the continuation.
        """
        kept = context.rstrip()
        if not kept:
            return [self._prefix], self._tokenizer.encode([context + continuation])[0]
        first, whole = self._tokenizer.encode([kept, context + continuation])
        return first, whole[len(first) :]

    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[dict[str, Any]]:
        rows = [
            {"id": number, "prompt_token_ids": context, "continuation_token_ids": continuation}
            for number, (context, continuation) in enumerate(pairs)
        ]
        return self._run("score", rows, ("loglikelihood", "is_greedy"))

    def _run(
        self, kind: Kind, rows: Sequence[Mapping[str, Any]], results: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Runs rows through the main job and returns their results in order."""
        if not rows:
            return []
        data = to_parquet(pa.Table.from_pylist([dict(row) for row in rows]))
        folder = storage.join(
            self._output, f"{kind}-{hashlib.blake2b(data, digest_size=8).hexdigest()}"
        )
        requests_url = f"{folder}.parquet"
        storage.put_if_absent(requests_url, data)
        main_job = self._config.score_config(kind, requests_url, folder)
        code = run_job(main_job, self._backend)
        if not code.is_complete:
            raise DatasetError(
                f"the run in {folder} ended with exit code {code}; its message is above"
            )
        found = _read(
            storage.join(folder, "data"), ("id", "status", "error_code", "error_message", *results)
        )
        failed = next((row for row in found if row["status"] != "ok"), None)
        if failed is not None:
            raise DatasetError(
                f"row {failed['id']} of {requests_url} failed: {failed['error_code']}: "
                f"{failed['error_message']}"
            )
        return sorted(found, key=lambda row: int(row["id"]))


def _read(folder: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for part in storage.list_objects(folder):
        with formats.open_parquet(part.url) as parquet:
            rows += parquet.read(list(columns)).to_pylist()
    return rows


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns that say how a row is completed, of the options that a task of the harness has.

    Raises:
        ConfigError: an option that the engine does not have.
    """
    unknown = set(options) - KNOWN_OPTIONS
    if unknown:
        raise ConfigError(
            f"a task asks for generation options {sorted(unknown)}; expected some of "
            f"{sorted(KNOWN_OPTIONS)}"
        )
    until = options.get("until") or []
    greedy = options.get("do_sample") is False or not options.get("temperature")
    return {
        "stop": [until] if isinstance(until, str) else list(until),
        "max_tokens": int(options.get("max_gen_toks") or MAX_TOKENS),
        "temperature": 0.0 if greedy else float(options["temperature"]),
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
        found = simple_evaluate(
            model=GrokBatchLM(config, backend),
            tasks=config.task_names(),
            num_fewshot=config.num_fewshot,
            limit=config.limit,
            task_manager=TaskManager(include_path=config.include_path),
        )
    except GrokBatchError as error:
        print(f"error: {redact_credentials(str(error))}", file=sys.stderr)
        return ExitCode.BAD_ARGUMENTS
    kept = {
        name: found[name]
        for name in ("results", "groups", "versions", "n-shot", "n-samples")
        if name in found
    }
    url = storage.join(str(config.output), "results.json")
    storage.overwrite(url, (json.dumps(kept, indent=2, default=str) + "\n").encode())
    print(f"results  {redact_credentials(url)}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
