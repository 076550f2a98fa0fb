"""Measures the gain of prefix reuse on real prompts, and the speed of a job relative to the engine.

    python jobs/benchmark_pipeline.py --input PROMPTS --tokenizer MODEL --folder FOLDER
                                      [--task score] [--model small]

Takes the prompts of an input of the main job, with a model of random weights: lengths and common
prefixes are the input's, the token ids are others in every pass, so that each pass starts with a
cache that has none of its prefixes. One replica on a local Ray runs them in turn through the
pipeline, Parquet to Parquet, and as one batch that is submitted directly: the engine alone. The
first pass of either kind compiles and is not counted. Prompts are token ids, and completions are
not decoded to text.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.benchmarks.pipeline import measure
from jobs.benchmarks.pipeline_config import PipelineBenchmarkConfig
from jobs.benchmarks.pipeline_figures import print_figures
from jobs.cli.command import run_command, run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark of a command line and returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    config = parse(
        PipelineBenchmarkConfig,
        arguments,
        program="benchmark_pipeline.py",
        description=str(__doc__),
    )
    figures = measure(config)
    print_figures(figures)
    if config.json:
        Path(config.json).write_text(json.dumps(figures, indent=2) + "\n")
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
