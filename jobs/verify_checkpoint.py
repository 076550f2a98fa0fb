"""Verifies a folder of weights, without a GPU, and prints a table of its problems.

    python jobs/verify_checkpoint.py --checkpoint ckpt-0
    python jobs/verify_checkpoint.py --checkpoint s3://models/grok-1-converted --deep true

The layout is detected: xAI's ckpt-0, or the converted layout with its manifest. Without --deep:
names, sizes, shapes, types, of ckpt-0 also NaN or infinity in norms, routers and scales; the int8
numbers are not read, 770 files take seconds. With --deep every byte is read: NaN or infinity in the
embedding, blocks of zeros that an unfinished download leaves, and the digests of the manifest or of
--digests FILE (lines as sha256sum writes them).

Exit codes: 0 no problem; 1 problems, listed; 2 bad arguments, or no checkpoint there; 75
interrupted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from actors.model.config import ModelConfig, parameter_shapes
from actors.protocol.errors import ModelError
from actors.protocol.plain_text import bare, plain_message
from jobs.cli.command import run_command, run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.run.models import model_config
from jobs.weights.verify import Problem, VerifyConfig, read_digests, verify
from pipeline import storage
from pipeline.errors import ConfigError

LOG_WIDTH = 200  # characters of a table that does not go to a terminal


def main(arguments: Sequence[str], *, program: str = "verify_checkpoint.py") -> int:
    """Verifies the checkpoint of a command line and returns the exit code."""
    return run_command(lambda: _verify(arguments, program))


def _verify(arguments: Sequence[str], program: str) -> int:
    config = parse(VerifyConfig, arguments, program=program, description=str(__doc__))
    url = str(config.checkpoint)
    model = model_config(config.model)
    digests = None
    if config.digests:
        text = storage.read(config.digests)[0].decode(errors="replace")
        digests = read_digests(text, config.digests)

    try:
        problems, layout = verify(url, model, deep=config.deep, digests=digests)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    _print_problems(problems, url, layout, model)
    if problems:
        return ExitCode.FAILED
    return ExitCode.OK


def _print_problems(problems: list[Problem], url: str, layout: str, model: ModelConfig) -> None:
    shapes = parameter_shapes(model)
    size_gb = shapes.stored_bytes / 1e9
    folder = bare(url)
    title = f"{folder}: {layout}, {len(shapes):,} tensors, {size_gb:,.2f} GB of numbers"
    if not problems:
        print(f"{title}: nothing wrong")
        return

    table = Table(
        "file",
        "tensor",
        "problem",
        title=f"{title}: {len(problems):,} problems",
        title_justify="left",
    )
    for problem in problems:
        table.add_row(bare(problem.file), bare(problem.tensor), plain_message(problem.message))

    width = None  # of the terminal
    if not sys.stdout.isatty():
        width = LOG_WIDTH
    Console(width=width).print(table, markup=False)


if __name__ == "__main__":
    run_main(main)
