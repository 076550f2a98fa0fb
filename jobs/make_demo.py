"""Nothing -> the files of the demo beside this script: tokenizer, checkpoint in xAI's format, and questions as Parquet.

    python jobs/make_demo.py [--output FOLDER]

The same versions of the libraries (requirements.lock) write the same bytes again. The weights are random: the demo shows
the way from Parquet to Parquet through the true architecture, not answers. Knows nothing of how the files are used.
"""

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
from jsonargparse import auto_cli

from actors.model import checkpoint
from actors.model.config import DEMO, ModelConfig
from jobs.demo.questions import Question, distinct_questions, questions, transcript

FOLDER = Path(__file__).parent / "demo"
ROWS = 300
DATA_SEED, TRAINING_SEED, WEIGHT_SEED = 1, 2, 3
TRAINING_TEXTS = 20_000


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
    """Returns one row per question: id, prompt and choices for the job; answer and category pass through."""
    return pa.table(
        {
            "id": pa.array([f"{question.category}/{number}" for number, question in enumerate(asked)], pa.string()),
            "prompt": pa.array([question.prompt for question in asked], pa.string()),
            "choices": pa.array([list(question.choices) for question in asked], pa.list_(pa.string())),
            "answer": pa.array([question.answer for question in asked], pa.string()),
            "category": pa.array([question.category for question in asked], pa.string()),
        }
    )


def make_demo(output: Path = FOLDER, config: ModelConfig = DEMO) -> None:
    """Writes tokenizer.model, ckpt-0/ and prompts.parquet into `output`, replacing what is there."""
    output.mkdir(parents=True, exist_ok=True)
    texts = (transcript(question) for question in islice(questions(TRAINING_SEED), TRAINING_TEXTS))
    (output / "tokenizer.model").write_bytes(train_tokenizer(texts, config.vocab_size))
    pq.write_table(question_table(distinct_questions(DATA_SEED, ROWS)), output / "prompts.parquet", compression="zstd")
    checkpoint.write(checkpoint.random_parameters(config, WEIGHT_SEED), output / "ckpt-0")


def main(output: Path = FOLDER) -> None:
    """Makes the files of the demo.

    Args:
        output: folder to write them into.
    """
    make_demo(output)
    print(f"wrote {output}: {sum(file.stat().st_size for file in output.rglob('*') if file.is_file()):,} bytes")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
