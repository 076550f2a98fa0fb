"""The seccomp filter, interpreted: what it allows on each architecture."""

import pytest

from pipeline.evals.execution import confinement


@pytest.mark.parametrize("machine", list(confinement.ARCHITECTURES))
def test_filter_allows_only_listed_system_calls(machine: str) -> None:
    """Interprets the filter, which checks the numbers of all architectures on one machine."""
    column, architecture, directory = confinement.ARCHITECTURES[machine]
    named = {pair[column] for pair in confinement.ALLOWED.values()} - {None}
    opening = {pair[column] for pair in (confinement.OPEN, confinement.OPENAT)} - {None}
    mapping = {pair[column] for pair in (confinement.MMAP, confinement.MPROTECT)}
    code = confinement.seccomp_filter(machine)
    for number in range(600):
        verdicts = {
            flags: run_filter(code, number, architecture, flags)
            for flags in (0, 1, 2, 4, 0o100, directory, directory | 0o2000000, directory | 1)
        }
        expected = {
            flags: number in named
            or (number in opening and flags in (directory, directory | 0o2000000))
            or (number in mapping and not flags & confinement.PROT_EXEC)
            for flags in verdicts
        }
        assert {
            flags: verdict == confinement.ALLOW for flags, verdict in verdicts.items()
        } == expected, number
    assert run_filter(code, 0, 1234, 0) == confinement.KILL
    assert run_filter(code, 0x40000000, architecture, 0) == confinement.REFUSE


def run_filter(code: bytes, number: int, architecture: int, flags: int) -> int:
    """Interprets BPF over a struct seccomp_data whose second and third arguments are `flags`."""
    words = {0: number, 4: architecture, 24: flags, 32: flags}
    at, accumulator = 0, 0
    while True:
        kind, yes, no = int.from_bytes(code[at : at + 2], "little"), code[at + 2], code[at + 3]
        constant = int.from_bytes(code[at + 4 : at + 8], "little")
        at += 8
        if kind == confinement.RETURN:
            return constant
        if kind == confinement.LOAD:
            accumulator = words[constant]
            continue
        true = {
            confinement.EQUAL: accumulator == constant,
            confinement.GREATER_OR_EQUAL: accumulator >= constant,
            confinement.ANY_BIT: bool(accumulator & constant),
        }[kind]
        at += 8 * (yes if true else no)
