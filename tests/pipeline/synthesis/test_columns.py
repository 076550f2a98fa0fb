from actors.protocol.sampling import PARAMETERS
from pipeline.synthesis.columns import COMPLETED, RESERVED, VOTES


def test_reserved_names_cover_all_columns_but_the_seed_parameter() -> None:
    assert (set(COMPLETED.names) | set(VOTES.names)) - RESERVED == {"seed"}
    assert "seed" in PARAMETERS
    assert {"id", "stage", "reason", "detail", "duplicate_of", "samples", "_status"} <= RESERVED


def test_reserved_names_leave_sampling_parameters_to_the_seeds() -> None:
    assert RESERVED.isdisjoint(PARAMETERS)
