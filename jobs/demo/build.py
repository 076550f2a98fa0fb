"""Builds the files of the demo: tokenizer, trained checkpoint in xAI's format, questions and seeds.

The tokenizer is trained on questions and answers, the model on others of them; prompts.parquet has
questions that neither has seen, seeds.parquet the facts that stories are made of.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece

from actors.model.config import DEMO, ModelConfig, parameter_shapes
from actors.weights import checkpoint
from actors.weights.pickle_reader import HostTensor
from jobs.demo.dense_model import FloatParams
from jobs.demo.questions import (
    NAMES,
    THINGS,
    Question,
    held_out_questions,
    multiple_choice,
    training_questions,
    transcript,
    word_problem,
)
from jobs.demo.training import Encode, TrainingConfig, train

FOLDER = Path(__file__).parent
EVALUATION_FOLDER = FOLDER / "evaluation"  # data sets in hub layout
TEST_FILE = "test-00000-of-00001.parquet"
EVALUATION_FILE = Path("demo", "questions", TEST_FILE)
MMLU_FILE = Path("demo", "mmlu", TEST_FILE)
GSM8K_FILE = Path("demo", "gsm8k", TEST_FILE)
PROMPT_ROWS = 300
SEED_ROWS = 200
PROMPTS_SEED = 1
TOKENIZER_SEED = 2
SEEDS_SEED = 3
EVALUATION_ROWS = 100
EVALUATION_SEED = 4
TOKENIZER_TEXTS = 20_000
REPORT_EVERY = 200  # steps

Train = Callable[[ModelConfig, TrainingConfig, Encode, Callable[[int, float], None]], Any]


def write_texts(output: Path, config: ModelConfig = DEMO) -> None:
    """Writes tokenizer.model, prompts.parquet and seeds.parquet.

    The same versions of the libraries write the same bytes.
    """
    output.mkdir(parents=True, exist_ok=True)
    questions = islice(training_questions(TOKENIZER_SEED), TOKENIZER_TEXTS)
    texts = (transcript(question) for question in questions)
    tokenizer = train_tokenizer(texts, config.vocab_size)
    (output / "tokenizer.model").write_bytes(tokenizer)

    prompts = question_table(held_out_questions(PROMPTS_SEED, PROMPT_ROWS))
    pq.write_table(prompts, output / "prompts.parquet", compression="zstd")
    pq.write_table(seed_table(), output / "seeds.parquet", compression="zstd")


def write_evaluation(output: Path) -> None:
    """Writes the data sets of the demo's evaluation tasks, in hub layout, below `output`."""
    choices = held_out_questions(EVALUATION_SEED, EVALUATION_ROWS, (multiple_choice,))
    problems = held_out_questions(EVALUATION_SEED, EVALUATION_ROWS, (word_problem,))
    tables = {
        EVALUATION_FILE: question_table(held_out_questions(EVALUATION_SEED, EVALUATION_ROWS)),
        MMLU_FILE: mmlu_table(choices),
        GSM8K_FILE: gsm8k_table(problems),
    }
    for path, table in tables.items():
        file = output / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, compression="zstd")


def mmlu_table(questions: Sequence[Question]) -> pa.Table:
    """Returns multiple-choice questions with the columns of cais/mmlu."""
    columns: dict[str, list[Any]] = {"question": [], "subject": [], "choices": [], "answer": []}
    for question in questions:
        text, *options, _ = question.prompt.split("\n")
        columns["question"].append(text)
        columns["subject"].append(question.category)
        columns["choices"].append([option.partition(". ")[2] for option in options])
        columns["answer"].append(question.choices.index(question.answer))
    return pa.table(columns)


def gsm8k_table(questions: Sequence[Question]) -> pa.Table:
    """Returns word problems with the columns of openai/gsm8k."""
    columns: dict[str, list[str]] = {"question": [], "answer": []}
    for question in questions:
        calculation, _, result = question.answer.partition(". The answer is ")
        number = result.removesuffix(".")
        columns["question"].append(question.prompt.removeprefix("Q: ").removesuffix("\nA:"))
        columns["answer"].append(f"{calculation.strip()}\n#### {number}")
    return pa.table(columns)


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> bytes:
    """Returns a SentencePiece model with the settings of Grok-1's tokenizer.

    BPE, byte fallback, single digits, no normalisation.
    """
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
        num_threads=1,  # threads would change the order of merges, and so the bytes
        minloglevel=2,
    )
    return model.getvalue()


def question_table(questions: Sequence[Question]) -> pa.Table:
    """Returns one row per question: id, prompt and choices; answer and category pass through."""
    ids: list[str] = []
    choices: list[list[str]] = []
    for number, question in enumerate(questions):
        ids.append(f"{question.category}/{number}")
        choices.append(list(question.choices))
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "prompt": pa.array([question.prompt for question in questions], pa.string()),
            "choices": pa.array(choices, pa.list_(pa.string())),
            "answer": pa.array([question.answer for question in questions], pa.string()),
            "category": pa.array([question.category for question in questions], pa.string()),
        }
    )


def seed_table() -> pa.Table:
    """Returns the seed rows of jobs/configs/word_problems.yaml: who has how many of what."""
    random = Random(SEEDS_SEED)
    columns: dict[str, list[Any]] = {"id": [], "name": [], "thing": [], "a": [], "b": []}
    for number in range(SEED_ROWS):
        columns["id"].append(f"problem/{number}")
        columns["name"].append(random.choice(NAMES))
        columns["thing"].append(random.choice(THINGS))
        columns["a"].append(random.randint(11, 89))
        columns["b"].append(random.randint(2, 10))
    return pa.table(columns)


def write_weights(
    output: Path,
    training: TrainingConfig,
    config: ModelConfig = DEMO,
    train_model: Train = train,
) -> None:
    """Trains on texts of the tokenizer in `output` and writes ckpt-0/ beside it."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(output / "tokenizer.model"))
    started_s = time.monotonic()

    def report(step: int, loss: float) -> None:
        done = step + 1
        if done % REPORT_EVERY == 0 or done == training.steps:
            elapsed_s = time.monotonic() - started_s
            print(
                f"step {done:,} of {training.steps:,}: {loss:.4f} nats per answer token, "
                f"{elapsed_s:.0f} s",
                flush=True,
            )

    params = train_model(config, training, tokenizer.encode, report)
    checkpoint.write(quantized(params, config), output / "ckpt-0")


def quantized(params: FloatParams, config: ModelConfig) -> Iterator[tuple[str, HostTensor]]:
    """Yields (path, tensor) in file order, as int8 with scales where the format has them."""
    for tensor in parameter_shapes(config):
        values = np.asarray(params[tensor.module][tensor.name])
        if tensor.scale_groups is None:
            yield tensor.path, values
        else:
            yield tensor.path, checkpoint.quantize(values, tensor.scale_groups)


def size_bytes(folder: Path) -> int:
    """Returns the size of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
