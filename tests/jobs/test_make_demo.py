"""The committed demo files are what make_demo.py writes, and their tokenizer behaves like Grok-1's."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sentencepiece

from actors.model.config import DEMO
from jobs.make_demo import FOLDER, make_demo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))


def test_the_committed_files_are_reproduced_byte_for_byte(made: Path) -> None:
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    committed = [FOLDER / "tokenizer.model", FOLDER / "prompts.parquet", *(FOLDER / "ckpt-0").iterdir()]
    assert names == sorted(path.relative_to(FOLDER) for path in committed)
    assert [str(name) for name in names if (made / name).read_bytes() != (FOLDER / name).read_bytes()] == []


def test_the_committed_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc") < 1_500_000


def test_special_ids_are_those_of_grok_1(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert tokenizer.vocab_size() == DEMO.vocab_size
    ids = (tokenizer.pad_id(), tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.unk_id())
    assert ids == (DEMO.pad_token, 1, DEMO.eos_token, 3)


@pytest.mark.parametrize("text", ["12 + 7 = 19", "  two  spaces ", "line\n\nline", "Zürich 北京 🙂", "QX\t</s>"])
def test_any_text_comes_back_from_its_ids(tokenizer: sentencepiece.SentencePieceProcessor, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.unk_id() not in ids
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone_and_letters_of_choices_are_one_token(tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    assert tokenizer.encode("407", out_type=str) == ["▁", "4", "0", "7"]
    context = tokenizer.encode("Answer:")
    for letter in "ABCD":
        assert len(tokenizer.encode(f"Answer: {letter}")) == len(context) + 1


def test_prompts_are_rows_for_both_tasks() -> None:
    rows = pq.read_table(FOLDER / "prompts.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) == 300
    assert all(row["answer"] in row["choices"] and row["prompt"] for row in rows)
