import pytest

from pipeline.monitoring.token_rates import WINDOW_S, TokenRates


def test_rates_are_since_the_start_within_the_first_minute() -> None:
    rates = TokenRates()
    assert rates.rates(0.0) == (0.0, 0.0)
    rates.add(5.0, 100, 10)
    assert rates.rates(10.0) == (10.0, 1.0)


def test_rates_are_of_the_last_minute() -> None:
    rates = TokenRates()
    for second in range(301):
        rates.add(float(second), 10 * second, second)
    assert rates.rates(300.0) == (10.0, 1.0)
    assert rates.rates(330.0) == (5.0, 0.5)
    assert rates.rates(300.0 + WINDOW_S) == (0.0, 0.0)


def test_burst_after_a_pause_counts_within_the_window_only() -> None:
    rates = TokenRates()
    rates.add(1.0, 6000, 0)
    rates.add(300.0, 6600, 60)
    assert rates.rates(301.0) == (10.0, 1.0)


def test_reading_changes_nothing() -> None:
    rates = TokenRates()
    rates.add(5.0, 100, 10)
    assert rates.rates(500.0) == (0.0, 0.0)
    assert rates.rates(10.0) == (10.0, 1.0)


def test_samples_are_bounded() -> None:
    rates = TokenRates()
    for step in range(100_000):
        rates.add(step / 100, step, step)
    assert len(rates._samples) <= WINDOW_S + 2
    assert rates.rates(1000.0) == pytest.approx((100.0, 100.0), rel=0.05)


def test_working_rate_leaves_out_compilation_of_the_window() -> None:
    rates = TokenRates()
    assert rates.working_rate(0.0, 2) == 0.0
    rates.add(30.0, 80, 20, compile_s=40.0)
    assert rates.working_rate(30.0, 2) == 10.0
    assert rates.working_rate(40.0, 2) == 5.0
    rates.add(100.0, 800, 200, compile_s=40.0)
    assert rates.working_rate(100.0, 2) == pytest.approx(900 / 70)


def test_working_rate_counts_a_tenth_of_the_window_at_least() -> None:
    rates = TokenRates()
    rates.add(30.0, 80, 20, compile_s=90.0)
    assert rates.working_rate(30.0, 1) == pytest.approx(100 / 3)
