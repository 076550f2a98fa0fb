"""Every block and command of the documentation is run, or checked as far as this machine can.

Commands with the demo model run in one folder, in the order of the pages, over replicas that
compute by arithmetic; other commands of ours are parsed by their own parsers. DuckDB and pandas
read the output of these runs.
"""

import ast
import json
import os
import re
import subprocess
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from actors.protocol.messages import Completion, Request
from jobs import evaluate, generate_dataset, score_dataset
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.run.config import ScoreConfig
from jobs.run.models import model_config
from jobs.synthesis.config import GenerateConfig
from pipeline.evals.suite import Answer
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import TASKS
from tests import fakes
from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.checks import Check, check_command, our_program, parse_subcommand
from tests.docs.shell import PLACEHOLDER, Command, commands
from tests.docs.site_environment import run_python
from tests.end_to_end.fake_run import FakeBackend

BLOCKS = blocks()
SHELL = ("bash", "inline")
READS_A_RUN = ("status", "show", "compare")
EXAMPLES = "docs/examples/"
# Pages of tasks; of their examples, those run that need no packages of a training environment.
TASK_PAGES = tuple(f"docs/{task}.md" for task in TASKS)
TRAINING_IMPORTS = ("torch", "datasets", "to_axolotl")
NEEDS_A_REAL_RUN = ("demo", "doctor")  # their own tests run them


def test_shell_blocks_have_the_syntax_of_bash() -> None:
    for block in BLOCKS:
        if block.language == "bash":
            done = subprocess.run(
                ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block}: {done.stderr}"


def shell_commands() -> Iterator[tuple[Block, Command, Path]]:
    """Yields the commands of all pages, with the folder of the repository they are typed in."""
    folder = ROOT
    page = ""
    for block in BLOCKS:
        if block.language not in SHELL:
            continue
        if block.page != page:
            folder = ROOT
            page = block.page
        for command in commands(block.text):
            if command.words and command.words[0] == "cd":
                is_checkout = command.words[1].endswith("grok-batch")
                folder = ROOT if is_checkout else (folder / command.words[1]).resolve()
                assert folder.is_dir(), f"{block}: {command}"
            elif command.words:
                yield block, command, folder


def is_run(command: Command) -> bool:
    """Returns whether a command runs in seconds, without a GPU, a cluster or the network."""
    program = our_program(command.words)
    if program is None or program.subcommand is None or program.is_help_or_name:
        return False
    text = str(command)
    if PLACEHOLDER in text or "s3://" in text or "-C job.yaml" in text:
        return False
    if program.subcommand.name in READS_A_RUN:
        return True
    config = parse_subcommand(program.subcommand, program.arguments)
    return getattr(config, "model", None) == "demo"


def test_commands_of_the_documentation_are_valid() -> None:
    checked: list[Check] = []
    for block, command, folder in shell_commands():
        try:
            checked.append(check_command(command, folder))
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block}: {command}: {error}") from error
    assert set(checked) == {Check.PARSED, Check.MAKE, Check.PYTHON, Check.EXTERNAL}


def answer(request: Request) -> Completion:
    """Returns the sum of the last two numbers of a prompt; scores as the other fakes."""
    if request.embeds:
        width = model_config("demo").emb_size
        vector = array("f", (float(request.prompt_ids[-1] + place) for place in range(width)))
        return replace(fakes.answer(request), embedding=vector)
    if request.sampling is None:
        return fakes.answer(request)
    tokenizer = _tokenizer()
    numbers = [int(number) for number in re.findall(r"\d+", tokenizer.text(request.prompt_ids))]
    ids = tokenizer.encode([f" {sum(numbers[-2:])}"])[0]
    return fakes.ended_text(request, ids, -0.25)


def _tokenizer() -> Tokenizer:
    return Tokenizer((ROOT / "jobs" / "demo" / "tokenizer.model").read_bytes())


def _names_of_runs() -> set[str]:
    """Returns the words that stand for any run folder: RUN, RUN_A and the like."""
    names = {"RUN"}
    for _, command, _ in shell_commands():
        if is_run(command):
            names.update(re.findall(r"(?<=\s)[A-Z][A-Z_]*(?=\s|$)", str(command)))
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a checkout without results, with the files that the pages take from the reader."""
    path = tmp_path_factory.mktemp("reader")
    for name in ("jobs", "docs"):
        (path / name).symlink_to(ROOT / name)
    prompts = pq.read_table(ROOT / "jobs" / "demo" / "prompts.parquet")
    pq.write_table(prompts.slice(0, 40), path / "prompts.parquet")
    pq.write_table(pa.table({"prompt": ["7 + 8 = 15 " * 400]}), path / "books.parquet")
    (path / "questions.csv").write_text("id,question\n1,2 + 3\n2,4 + 4\n")
    (path / "prompt.jinja").write_text("{{ question }} =")
    for run in _names_of_runs():
        (path / run).symlink_to(path / "runs" / "first")
    return path


@pytest.fixture(scope="module")
def runs(folder: Path) -> Path:
    """Runs the commands of all pages, in order; returns the folder of their results."""
    backend = FakeBackend(answer=answer, draws_plots=False)
    mains: dict[str, Callable[..., int]] = {
        "score": score_dataset.main,
        "evaluate": evaluate.main,
        "generate": generate_dataset.main,
    }
    here = Path.cwd()
    ended: set[Command] = set()
    os.chdir(folder)
    try:
        for block, command, _ in shell_commands():
            # tests/docs/test_examples.py runs worked examples.
            if command in ended or not is_run(command) or block.page.startswith(EXAMPLES):
                continue
            ended.add(command)
            program = our_program(command.words)
            assert program is not None
            assert program.subcommand is not None
            main = mains.get(program.subcommand.name)
            if main is None:
                code = program.subcommand.run("grok-batch", program.arguments)
            else:
                code = main(program.arguments, backend)
            assert code == ExitCode.OK, f"{block}: {command} ended with {code}"
    finally:
        os.chdir(here)
    return folder


@pytest.mark.slow
def test_commands_with_the_demo_model_run(runs: Path) -> None:
    for name in ("first", "demo-evaluation", "problems"):
        assert (runs / "runs" / name).is_dir()
    assert len(list((runs / "runs" / "first" / "data").glob("part-*.parquet"))) == 1


def queries() -> Iterator[tuple[Block, str]]:
    """Yields the SQL queries of all pages."""
    for block in BLOCKS:
        text = ""
        if block.language == "sql":
            text = re.sub(r"--.*", "", block.text)
        elif block.text.startswith("duckdb -c"):
            text = next(commands(block.text)).words[2]
        for query in filter(str.strip, text.split(";")):
            yield block, " ".join(query.split())


RUN_OF_COLUMN = {
    "text_bytes": "books",
    "scored_logprobs": "texts",
    "scored_tokens": "perplexity",
    "loglikelihood": "choices",
    "token_ids": "first",
}


@pytest.mark.slow
def test_queries_of_the_documentation_run(runs: Path) -> None:
    """Each query finds rows in the run that has its columns."""
    program = ["import duckdb"]
    for block, query in queries():
        run = next((RUN_OF_COLUMN[name] for name in RUN_OF_COLUMN if name in query), "first")
        own_query = query.replace("'RUN/", f"'runs/{run}/")
        own_query = own_query.replace("'history/", "'runs/demo-history/")
        program.append(f"rows = duckdb.sql({own_query!r}).to_arrow_table().num_rows")
        program.append(f"assert rows, {str(block)!r}")
    assert len(program) > 10
    run_python("\n".join(program), runs)


@pytest.mark.slow
def test_python_examples_of_reading_results_run(runs: Path) -> None:
    examples = [block for block in BLOCKS if block.page == "docs/output.md"]
    sources = [block.text for block in examples if block.language == "python"]
    assert len(sources) == 2
    assert "'id'" in run_python(sources[0], runs)
    assert "0 0.0" in run_python(
        f"{sources[1]}\nprint(0, abs(rows.mean_logprob + 0.25).max())", runs
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", TASK_PAGES)
def test_examples_of_a_task_read_its_results(page: str, runs: Path) -> None:
    """By pandas and polars, each block on its own; DuckDB's queries have their own test."""
    sources = [block.text for block in BLOCKS if (block.page, block.language) == (page, "python")]
    text = "\n".join(sources)
    assert "import pandas" in text
    assert "import polars" in text
    sources = [source for source in sources if not any(map(source.__contains__, TRAINING_IMPORTS))]
    assert any((block.page, block.language) == (page, "sql") for block in BLOCKS)
    run_python(f"for source in {sources!r}:\n    exec(source, {{}})", runs)


def test_evaluation_task_of_the_documentation_works() -> None:
    [source] = [
        block.text
        for block in BLOCKS
        if block.page == "docs/evaluation.md" and block.language == "python"
    ]
    names: dict[str, Any] = {}
    exec(source, names)
    [suite] = names["SUITES"]

    class Data:
        def rows(self, *_: object) -> list[dict[str, str]]:
            return [{"question": "2 + 3", "answer": "5"}]

    class Options:
        limit = None

    [request] = suite.prompts(Data(), "sums", Options())
    verdict = suite.score(request, [Answer(" 5")])
    assert verdict.values == {"exact_match,none": 1.0}
    assert request.prompt == "2 + 3 ="
    assert suite.name == "sums"


def test_python_blocks_compile() -> None:
    for block in BLOCKS:
        if block.language == "python":
            ast.parse(block.text, filename=str(block))


def test_yaml_blocks_are_job_files(tmp_path: Path) -> None:
    for block in BLOCKS:
        if block.language != "yaml":
            continue
        file = tmp_path / "job.yaml"
        file.write_text(block.text)
        if block.page == "docs/synthesis.md":
            fields = GenerateConfig.__dataclass_fields__
            assert set(yaml.safe_load(block.text)) <= set(fields), block
        else:
            parse(ScoreConfig, ["-C", str(file)], program="x", description="")


def test_json_blocks_are_json() -> None:
    for block in BLOCKS:
        if block.language != "json":
            continue
        decoder = json.JSONDecoder()
        text = block.text.strip()
        while text:
            _, end = decoder.raw_decode(text)
            text = text[end:].strip()


def test_templates_of_the_documentation_are_jinja() -> None:
    for block in BLOCKS:
        if block.language == "jinja":
            jinja2.Environment().parse(block.text)


def test_metrics_of_queries_are_in_the_table_of_metrics() -> None:
    for block in BLOCKS:
        if block.language == "promql":
            table = (ROOT / block.page).read_text()
            for name in re.findall(r"ray_grok_batch_\w+", block.text):
                assert f"| `{name}`" in table, f"{block}: {name}"


def test_commands_of_terraform_variables_are_valid() -> None:
    for block in BLOCKS:
        if block.language == "hcl":
            [words] = re.findall(r"command\s*=\s*(\[.*\])", block.text)
            command = Command(tuple(json.loads(words.replace(f"{PLACEHOLDER}, ", ""))))
            assert check_command(command, ROOT) is Check.PARSED
