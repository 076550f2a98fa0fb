"""sequence.py: targets by position and by token, and the sizes of a sequence."""

import numpy as np

from actors.engine.scheduling.sequence import Sequence, SharedPrefixScores, Targets, no_targets
from tests.actors.engine.engines import generate


def targets(positions: list[int], tokens: list[int]) -> Targets:
    return Targets(np.asarray(positions, np.int32), np.asarray(tokens, np.int32))


def fill(some: Targets, index: list[int], logprobs: list[float]) -> None:
    count = len(index)
    some.fill(
        np.asarray(index),
        np.asarray(logprobs, np.float32),
        np.ones(count, np.bool_),
        np.full((count, 2), 7, np.int32),
        np.full((count, 2), -1.0, np.float32),
    )


def test_targets_within_a_range_include_its_start_only() -> None:
    some = targets([1, 3, 3, 5], [0, 0, 0, 0])
    assert some.within(1, 3).tolist() == [0]
    assert some.within(3, 5).tolist() == [1, 2]
    assert some.within(3, 6).tolist() == [1, 2, 3]


def test_index_by_token_matches_position_and_token() -> None:
    some = targets([0, 1, 2, 2, 4], [11, 99, 13, 98, 15])
    tokens = np.array([10, 11, 12, 13, 14], np.int32)
    assert some.index_by_token(tokens).tolist() == [-1, 0, -1, 2, -1]


def test_copy_shared_copies_results_and_counts_them() -> None:
    source = targets([0, 1, 2], [5, 6, 7])
    fill(source, [0, 1, 2], [-1.0, -2.0, -3.0])
    reader = targets([1, 2, 9], [6, 7, 8])
    reader.copy_shared(SharedPrefixScores(np.array([0, 1]), source, np.array([1, 2])))
    assert reader.missing == 1
    assert reader.logprobs[:2].tolist() == [-2.0, -3.0]
    assert np.isnan(reader.logprobs[2])
    assert reader.top_ids.tolist() == [[7, 7], [7, 7], [0, 0]]


def test_sequence_grows_to_all_but_its_last_new_token() -> None:
    prompt = np.array([5, 6, 7], np.int32)
    request = generate(0, prompt.tolist(), 4)
    generating = Sequence(request, prompt, 2, no_targets(), max_new_tokens=4)
    scoring = Sequence(request, prompt, 3, no_targets())
    assert (generating.generates, generating.longest) == (True, 6)
    assert (scoring.generates, scoring.longest) == (False, 3)
