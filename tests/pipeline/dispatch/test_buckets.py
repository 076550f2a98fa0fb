import collections
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.messages import Batch, Completion, Request, RowRef
from actors.protocol.sampling import Sampling
from actors.protocol.size_buckets import prompt_size_buckets
from pipeline.dispatch.buckets import (
    PREFIX_TOKENS,
    BucketConfig,
    fill_batches,
    mean_request_tokens,
    request_tokens,
)

SIZE_BUCKETS = prompt_size_buckets(512)


def request(
    row: int, length: int, new: int = 8, first: int = 1, sample: int = 0, samples: int = 1
) -> Request:
    ids = array("i", [first] * (length - 1) + [row % 97 + 2])
    return Request(RowRef(0, row, sample, samples), ids, Sampling(max_tokens=new))


def only_batches(items: Iterator[Batch | Completion]) -> list[Batch]:
    return [item for item in items if isinstance(item, Batch)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 100), st.integers(1, 3)), max_size=80),
    st.integers(1, 3000),
    st.integers(1, 40),
    st.integers(1, 20),
)
def test_requests_are_batched_once_within_budget_and_age(
    shapes: list[tuple[int, int, int]], budget: int, max_age_rows: int, concurrency: int
) -> None:
    requests = [request(row, *shape) for row, shape in enumerate(shapes)]
    read = 0

    def source() -> Iterator[Request]:
        nonlocal read
        for item in requests:
            read += 1
            yield item

    config = BucketConfig(SIZE_BUCKETS, budget, max_age_rows)
    batched = []
    for batch in fill_batches(source(), config, lambda: concurrency):
        assert isinstance(batch, Batch)
        tokens = [request_tokens(item, SIZE_BUCKETS) for item in batch.requests]
        assert len(tokens) == 1 or sum(tokens) <= budget
        oldest_row = min(item.ref.row for item in batch.requests)
        assert read - oldest_row <= max_age_rows + 1 or read == len(requests)
        batched += [item.ref for item in batch.requests]
    assert sorted(batched) == [item.ref for item in requests]


def test_mean_share_counts_padding_and_completions() -> None:
    requests = [
        Request(RowRef(0, 0), array("i", [1] * 9), Sampling(max_tokens=6)),
        Request(RowRef(0, 1), array("i", [1] * 8), continuations=(array("i", [2]),)),
    ]
    assert mean_request_tokens(requests, (8, 16)) == ((16 + 6) + (8 + 8)) / 2


def test_equal_requests_give_equal_batches() -> None:
    requests = [request(row, row % 50 + 1) for row in range(300)]
    config = BucketConfig(SIZE_BUCKETS, 1000)
    assert list(fill_batches(requests, config)) == list(fill_batches(requests, config))


def test_batches_hold_prompts_of_similar_length() -> None:
    requests = []
    for row in range(200):
        length = 16 if row % 2 else 256
        requests.append(request(row, length, first=row + 200))

    large_batches = 0
    mixed_batches = 0
    for batch in only_batches(fill_batches(requests, BucketConfig(SIZE_BUCKETS, 2000))):
        if len(batch.requests) > 4:
            lengths = {len(item.prompt_ids) for item in batch.requests}
            large_batches += 1
            mixed_batches += len(lengths) > 1
    assert large_batches > 10
    assert mixed_batches <= 1


def test_prompts_that_share_a_prefix_are_batched_together() -> None:
    lengths = [PREFIX_TOKENS + 8 + 20 * (row // 4 % 5) for row in range(200)]
    requests = [request(row, lengths[row], first=row % 4 + 300) for row in range(200)]
    config = BucketConfig(SIZE_BUCKETS, 4000, max_bucket_age_rows=10_000)

    single_prefix_batches = 0
    for batch in only_batches(fill_batches(requests, config, lambda: 1)):
        prefixes = {item.prompt_ids[0] for item in batch.requests}
        single_prefix_batches += len(prefixes) == 1 and len(batch.requests) > 8
    assert single_prefix_batches >= 4


@pytest.mark.parametrize("length", [8, 200])
def test_samples_of_a_row_stay_together_and_fill_batches(length: int) -> None:
    requests = [
        request(row, length, first=row + 100, sample=sample, samples=4)
        for row in range(100)
        for sample in range(4)
    ]
    batches = only_batches(fill_batches(requests, BucketConfig(SIZE_BUCKETS, 4096)))
    batches_of_row = collections.defaultdict(set)
    for number, batch in enumerate(batches):
        for sent in batch.requests:
            batches_of_row[sent.ref.row].add(number)
    assert sum(len(numbers) == 1 for numbers in batches_of_row.values()) > 70
    assert sum(len(batch.requests) for batch in batches) / len(batches) > 4


def test_small_prefix_groups_share_batches() -> None:
    requests = [request(row, 100, first=row // 2 % 500 + 1) for row in range(4000)]
    batches = only_batches(
        fill_batches(requests, BucketConfig(SIZE_BUCKETS, 4096, max_bucket_age_rows=100))
    )
    assert sum(len(batch.requests) for batch in batches) / len(batches) > 12


def test_last_batches_are_split_over_all_replicas() -> None:
    requests = [request(row, 16) for row in range(40)]
    batches = only_batches(fill_batches(requests, BucketConfig(SIZE_BUCKETS, 8192), lambda: 4))
    assert len(batches) >= 4
    assert max(len(batch.requests) for batch in batches) <= 21


def test_completions_pass_at_once() -> None:
    failed = Completion.failed(RowRef(0, 9), "empty_prompt", "no token")
    items = fill_batches([request(0, 3), failed], BucketConfig(SIZE_BUCKETS, 100))
    assert next(iter(items)) is failed


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BucketConfig(SIZE_BUCKETS, 0)


def test_batch_has_prefix_key_only_if_all_its_prompts_share_it() -> None:
    alike = [request(row, 60, first=1) for row in range(4)]
    mixed = [*alike, request(9, 60, first=2)]
    (shared,) = only_batches(fill_batches(alike[:1], BucketConfig(SIZE_BUCKETS, 4096)))
    assert shared.prefix_key == alike[0].prompt_ids[:PREFIX_TOKENS].tobytes()
    for batch in only_batches(fill_batches(mixed, BucketConfig(SIZE_BUCKETS, 4096))):
        prefixes = {sent.prompt_ids[:PREFIX_TOKENS].tobytes() for sent in batch.requests}
        assert (batch.prefix_key is not None) == (len(prefixes) == 1)
    different = [alike[0], mixed[-1]]
    (batch,) = only_batches(fill_batches(different, BucketConfig(SIZE_BUCKETS, 4096)))
    assert batch.prefix_key is None
