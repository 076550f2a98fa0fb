"""pages.py: keys, sharing, counting, eviction."""

from hypothesis import given
from hypothesis import strategies as st

from actors.engine.scheduling.pages import PagePool, page_keys


def test_page_keys_cover_everything_before_a_page_end() -> None:
    one, other = page_keys([1, 2, 3, 4, 5], 2), page_keys([9, 2, 3, 4, 5], 2)
    assert len(one) == 2, "the page that is not full has no key"
    assert one[0] != other[0]
    assert one[1] != other[1], "same tokens in the page, another prefix before it"
    assert page_keys([1, 2, 3, 4], 2) == one


def test_promised_pages_are_matched_and_shared_until_the_last_release() -> None:
    pool, keys = PagePool(4), page_keys(list(range(4)), 2)
    mine = pool.allocate([], 3)
    assert mine is not None
    for page, key in zip(mine, keys, strict=False):
        pool.promise(page, key)
    shared = pool.match(keys)
    assert shared == mine[:2]
    assert not pool.ready(shared[0])
    pool.mark_ready(shared[0])
    assert pool.ready(shared[0])
    theirs = pool.allocate(shared, 1)
    assert theirs is not None
    assert pool.available == 0
    pool.release(mine)
    assert pool.available == 1, "only the page that nobody shares is free"
    pool.release(theirs)
    assert pool.available == 4
    assert pool.match(keys) == shared[:1], "a page that was never filled keeps no content"


def test_allocate_without_room_takes_nothing() -> None:
    pool = PagePool(2)
    assert pool.allocate([], 3) is None
    assert pool.available == 2
    taken = pool.allocate([], 2)
    assert taken is not None
    assert pool.allocate([], 1) is None
    assert pool.allocate(taken, 0) == taken, "sharing needs no room"


def test_reused_page_is_not_ready_until_it_is_filled_again() -> None:
    pool = PagePool(2)
    keys = page_keys([1, 2], 2)
    for key in (None, keys[0]):
        pages = pool.allocate([], 2)
        assert pages is not None
        assert not any(pool.ready(page) for page in pages)
        if key is not None:
            pool.promise(pages[0], key)
        for page in pages:
            pool.mark_ready(page)
        pool.release(pages)
    pages = pool.allocate([], 2)
    assert pages is not None
    assert not any(pool.ready(page) for page in pages)
    assert pool.match(keys) == [], "its content was given up"


def test_least_recently_used_prefix_is_evicted_last_page_first() -> None:
    pool = PagePool(4)
    old, new = page_keys([1, 1, 2, 2], 2), page_keys([5, 5, 6, 6], 2)
    for keys in (old, new):
        pages = pool.allocate([], 2)
        assert pages is not None
        for page, key in zip(pages, keys, strict=True):
            pool.promise(page, key)
            pool.mark_ready(page)
        pool.release(pages)
    taken = pool.allocate([], 1)
    assert taken is not None
    assert len(pool.match(old)) == 1
    assert len(pool.match(new)) == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.booleans()), max_size=40))
def test_pages_are_never_owned_twice_or_lost(requests: list[tuple[int, int, bool]]) -> None:
    """Random prompts over few prefixes come and go; held pages and room always add up."""
    pool, size, held = PagePool(10), 2, []
    for prefix, length, leave in requests:
        keys = page_keys([prefix] * length, size)
        shared = pool.match(keys)
        pages = pool.allocate(shared, -(-length // size) - len(shared))
        if pages is not None:
            for page, key in zip(pages[len(shared) : len(keys)], keys[len(shared) :], strict=True):
                pool.promise(page, key)
                pool.mark_ready(page)
            held.append((pages, len(shared)))
        if leave and held:
            pool.release(held.pop(0)[0])
        owned = {page for pages, _ in held for page in pages}
        assert len(owned) + pool.available == pool.pages
        private = [page for pages, shared_count in held for page in pages[shared_count:]]
        assert len(private) == len(set(private)), "a fresh page was handed out twice"
    for pages, _ in held:
        pool.release(pages)
    assert pool.available == pool.pages
