"""programs.py: a program is its text, and keeps its parts."""

from pipeline.evals.execution.programs import Program


def test_program_is_the_text_of_candidate_and_tests() -> None:
    program = Program.of(
        "def double(x):\n    return 2 * x",
        "assert double(2) == 4",
        helpers="ZERO = 0",
        entry_point="double",
    )
    assert program == "def double(x):\n    return 2 * x\nassert double(2) == 4"
    assert program.candidate.startswith("def double")
    assert program.tests == "assert double(2) == 4"
    assert (program.helpers, program.entry_point) == ("ZERO = 0", "double")
