from jobs.checks.ceilings import TINY_SIZES, measure_ceilings


def test_ceilings_are_rates_of_the_machine() -> None:
    ceilings = measure_ceilings("bfloat16", TINY_SIZES)

    assert ceilings.product_flops_per_s > 0
    assert ceilings.read_bytes_per_s > 0
    assert ceilings.copy_bytes_per_s > 0
