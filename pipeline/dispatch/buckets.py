"""Requests → batches that pad little, share prefixes and fill the token budget.

A request waits in an open bucket with requests of its size bucket, or of its prefix, which a
replica then computes once. A bucket becomes a batch when the token budget is full, when it is old,
or at the end of the input. Depends on lengths and leading tokens only, not on text.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from actors.protocol.messages import Batch, Request
from actors.protocol.size_buckets import bucket_size
from pipeline.records import Passing

PREFIX_TOKENS = 32  # leading tokens that two prompts must share to go into one bucket
REMEMBERED_PREFIXES = 4096
# At the end of the input, a batch holds at least the budget divided by this.
SMALLEST_BATCH_DIVISOR = 64


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """Sizes of batches.

    Raises:
        ValueError: a size is below 1.
    """

    prompt_sizes: tuple[int, ...]  # sizes of the size buckets, tokens, ascending
    batch_tokens: int
    max_bucket_age_rows: int = 2048

    def __post_init__(self) -> None:
        if self.batch_tokens < 1 or self.max_bucket_age_rows < 1:
            raise ValueError(
                f"batch_tokens and max_bucket_age_rows must be at least 1, got {self.batch_tokens} "
                f"and {self.max_bucket_age_rows}"
            )


def request_tokens(request: Request, prompt_sizes: tuple[int, ...]) -> int:
    """Returns a request's share of the token budget: its padded prompt and all it may add."""
    prompt = bucket_size(len(request.prompt_ids), prompt_sizes)
    if request.sampling is not None:
        return prompt + request.sampling.max_tokens
    return prompt + sum(bucket_size(len(ids), prompt_sizes) for ids in request.continuations)


def mean_request_tokens(requests: Sequence[Request], prompt_sizes: tuple[int, ...]) -> float:
    """Returns the mean of `request_tokens` over requests, of which there is at least one."""
    tokens = sum(request_tokens(request, prompt_sizes) for request in requests)
    return tokens / len(requests)


def fill_batches(
    requests: Iterable[Request | Passing],
    config: BucketConfig,
    concurrency: Callable[[], int] = lambda: 1,
) -> Iterator[Batch | Passing]:
    """Yields every request in exactly one batch; all other items of `requests` pass through.

    No request waits for more than `max_bucket_age_rows` later ones. `concurrency` returns the
    number of batches that replicas hold at the same time: at the end of the input, batches are made
    small enough to keep all replicas busy.
    """
    buckets = _OpenBuckets(config)
    for item in requests:
        if isinstance(item, Request):
            yield from buckets.add(item)
        else:
            yield item

    yield from buckets.close(max(1, concurrency()))


@dataclass(slots=True)
class _Bucket:
    opened_at: int  # requests added to all buckets before
    tokens: int = 0
    requests: list[Request] = field(default_factory=list)

    @property
    def first_length(self) -> int:
        return len(self.requests[0].prompt_ids)


class _OpenBuckets:
    """The open buckets, oldest first, and the prefixes of recent prompts."""

    def __init__(self, config: BucketConfig) -> None:
        self._config = config
        # The key is a prefix (bytes) or the size (int) of a size bucket.
        self._buckets: OrderedDict[bytes | int, _Bucket] = OrderedDict()
        self._recent_prefixes: OrderedDict[bytes, None] = OrderedDict()
        self._last_text: tuple[int, int, int] | None = None
        self._last_key: bytes | int = 0
        self._added = 0

    def add(self, request: Request) -> Iterator[Batch]:
        """Puts the request into its bucket; yields the batches that are then full or too old."""
        key = self._key(request)
        tokens = request_tokens(request, self._config.prompt_sizes)

        bucket = self._buckets.get(key)
        if bucket is not None and bucket.tokens + tokens > self._config.batch_tokens:
            del self._buckets[key]
            yield _batch(bucket.requests)
            bucket = None
        if bucket is None:
            bucket = _Bucket(opened_at=self._added)
            self._buckets[key] = bucket

        bucket.requests.append(request)
        bucket.tokens += tokens
        self._added += 1
        while self._oldest_is_overdue():
            yield self._take_oldest()

    def close(self, concurrency: int) -> Iterator[Batch]:
        """Yields the remaining requests in batches that get smaller.

        So no replica finishes long after the others.
        """
        requests: list[Request] = []
        for bucket in sorted(self._buckets.values(), key=_length_and_age):
            requests += bucket.requests
        self._buckets.clear()

        tokens = [request_tokens(request, self._config.prompt_sizes) for request in requests]
        remaining_tokens = sum(tokens)
        smallest = self._config.batch_tokens // SMALLEST_BATCH_DIVISOR
        start = 0
        while start < len(requests):
            fair_share = max(remaining_tokens // concurrency, smallest)
            budget = min(fair_share, self._config.batch_tokens)
            end = start + 1
            batch_tokens = tokens[start]
            while end < len(requests) and batch_tokens + tokens[end] <= budget:
                batch_tokens += tokens[end]
                end += 1

            yield _batch(requests[start:end])
            remaining_tokens -= batch_tokens
            start = end

    def _oldest_is_overdue(self) -> bool:
        if not self._buckets:
            return False
        oldest = next(iter(self._buckets.values()))
        return self._added - oldest.opened_at > self._config.max_bucket_age_rows

    def _take_oldest(self) -> Batch:
        """Removes the oldest bucket and merges buckets of similar length into it.

        So rows of many rare prefixes share a batch.
        """
        _, oldest = self._buckets.popitem(last=False)
        length = oldest.first_length
        tokens = oldest.tokens
        requests = oldest.requests

        def distance(key: bytes | int) -> int:
            return abs(self._buckets[key].first_length - length)

        for key in sorted(self._buckets, key=distance):
            if tokens + self._buckets[key].tokens <= self._config.batch_tokens:
                similar = self._buckets.pop(key)
                tokens += similar.tokens
                requests += similar.requests
        return _batch(requests)

    def _key(self, request: Request) -> bytes | int:
        text = (request.ref.shard, request.ref.row, request.ref.window)
        if text != self._last_text:
            self._last_text = text
            self._last_key = self._key_of_text(request)
        return self._last_key  # all samples of a row go into the same bucket

    def _key_of_text(self, request: Request) -> bytes | int:
        """Returns the prefix if an earlier prompt had it too, else the size of the size bucket."""
        prefix = _prefix(request)
        if prefix in self._recent_prefixes:
            self._recent_prefixes.move_to_end(prefix)
            return prefix

        if prefix:
            self._recent_prefixes[prefix] = None
        if len(self._recent_prefixes) > REMEMBERED_PREFIXES:
            self._recent_prefixes.popitem(last=False)
        return bucket_size(len(request.prompt_ids), self._config.prompt_sizes)


def _length_and_age(bucket: _Bucket) -> tuple[int, int]:
    return bucket.first_length, bucket.opened_at


def _batch(requests: Sequence[Request]) -> Batch:
    prefix = _prefix(requests[0])
    is_shared = bool(prefix) and all(_prefix(request) == prefix for request in requests)
    return Batch(tuple(requests), prefix_key=prefix if is_shared else None)


def _prefix(request: Request) -> bytes:
    """Returns the leading tokens of the prompt as bytes; none for a short prompt."""
    ids = request.prompt_ids
    return ids[:PREFIX_TOKENS].tobytes() if len(ids) > PREFIX_TOKENS else b""
