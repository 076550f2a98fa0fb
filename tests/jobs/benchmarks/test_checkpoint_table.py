import pytest

from jobs.benchmarks.checkpoint_table import HEADER, Load, print_table

ARRAY_BYTES = 10e9


def load(seconds: float, disk_gb_per_s: float | None, *, layout: str = "ckpt-0") -> Load:
    figures = {"arrays": ARRAY_BYTES, "seconds": seconds, "cpu_s": seconds / 2, "beyond": 1e8}
    disk_bytes_per_s = None
    if disk_gb_per_s is not None:
        disk_bytes_per_s = disk_gb_per_s * 1e9
    return Load(layout, "1x8", figures, disk_bytes_per_s)


def test_load_rate_is_bytes_of_arrays_per_second() -> None:
    assert load(4.0, None).bytes_per_s == 2.5e9


def test_checkpoint_table_shows_medians_and_the_ratio_of_each_round(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # 2, 1 and 5 GB/s. The disk has another rate in each round: 50 %, 100 % and 50 % of it.
    print_table([load(5.0, 4.0), load(10.0, 1.0), load(2.0, 10.0)])

    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        HEADER,
        "|---|---|---|---|---|---|---|",
        "| ckpt-0 | 1x8 | 2.00 | 4.00 | 50% (50%, 100%, 50%) | 0.25 | 0.10 |",
    ]
    assert captured.err.splitlines() == [
        "  ckpt-0 1x8: 2.00 GB/s",
        "  ckpt-0 1x8: 1.00 GB/s",
        "  ckpt-0 1x8: 5.00 GB/s",
    ]


def test_checkpoint_table_without_a_disk_shows_no_ratio(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table([load(5.0, None), load(5.0, None, layout="converted")])

    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == [
        "| ckpt-0 | 1x8 | 2.00 | – | – | 0.25 | 0.10 |",
        "| converted | 1x8 | 2.00 | – | – | 0.25 | 0.10 |",
    ]
