"""Requests → batches that pad little, share prefixes and fill the token budget.

A request waits in an open bucket with others of its length (its size bucket) or of its
beginning (a family that shares a prefix, which a replica then computes once). A bucket leaves as a
batch when the budget is full, when it grew old, or at the end of the input; a batch of one family
says so, and dispatch sends it where the family ran before. All else passes straight through. Knows
lengths only: no text, no replicas beyond how many lanes there are.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from actors.protocol.messages import Batch, Request
from actors.protocol.size_buckets import bucket_size
from pipeline.records import Passing

PREFIX_TOKENS = 32  # leading tokens that two prompts must have in common to travel together
REMEMBERED_PREFIXES = 4096
# batches at the end of the input hold at least this fraction of the budget: 1 / 64
SMALLEST_SHARE = 64


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """Sizes of batches; all counts are tokens unless they say rows."""

    prompt_sizes: tuple[int, ...]
    batch_tokens: int
    max_bucket_age_rows: int = 2048

    def __post_init__(self) -> None:
        if self.batch_tokens < 1 or self.max_bucket_age_rows < 1:
            raise ValueError(
                f"batch_tokens and max_bucket_age_rows must be at least 1, got {self.batch_tokens} "
                f"and {self.max_bucket_age_rows}"
            )


@dataclass(slots=True)
class _Bucket:
    born: int  # requests seen when it was opened
    tokens: int = 0
    requests: list[Request] = field(default_factory=list)


def request_tokens(request: Request, prompt_sizes: tuple[int, ...]) -> int:
    """Returns what a request takes of a batch's budget: its padded prompt and every token it may add."""
    prompt = bucket_size(len(request.prompt_ids), prompt_sizes)
    if request.sampling is not None:
        return prompt + request.sampling.max_tokens
    return prompt + sum(bucket_size(len(ids), prompt_sizes) for ids in request.continuations)


def fill_batches(
    requests: Iterable[Request | Passing],
    config: BucketConfig,
    lanes: Callable[[], int] = lambda: 1,
) -> Iterator[Batch | Passing]:
    """Yields every request in exactly one batch; all other items of `requests` pass through.

    No request waits for more than `max_bucket_age_rows` later ones. `lanes` says how many batches
    the replicas work on at the same time: what is left at the end of the input is cut fine enough
    to keep all of them busy.
    """
    buckets = _Buckets(config)
    for item in requests:
        if isinstance(item, Request):
            yield from buckets.add(item)
        else:
            yield item
    yield from buckets.rest(max(1, lanes()))


class _Buckets:
    """The open buckets, oldest first, and the prefixes seen lately."""

    def __init__(self, config: BucketConfig) -> None:
        self._config = config
        self._open: OrderedDict[object, _Bucket] = OrderedDict()
        self._prefixes: OrderedDict[bytes, None] = OrderedDict()
        self._last_row: tuple[int, int] | None = None
        self._last_key: object = None
        self._seen = 0
        self._batches = 0

    def add(self, request: Request) -> Iterator[Batch]:
        """Puts the request into its bucket; yields what is thereby full or too old."""
        key, tokens = self._key(request), request_tokens(request, self._config.prompt_sizes)
        bucket = self._open.get(key)
        if bucket is not None and bucket.tokens + tokens > self._config.batch_tokens:
            yield self._batch(self._open.pop(key).requests)
            bucket = None
        if bucket is None:
            bucket = self._open[key] = _Bucket(born=self._seen)
        bucket.requests.append(request)
        bucket.tokens += tokens
        self._seen += 1
        while (
            self._open
            and self._seen - next(iter(self._open.values())).born > self._config.max_bucket_age_rows
        ):
            yield self._oldest()

    def _oldest(self) -> Batch:
        """Returns the oldest bucket, filled up with whole buckets of similar length: many small families make one batch."""
        _, bucket = self._open.popitem(last=False)
        length, tokens, requests = (
            len(bucket.requests[0].prompt_ids),
            bucket.tokens,
            bucket.requests,
        )
        for key in sorted(self._open, key=lambda key: abs(self._first_length(key)[0] - length)):
            if tokens + self._open[key].tokens <= self._config.batch_tokens:
                other = self._open.pop(key)
                tokens += other.tokens
                requests += other.requests
        return self._batch(requests)

    def rest(self, lanes: int) -> Iterator[Batch]:
        """Yields all that is left, in ever smaller batches, so that no replica ends long after the others."""
        buckets = [
            self._open.pop(key).requests for key in sorted(self._open, key=self._first_length)
        ]
        left = [request for requests in buckets for request in requests]
        tokens = [request_tokens(request, self._config.prompt_sizes) for request in left]
        remaining, start = sum(tokens), 0
        while start < len(left):
            share = max(remaining // lanes, self._config.batch_tokens // SMALLEST_SHARE)
            budget, end, taken = min(share, self._config.batch_tokens), start, 0
            while end < len(left) and (end == start or taken + tokens[end] <= budget):
                taken += tokens[end]
                end += 1
            yield self._batch(left[start:end])
            remaining -= taken
            start = end

    def _key(self, request: Request) -> object:
        """A prefix that was seen before names the bucket.

        Any other request goes with those of its length.
        """
        row = (request.ref.shard, request.ref.row)
        # else another sample of the same row: it goes where the last one went
        if row != self._last_row:
            self._last_row, self._last_key = row, self._key_of_row(request)
        return self._last_key

    def _key_of_row(self, request: Request) -> object:
        prefix = _beginning(request)
        if prefix in self._prefixes:
            self._prefixes.move_to_end(prefix)
            return prefix
        if prefix:
            self._prefixes[prefix] = None
        if len(self._prefixes) > REMEMBERED_PREFIXES:
            self._prefixes.popitem(last=False)
        return bucket_size(len(request.prompt_ids), self._config.prompt_sizes)

    def _first_length(self, key: object) -> tuple[int, int]:
        bucket = self._open[key]
        return len(bucket.requests[0].prompt_ids), bucket.born

    def _batch(self, requests: list[Request]) -> Batch:
        self._batches += 1
        family = _beginning(requests[0])
        alike = len(family) > 0 and all(_beginning(request) == family for request in requests)
        return Batch(self._batches, tuple(requests), family if alike else None)


def _beginning(request: Request) -> bytes:
    """Returns the leading tokens by which prompts are told to begin alike.

    Nothing for a short prompt.
    """
    ids = request.prompt_ids
    return ids[:PREFIX_TOKENS].tobytes() if len(ids) > PREFIX_TOKENS else b""
