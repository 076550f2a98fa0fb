"""A program in its parts: the candidate that a model wrote, and the tests that judge it."""

from typing import Self


class Program(str):
    """A complete program as text, with the parts that run in separate processes.

    The candidate is executed in one process and the tests in another, which calls the candidate's
    function and sees nothing of it but its results. A candidate that ends its process, replaces
    built-in functions or looks into the frames of its caller cannot change a verdict.
    """

    __slots__ = ("candidate", "entry_point", "helpers", "tests")

    candidate: str  # executed first
    helpers: str  # executed before the tests, such as functions of the prompt that they call
    tests: str  # they call the function by its name
    entry_point: str  # name of the function

    @classmethod
    def of(cls, candidate: str, tests: str, *, helpers: str, entry_point: str) -> Self:
        """Returns the program of these parts."""
        program = cls(f"{candidate}\n{tests}")
        program.candidate = candidate
        program.tests = tests
        program.helpers = helpers
        program.entry_point = entry_point
        return program
