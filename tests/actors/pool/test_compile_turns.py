from actors.pool.compile_turns import CompileTurns


def test_one_replica_of_a_cache_compiles_first() -> None:
    turns = CompileTurns()
    allowed = [turns.join(f"r{number}", "s3://bucket/jax") for number in range(100)]
    assert allowed == [True] + [False] * 99
    assert turns.is_first("r0")
    assert turns.filled("r0") == [f"r{number}" for number in range(1, 100)]
    assert not turns.is_first("r0")
    assert turns.join("r100", "s3://bucket/jax"), "its programs are in the cache"
    assert turns.filled("r0") == []


def test_caches_of_two_machines_are_filled_separately() -> None:
    turns = CompileTurns()
    assert turns.join("r0", "node 1:/cache")
    assert turns.join("r1", "node 2:/cache")
    assert not turns.join("r2", "node 1:/cache")
    assert turns.filled("r1") == []
    assert turns.filled("r0") == ["r2"]


def test_next_replica_compiles_when_the_first_one_is_lost() -> None:
    turns = CompileTurns()
    for name in ("r0", "r1", "r2", "r3"):
        turns.join(name, "cache")
    assert turns.forget("r1") == []
    assert turns.forget("r0") == ["r2"]
    assert turns.is_first("r2")
    assert turns.filled("r2") == ["r3"]
    assert turns.forget("r2") == []


def test_lost_replica_without_followers_leaves_the_turn_to_the_next_one() -> None:
    turns = CompileTurns()
    assert turns.join("r0", "cache")
    assert turns.forget("r0") == []
    assert turns.join("r1", "cache")
