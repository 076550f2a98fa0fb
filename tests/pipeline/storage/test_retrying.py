import io

import pytest

from actors.retries import RetryPolicy
from pipeline.storage.retrying import RetriedRanges

DATA = bytes(range(256)) * 8


class Source(io.BytesIO):
    """An opened object whose next reads fail or return too little."""

    size = len(DATA)

    def __init__(self) -> None:
        super().__init__(DATA)
        self.faults: list[str] = []
        self.reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        data = super().read(size)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "reset":
            raise ConnectionResetError(104, "Connection reset by peer")
        return data[: len(data) // 2] if fault == "truncate" else data


def opened(*faults: str) -> tuple[Source, RetriedRanges]:
    source = Source()
    source.faults = list(faults)
    return source, RetriedRanges(source, RetryPolicy(60.0, first_pause_s=0.0))


def test_range_is_read_by_one_request() -> None:
    source, ranges = opened()
    ranges.seek(100)
    assert ranges.read(50) == DATA[100:150]
    assert ranges.tell() == 150
    assert ranges.read() == DATA[150:]
    assert source.reads == 2
    assert ranges.read() == b""
    assert ranges.read(10) == b""
    assert source.reads == 2, "the end is known"


@pytest.mark.parametrize("fault", ["reset", "truncate"])
def test_failed_range_is_read_again_from_its_start(fault: str) -> None:
    source, ranges = opened(fault, fault)
    ranges.seek(-20, io.SEEK_END)
    assert ranges.read(15) == DATA[-20:-5]
    assert source.reads == 3


def test_position_is_kept_when_a_read_fails_for_good() -> None:
    source = Source()
    source.faults = ["reset"]
    ranges = RetriedRanges(source, RetryPolicy(0.0))
    ranges.seek(7)
    with pytest.raises(ConnectionResetError):
        ranges.read(3)
    assert ranges.tell() == 7
    assert ranges.read(3) == DATA[7:10]


def test_closing_closes_the_source() -> None:
    source, ranges = opened()
    with ranges:
        pass
    assert source.closed


def test_small_object_is_read_by_one_request() -> None:
    source = Source()
    source.faults = ["truncate"]
    ranges = RetriedRanges(source, RetryPolicy(60.0, first_pause_s=0.0), small_bytes=len(DATA))
    ranges.seek(-20, io.SEEK_END)
    assert ranges.read(15) == DATA[-20:-5]
    ranges.seek(3)
    assert ranges.read(4) == DATA[3:7]
    assert ranges.read() == DATA[7:]
    assert source.reads == 2
