"""Reports tests that were skipped, and fails the session for them where INFRA_SKIPS is `fail`."""

import os

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Ends with an error if a check was not made: `make infra-check` sets INFRA_SKIPS."""
    if os.environ.get("INFRA_SKIPS") != "fail" or session.exitstatus != pytest.ExitCode.OK:
        return
    if skip_reasons(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints the reason of each skipped check at the end."""
    reasons = skip_reasons(config)
    if os.environ.get("INFRA_SKIPS") is None or not reasons:
        return
    terminalreporter.section("checks that were not made")
    for reason in reasons:
        terminalreporter.write_line(reason)
    terminalreporter.write_line("install the tools, or make infra-check INFRA_SKIPS=allow")


def skip_reasons(config: pytest.Config) -> list[str]:
    """Returns the reasons of the tests that were skipped so far, each once."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(reporter, pytest.TerminalReporter)
    reasons: set[str] = set()
    for report in reporter.stats.get("skipped", []):
        reasons.add(str(report.longrepr[2]).removeprefix("Skipped: "))
    return sorted(reasons)
