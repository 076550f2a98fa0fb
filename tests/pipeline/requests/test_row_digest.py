"""pipeline/requests/row_digest.py: what a digest depends on, and the buffers of shards."""

import dataclasses
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from actors.protocol.messages import Boundary, Completion, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from pipeline.records import DIGEST_BYTES, Shard, ShardOpened
from pipeline.requests.row_digest import RowDigests, row_digest

SAMPLED = Request(
    RowRef(0, 0), token_ids([3, 4, 5]), sampling=Sampling(max_tokens=4, seed=9), row_id="a"
)
SCORED = Request(
    RowRef(0, 0), token_ids([3]), continuations=(token_ids([4]), token_ids([5])), row_id=7
)


def test_digest_does_not_depend_on_the_place_of_a_row() -> None:
    moved = replace(SAMPLED, ref=RowRef(8, 3), prompt_ids=token_ids([3, 4, 5]))
    assert row_digest(b"run", [SAMPLED]) == row_digest(b"run", [moved])
    assert len(row_digest(b"run", [SAMPLED])) == DIGEST_BYTES


@pytest.mark.parametrize(
    "changed",
    [
        replace(SAMPLED, row_id="b"),
        replace(SAMPLED, prompt_ids=token_ids([3, 4])),
        replace(SAMPLED, sampling=Sampling(max_tokens=4, seed=10)),
        replace(SAMPLED, sampling=Sampling(max_tokens=5, seed=9)),
        replace(SAMPLED, sampling=Sampling(max_tokens=4, seed=9, stop=("x",))),
        replace(SAMPLED, ref=RowRef(0, 0, 0, 2)),
    ],
)
def test_digest_depends_on_id_prompt_and_sampling(changed: Request) -> None:
    assert row_digest(b"run", [changed]) != row_digest(b"run", [SAMPLED])


@pytest.mark.parametrize(
    "changed",
    [
        replace(SCORED, row_id="7"),
        replace(SCORED, continuations=(token_ids([4, 5]),)),
        replace(SCORED, continuations=(token_ids([5]), token_ids([4]))),
        replace(SCORED, boundaries=(Boundary(), Boundary(1, 2))),
    ],
)
def test_digest_depends_on_what_is_scored(changed: Request) -> None:
    assert row_digest(b"run", [changed]) != row_digest(b"run", [SCORED])


def test_digest_depends_on_the_context_and_on_all_requests() -> None:
    windows = [SCORED, replace(SCORED, ref=RowRef(0, 0, 1, 2), prompt_ids=token_ids([8]))]
    digests = {
        row_digest(b"run", [SCORED]),
        row_digest(b"other run", [SCORED]),
        row_digest(b"run", windows),
    }
    assert len(digests) == 3


def test_digest_covers_every_field_of_a_request() -> None:
    """A field that a later version adds counts where it is set."""
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Request)}
    required = [name for name, value in defaults.items() if value is dataclasses.MISSING]
    assert required == ["ref", "prompt_ids"]


def test_row_digests_are_stored_at_their_rows() -> None:
    opened = ShardOpened(Shard(0, "f", 0, 3), pa.table({"id": ["a", "b", "c"]}), bytearray(48))
    digests = RowDigests(b"run")
    digests.open_shard(opened)
    requests = [replace(SAMPLED, ref=RowRef(0, 2))]
    assert list(digests.recorded(requests)) == requests
    failed = [Completion.failed(RowRef(0, 1), "empty_prompt", "no prompt")]
    assert list(digests.recorded(failed)) == failed
    assert opened.digests is not None
    assert opened.digests[: 2 * DIGEST_BYTES] == bytes(2 * DIGEST_BYTES)
    assert opened.digests[2 * DIGEST_BYTES :] == row_digest(b"run", [SAMPLED])
