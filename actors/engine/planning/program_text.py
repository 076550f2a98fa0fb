"""The text of a compiled program → what it asks of the interconnect, and what it does with the int8 weights.

Reads XLA's optimised HLO. Knows nothing of models: a weight is what comes in as int8 with at least
two dimensions.
"""

import re
from collections import Counter
from collections.abc import Iterator

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%([\w.-]+) = (\S+|\(.*?\)) ([a-z][\w-]*)\((.*?)\)(?:, |$)")
_PASSED_ON = {
    "parameter",
    "get-tuple-element",
    "tuple",
    "while",
    "conditional",
    "call",
    "bitcast",
    "opt-barrier",
}
_PRODUCTS = {"dot", "custom-call"}  # a kernel of ours, or one of a library


def count_collectives(program: str) -> dict[str, int]:
    """Returns how many collectives of each kind stand in a compiled program.

    None of ours stands in a loop over layers.
    """
    return dict(Counter(found[1] for found in _CALL.finditer(program)))


def weight_copies(program: str) -> list[str]:
    """Returns the instructions that take an int8 weight and are no matrix product: those that copy, slice or widen it.

    A fusion is a product when its computation has one: what it takes as int8 is widened in
    registers, on the way to the product.
    """
    computations = dict(_computations(program))
    weights = _weight_types(program)
    fused = {
        name
        for lines in computations.values()
        for line in lines
        for name in re.findall(r"calls=%([\w.-]+)", line)
    }
    return [
        f"{name}: {operation} to {kind}"
        for computation, lines in computations.items()
        if computation not in fused
        for name, operation, kind in _consumers(lines, weights)
        if operation not in _PRODUCTS
        and not (operation == "fusion" and _is_product(name, lines, computations))
    ]


def _computations(program: str) -> Iterator[tuple[str, list[str]]]:
    name = ""
    lines: list[str] = []
    for line in program.splitlines():
        if begun := _COMPUTATION.match(line):
            name, lines = begun[2], []
        elif line == "}":
            yield name, lines
        else:
            lines.append(line)


def _weight_types(program: str) -> set[str]:
    """Returns the types, like "s8[8,64,32]", of the program's int8 inputs with two or more dimensions."""
    entry = next(line for line in program.splitlines() if line.startswith("ENTRY "))
    return set(re.findall(r"s8\[\d+(?:,\d+)+\]", entry.split(" -> ")[0]))


def _consumers(lines: list[str], weights: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yields name, operation and result type of the instructions that take a weight and do not just pass it on."""
    parsed = [found for line in lines if (found := _INSTRUCTION.match(line))]
    holders = {found[1] for found in parsed if found[2].split("{")[0] in weights}
    for found in parsed:
        if found[3] not in _PASSED_ON and holders & set(re.findall(r"%([\w.-]+)", found[4])):
            yield found[1], found[3], found[2].split("{")[0]


def _is_product(name: str, lines: list[str], computations: dict[str, list[str]]) -> bool:
    line = next(line for line in lines if re.match(rf" +(?:ROOT )?%{re.escape(name)} = ", line))
    called = re.search(r"calls=%([\w.-]+)", line)
    return called is not None and any(
        " dot(" in inner for inner in _reached(called[1], computations)
    )


def _reached(computation: str, computations: dict[str, list[str]]) -> Iterator[str]:
    """Yields the lines of a computation and of the fusions inside it."""
    for line in computations[computation]:
        yield line
        for inner in re.findall(r"calls=%([\w.-]+)", line):
            yield from _reached(inner, computations)
