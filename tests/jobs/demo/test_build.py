"""The committed demo files: texts of make_demo.py, a tokenizer like Grok-1's, int8 weights."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece

from actors.kernels.quantized import QuantizedWeight, dequantize
from actors.model.config import DEMO, parameter_shapes
from actors.weights import checkpoint
from jobs.demo.build import (
    EVALUATION_FILE,
    EVALUATION_FOLDER,
    FOLDER,
    GSM8K_FILE,
    MMLU_FILE,
    write_evaluation,
    write_texts,
    write_weights,
)
from jobs.demo.dense_model import initial_params
from jobs.demo.training import TrainingConfig


@pytest.fixture(scope="module")
def tokenizer() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))


def test_tokenizer_and_questions_are_reproduced_byte_for_byte(tmp_path: Path) -> None:
    write_texts(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["prompts.parquet", "seeds.parquet", "tokenizer.model"]
    assert [
        name for name in names if (tmp_path / name).read_bytes() != (FOLDER / name).read_bytes()
    ] == []


def test_evaluation_questions_are_reproduced_byte_for_byte(tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    for file in (EVALUATION_FILE, MMLU_FILE, GSM8K_FILE):
        committed = (EVALUATION_FOLDER / file).read_bytes()
        assert (tmp_path / file).read_bytes() == committed
    assert len(committed) < 20_000


def test_trained_weights_are_written_as_int8_in_the_models_order(
    tmp_path: Path,
) -> None:
    shutil.copy(FOLDER / "tokenizer.model", tmp_path)
    small, training = replace(DEMO, emb_size=32, key_size=4, num_layers=1), TrainingConfig(steps=1)
    params = initial_params(small, 0)

    def train(
        config: object,
        asked: object,
        encode: Callable[[str], list[int]],
        report: Callable[[int, float], None],
    ) -> Any:
        assert (config, asked) == (small, training)
        assert len(encode("12 + 7 =")) == 7
        report(0, 0.5)
        return params

    write_weights(tmp_path, training, small, train_model=train)
    for tensor, stored in checkpoint.read(tmp_path / "ckpt-0", small):
        expected = np.asarray(params[tensor.module][tensor.name])
        if tensor.scale_groups is None:
            np.testing.assert_array_equal(stored, expected)
        else:
            found = dequantize(QuantizedWeight(*map(jnp.asarray, stored)), jnp.float32)
            np.testing.assert_allclose(found, expected, atol=np.abs(expected).max() / 200)


def test_committed_files_stay_small() -> None:
    files = [
        *(FOLDER / name for name in ("tokenizer.model", "prompts.parquet", "seeds.parquet")),
        *(FOLDER / "ckpt-0").iterdir(),
    ]
    assert len(files) == 3 + len(parameter_shapes(DEMO))
    assert sum(path.stat().st_size for path in files) < 4_000_000


def test_special_ids_are_those_of_grok_1(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert tokenizer.vocab_size() == DEMO.vocab_size
    ids = (tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.unk_id())
    assert ids == (DEMO.pad_token, 1, DEMO.eos_token, 3)


@pytest.mark.parametrize(
    "text", ["12 + 7 = 19", "  two  spaces ", "line\n\nline", "Zürich 北京 🙂", "QX\t</s>"]
)
def test_tokenizer_decodes_any_text_it_encodes(
    tokenizer: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.unk_id() not in ids
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone_and_letters_of_choices_are_one_token(
    tokenizer: sentencepiece.SentencePieceProcessor,
) -> None:
    assert tokenizer.encode("407", out_type=str) == ["▁", "4", "0", "7"]
    context = tokenizer.encode("Answer:")
    for letter in "ABCD":
        assert len(tokenizer.encode(f"Answer: {letter}")) == len(context) + 1


def test_prompts_are_rows_for_both_tasks() -> None:
    rows = pq.read_table(FOLDER / "prompts.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) == 300
    assert all(row["answer"] in row["choices"] and row["prompt"] for row in rows)
