from dataclasses import replace

from pipeline.monitoring.snapshot import Snapshot

SNAPSHOT = Snapshot(
    rows=1500,
    rows_total=20_000,
    tokens_in=4000,
    tokens_out=100,
    tokens_in_per_s=1234.4,
    tokens_out_per_s=56.6,
    padding=0.125,
    errors=0,
    retries=0,
    up=3,
    wanted=4,
    elapsed_s=10.0,
    eta_s=61.9,
    replica_hours=0.5,
    cost=None,
)


def test_prefix_reuse_is_the_share_of_input_tokens() -> None:
    assert replace(SNAPSHOT, cached=1000).prefix_reuse == 0.25
    assert replace(SNAPSHOT, tokens_in=0).prefix_reuse == 0.0
