"""Nothing -> the files of the demo beside this script: tokenizer, trained checkpoint in xAI's format, questions and seeds.

    python jobs/make_demo.py [--output FOLDER] [--steps N]        some 20 minutes on two cores

The tokenizer is trained on questions and answers, the model on others of them as
`jobs/demo/training.py` says; prompts.parquet has questions that neither has seen, seeds.parquet
what stories are made of. Knows nothing of how the files are used.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
from jsonargparse import auto_cli

from actors.model.config import DEMO, ModelConfig, parameter_shapes
from actors.weights import checkpoint
from actors.weights.pickle_reader import HostTensor
from jobs.demo.dense_model import FloatParams
from jobs.demo.questions import (
    NAMES,
    THINGS,
    Question,
    held_out_questions,
    training_questions,
    transcript,
)
from jobs.demo.training import TrainingConfig, train

FOLDER = Path(__file__).parent / "demo"
ROWS, SEED_ROWS = 300, 200
DATA_SEED, TOKENIZER_SEED, SEEDS_SEED = 1, 2, 3
TOKENIZER_TEXTS = 20_000
REPORT_EVERY = 200  # steps


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> bytes:
    """Returns a SentencePiece model with the settings of Grok-1's: BPE, byte fallback, single digits, no normalisation."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts,
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["\n", "\n\n", *"0123456789"],
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[BOS]",
        eos_piece="[EOS]",
        unk_piece="[UNK]",
        num_threads=1,  # the order of merges, and so the bytes, must not depend on threads
        minloglevel=2,
    )
    return model.getvalue()


def question_table(asked: list[Question]) -> pa.Table:
    """Returns one row per question: id, prompt and choices for the job.

    Answer and category pass through.
    """
    return pa.table(
        {
            "id": pa.array(
                [f"{question.category}/{number}" for number, question in enumerate(asked)],
                pa.string(),
            ),
            "prompt": pa.array([question.prompt for question in asked], pa.string()),
            "choices": pa.array(
                [list(question.choices) for question in asked], pa.list_(pa.string())
            ),
            "answer": pa.array([question.answer for question in asked], pa.string()),
            "category": pa.array([question.category for question in asked], pa.string()),
        }
    )


def seed_table() -> pa.Table:
    """Returns what jobs/configs/word_problems.yaml makes stories of: who has how many of what, and how many come to it."""
    draw = Random(SEEDS_SEED)
    rows = [
        (draw.choice(NAMES), draw.choice(THINGS), draw.randint(11, 89), draw.randint(2, 10))
        for _ in range(SEED_ROWS)
    ]
    ids = [f"problem/{number}" for number in range(SEED_ROWS)]
    name, thing, a, b = zip(*rows, strict=True)
    return pa.table({"id": ids, "name": name, "thing": thing, "a": a, "b": b})


def write_texts(output: Path, config: ModelConfig = DEMO) -> None:
    """Writes tokenizer.model, prompts.parquet and seeds.parquet.

    The same versions of the libraries write the same bytes.
    """
    output.mkdir(parents=True, exist_ok=True)
    texts = (
        transcript(question)
        for question in islice(training_questions(TOKENIZER_SEED), TOKENIZER_TEXTS)
    )
    (output / "tokenizer.model").write_bytes(train_tokenizer(texts, config.vocab_size))
    pq.write_table(
        question_table(held_out_questions(DATA_SEED, ROWS)),
        output / "prompts.parquet",
        compression="zstd",
    )
    pq.write_table(seed_table(), output / "seeds.parquet", compression="zstd")


def quantized(params: FloatParams, config: ModelConfig) -> Iterator[tuple[str, HostTensor]]:
    """Yields (path, tensor) in file order: int8 with scales where the checkpoint's format has them."""
    for tensor in parameter_shapes(config):
        values = np.asarray(params[tensor.module][tensor.name])
        yield (
            tensor.path,
            values
            if tensor.scale_groups is None
            else checkpoint.quantize(values, tensor.scale_groups),
        )


def write_weights(output: Path, training: TrainingConfig, config: ModelConfig = DEMO) -> None:
    """Trains on texts of the tokenizer in `output` and writes ckpt-0/ beside it."""
    encode = sentencepiece.SentencePieceProcessor(model_file=str(output / "tokenizer.model")).encode
    began = time.monotonic()

    def report(number: int, loss: float) -> None:
        if (number + 1) % REPORT_EVERY == 0 or number + 1 == training.steps:
            elapsed_s = time.monotonic() - began
            print(
                f"step {number + 1:,} of {training.steps:,}: {loss:.4f} nats per answer token, "
                f"{elapsed_s:.0f} s",
                flush=True,
            )

    checkpoint.write(quantized(train(config, training, encode, report), config), output / "ckpt-0")


def main(output: Path = FOLDER, steps: int = TrainingConfig().steps) -> None:
    """Makes the files of the demo.

    Args:
        output: folder to write them into.
        steps: of the training; fewer make a worse model sooner.
    """
    jax.config.update("jax_platforms", "cpu")  # a model of this size gains nothing from a GPU
    write_texts(output)
    write_weights(output, replace(TrainingConfig(), steps=steps))
    print(
        f"wrote {output}: {sum(file.stat().st_size for file in output.rglob('*') if file.is_file()):,} bytes"
    )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
