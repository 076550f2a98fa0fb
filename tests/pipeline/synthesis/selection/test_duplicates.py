import random
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.selection.duplicates import (
    FIRST_HASHING,
    PERMUTATIONS,
    RECALL,
    SHINGLE_CHARS,
    SIGNATURE_SEED,
    Bands,
    Duplicates,
    bytes_per_sample,
    hashing_keys,
    memory_capacity,
    signature,
    similarity,
)
from pipeline.synthesis.selection.recent_rows import MAX_CHAIN
from pipeline.synthesis.selection.rules import SelectionRules
from tests.pipeline.synthesis.sample_tables import samples, texts

WORDS = [
    f"{a}{b}"
    for a in ("ka", "lo", "mi", "nu", "re", "so", "ta", "vi", "xe", "zu")
    for b in ("dam", "fip", "gor", "hul", "jen")
]


def near(threshold: float = 0.8, memory_mb: int = 8) -> SelectionRules:
    return SelectionRules(
        dedup="near", dedup_on=("completion",), dedup_threshold=threshold, dedup_memory_mb=memory_mb
    )


def outcomes(stage: Duplicates, *completions: str) -> list[str | None]:
    return [
        None if verdict is None else verdict.reason
        for verdict in stage(texts(*completions)).verdicts
    ]


@settings(deadline=None)
@given(st.lists(st.text(max_size=3), max_size=40))
def test_duplicates_reject_all_but_first_of_equal_texts(completions: list[str]) -> None:
    completions = [each.encode(errors="replace").decode() for each in completions]
    stage = Duplicates(SelectionRules(dedup="exact", dedup_on=("completion",), dedup_memory_mb=1))
    found = outcomes(stage, *completions[:10]) + outcomes(stage, *completions[10:])
    assert found == [
        "exact" if text in completions[:place] else None for place, text in enumerate(completions)
    ]


def test_duplicates_compare_columns_separately() -> None:
    rows = [
        {"prompt": "a", "completion": "bc"},
        {"prompt": "ab", "completion": "c"},
        {"prompt": "a", "completion": "bc"},
    ]
    judged = Duplicates(SelectionRules())(samples(rows))
    assert judged.passed.tolist() == [True, True, False]
    assert judged.verdicts[2] is not None
    assert judged.verdicts[2].duplicate_of == "r0#0"


def test_duplicates_compare_numbers_and_nulls() -> None:
    rules = SelectionRules(dedup_on=("a", "topic"))
    rows: list[dict[str, Any]] = [{"a": 1}, {"a": None}, {"a": 1, "topic": None}, {"a": None}]
    assert Duplicates(rules)(samples(rows)).passed.tolist() == [True, True, True, False]


def jaccard(one: str, other: str) -> float:
    a, b = ({text[at : at + 5] for at in range(max(1, len(text) - 4))} for text in (one, other))
    return len(a & b) / len(a | b)


def variant(text: str, changed: float, draw: random.Random) -> str:
    return " ".join(
        draw.choice(WORDS) if draw.random() < changed else word for word in text.split()
    )


def test_similarity_is_close_to_jaccard_at_every_length() -> None:
    draw, errors = random.Random(3), []
    for length in (2, 5, 20, 120):
        for _ in range(60):
            one = " ".join(draw.choice(WORDS) for _ in range(length))
            other = variant(one, 0.15, draw)
            errors.append(similarity(signature(one), signature(other)) - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05


def test_signature_has_pinned_values() -> None:
    """Another machine or library gives the same data set only with the same signatures."""
    assert signature("The answer is 42.")[:4].tolist() == [
        3363104127,
        662616733,
        759562259,
        3309571944,
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9]))
def test_duplicates_find_pairs_above_threshold_only(seed: int, threshold: float) -> None:
    draw = random.Random(seed)
    for _ in range(10):
        one = " ".join(draw.choice(WORDS) for _ in range(60))
        other = variant(one, draw.uniform(0, 0.3), draw)
        exact, found = jaccard(one, other), outcomes(Duplicates(near(threshold)), one, other)[1]
        if exact > threshold + 0.12:
            assert found is not None
        if exact < threshold - 0.12:
            assert found is None


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_are_widest_that_reach_recall(threshold: float) -> None:
    bands = Bands.of(threshold)
    assert bands.count * bands.width <= 128
    assert 1 - (1 - threshold**bands.width) ** bands.count >= 0.98
    assert (
        bands.width == 128
        or 1 - (1 - threshold ** (bands.width + 1)) ** (128 // (bands.width + 1)) < 0.98
    )


def test_near_duplicates_ignore_case_width_and_white_space() -> None:
    stage = Duplicates(near())
    found = outcomes(
        stage,
        "The quick brown fox jumps over the lazy dog",
        "the  QUICK brown\nfox jumps over the lazy dog",
        "素早い茶色の狐がのろまな犬を飛び越える、そして森へ帰る。",
        "素早い茶色の狐がのろまな犬を飛び越える、そして森へ帰る!",
        "Ｔｈｅ quick brown fox jumps over the lazy dog",
        "",
        "  ",
        "ab",
        "AB",
        "cd",
    )
    assert found == [None, "near", None, "near", "near", None, "near", None, "near", None]


def test_near_duplicate_names_sample_and_similarity() -> None:
    text = " ".join(WORDS[:40])
    verdict = Duplicates(near())(texts("unrelated words", text, text + " and more")).verdicts[2]
    assert verdict is not None
    assert (verdict.reason, verdict.duplicate_of) == ("near", "r1#0")
    assert verdict.detail is not None
    assert 0.9 < float(verdict.detail.removeprefix("similarity ")) < 1


def test_duplicates_store_accepted_samples_only() -> None:
    """In a chain of small changes, each text is compared with accepted texts only."""
    draw = random.Random(4)
    text = " ".join(draw.choice(WORDS) for _ in range(60))
    chain = [text]
    for _ in range(12):
        words = chain[-1].split()
        words[draw.randrange(60)] = draw.choice(WORDS)
        words[draw.randrange(60)] = draw.choice(WORDS)
        chain.append(" ".join(words))
    found = outcomes(Duplicates(near()), *chain)
    kept = [text for text, reason in zip(chain, found, strict=True) if reason is None]
    assert len(kept) > 1
    assert all(
        jaccard(one, other) < 0.9 for place, one in enumerate(kept) for other in kept[:place]
    )


@pytest.mark.parametrize(
    "rules", [SelectionRules(dedup_memory_mb=8), near(0.8, 8), near(0.5, 8), near(0.9, 3)]
)
def test_duplicates_memory_is_fixed(rules: SelectionRules) -> None:
    stage = Duplicates(rules)
    before = stage.nbytes
    assert before <= rules.dedup_memory_mb * 2**20
    assert before >= 0.5 * rules.dedup_memory_mb * 2**20
    assert (
        stage.capacity
        == memory_capacity(rules)
        == rules.dedup_memory_mb * 2**20 // bytes_per_sample(rules)
    )
    outcomes(stage, *(f"{number} {WORDS[number % 50]}" for number in range(300)))
    assert stage.nbytes == before


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_duplicates_forget_oldest_samples_beyond_capacity(
    kind: str,
) -> None:
    rules = near() if kind == "near" else SelectionRules(dedup_on=("completion",))
    stage = Duplicates(rules, capacity=4)
    first = [" ".join(WORDS[start : start + 10]) for start in range(0, 50, 10)]
    assert outcomes(stage, *first) == [None] * 5
    assert (stage.stored, stage.forgotten) == (4, 1)
    assert outcomes(stage, *first[1:]) == ["exact"] * 4
    assert outcomes(stage, first[0]) == [None]
    assert outcomes(stage, first[1]) == [None]  # the one before took its place
    assert (stage.stored, stage.forgotten) == (4, 3)


# -- fingerprint -----------------------------------------------------------------------------------


def test_hashing_keys_are_absent_for_first_hashing_and_without_near() -> None:
    assert hashing_keys(near()) == {}, "selections of earlier releases keep their fingerprint"
    assert hashing_keys(SelectionRules(), version="9.9") == {}


def test_hashing_keys_record_another_version() -> None:
    expected = {"near_duplicates": {**FIRST_HASHING, "version": "9.9"}}
    assert hashing_keys(near(), version="9.9") == expected


def test_first_hashing_has_the_constants_of_the_stage() -> None:
    assert metadata.version("rensa") == FIRST_HASHING["version"]
    assert (PERMUTATIONS, SIGNATURE_SEED, SHINGLE_CHARS) == (128, 42, 5)
    assert (RECALL, MAX_CHAIN) == (0.98, 32)


def test_near_duplicates_at_threshold_of_one_are_equal_after_normalization() -> None:
    found = outcomes(Duplicates(near(1.0)), "Straße 12", "ＳＴＲＡＳＳＥ  １２", "Strasse 13")
    assert found == [None, "near", None], "an estimate equal to the threshold counts"
