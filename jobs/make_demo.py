"""Builds the files of the demo: tokenizer, checkpoint in xAI's format, questions and seeds.

    python jobs/make_demo.py [--output FOLDER] [--steps N]        some 20 minutes on two cores

prompts.parquet has questions that neither tokenizer nor model was trained on.
"""

import sys
from dataclasses import replace
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
from jsonargparse import auto_cli

from jobs.demo.build import (
    EVALUATION_FOLDER,
    FOLDER,
    size_bytes,
    write_evaluation,
    write_texts,
    write_weights,
)
from jobs.demo.training import TrainingConfig


def main(output: Path = FOLDER, steps: int = TrainingConfig().steps) -> None:
    """Builds the files of the demo.

    Args:
        output: folder to write them into.
        steps: steps of the training; fewer are faster and give a worse model.
    """
    jax.config.update("jax_platforms", "cpu")  # a model of this size is not faster on a GPU
    write_texts(output)
    write_evaluation(output / EVALUATION_FOLDER.name)
    write_weights(output, replace(TrainingConfig(), steps=steps))
    print(f"wrote {output}: {size_bytes(output):,} bytes")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
