"""The text of a compiled program → launches, collectives, and copies of int8 weights.

Reads XLA's optimised HLO. A weight is an int8 input of at least two dimensions.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median_low

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
# Instructions that run nothing on the device: they name, pass on or wait.
_FREE = _PASSED_ON | {"constant", "partition-id", "replica-id", "after-all"}
_LAYER = re.compile(r'op_name="[^"]*/decoder_layer_(\d+)/')
_PRODUCTS = {"dot", "custom-call"}  # a kernel of ours, or one of a library


def count_collectives(program: str) -> dict[str, int]:
    """Returns the number of collectives of each kind in a compiled program.

    None of ours stands in a loop over layers, so this is the number that a call runs.
    """
    return dict(Counter(match[1] for match in _CALL.finditer(program)))


@dataclass(frozen=True, slots=True)
class Launches:
    """Kernels, copies and collectives that a step of a program launches on a device."""

    step: int  # of one call; of a decode: of one token of every slot
    layer: int  # of a decoder layer, the median


def count_launches(program: str) -> Launches:
    """Returns the launches of a compiled program; those of a loop's body count once.

    A step is the computation with the most launches: the body of a decode's loop, or the entry.
    """
    fused = set(re.findall(r"(?:calls|to_apply|called_computations)=\{?%([\w.-]+)", program))
    step = 0
    layers: Counter[str] = Counter()
    for computation, lines in _computations(program):
        if computation in fused:
            continue
        launches = [line for line in lines if _is_launch(line)]
        if len(launches) > step:
            step = len(launches)
            layers = Counter(layer[1] for layer in map(_LAYER.search, launches) if layer)
    # the first layer also has what XLA computes once for all, the last one lacks its residual sum
    layer = median_low(layers.values()) if layers else 0
    return Launches(step, layer)


def _is_launch(line: str) -> bool:
    """Returns whether an instruction runs something; an asynchronous one where it starts."""
    instruction = _INSTRUCTION.match(line)
    if instruction is None:
        return False
    operation = instruction[3]
    return operation not in _FREE and not operation.endswith(("-done", "-update"))


def weight_copies(program: str) -> list[str]:
    """Returns the instructions that copy, slice or widen an int8 weight outside a matrix product.

    A fusion is a product when its computation has one: its int8 operands are widened in registers,
    on the way to the product.
    """
    computations = dict(_computations(program))
    weights = _weight_types(program)
    fused = set(re.findall(r"calls=%([\w.-]+)", program))
    copies: list[str] = []
    for computation, lines in computations.items():
        if computation in fused:
            continue
        for name, operation, result_type in _consumers(lines, weights):
            if operation in _PRODUCTS:
                continue
            if operation == "fusion" and _is_product(name, lines, computations):
                continue
            copies.append(f"{name}: {operation} to {result_type}")
    return copies


def _computations(program: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and the instructions of each computation of a program."""
    name = ""
    lines: list[str] = []
    for line in program.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            name = header[2]
            lines = []
        elif line == "}":
            yield name, lines
        else:
            lines.append(line)


def _weight_types(program: str) -> set[str]:
    """Returns the types, like "s8[8,64,32]", of the int8 inputs of two or more dimensions."""
    entry = next(line for line in program.splitlines() if line.startswith("ENTRY "))
    inputs = entry.split(" -> ")[0]
    return set(re.findall(r"s8\[\d+(?:,\d+)+\]", inputs))


def _consumers(lines: list[str], weights: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yields name, operation and result type of the instructions that use a weight.

    Instructions that only pass it on are left out.
    """
    instructions = [match for match in map(_INSTRUCTION.match, lines) if match]
    holders: set[str] = set()
    for instruction in instructions:
        if _result_type(instruction) in weights:
            holders.add(instruction[1])
    for instruction in instructions:
        operands = set(re.findall(r"%([\w.-]+)", instruction[4]))
        if instruction[3] not in _PASSED_ON and holders & operands:
            yield instruction[1], instruction[3], _result_type(instruction)


def _result_type(instruction: re.Match[str]) -> str:
    """Returns the result type of an instruction without its layout."""
    return instruction[2].split("{")[0]


def _is_product(name: str, lines: list[str], computations: dict[str, list[str]]) -> bool:
    """Returns whether the computation that fusion `name` calls has a matrix product."""
    definition = re.compile(rf" +(?:ROOT )?%{re.escape(name)} = ")
    line = next(line for line in lines if definition.match(line))
    called = re.search(r"calls=%([\w.-]+)", line)
    if called is None:
        return False
    return any(" dot(" in instruction for instruction in _fused_lines(called[1], computations))


def _fused_lines(computation: str, computations: dict[str, list[str]]) -> Iterator[str]:
    """Yields the lines of a computation and of the fusions inside it."""
    for line in computations[computation]:
        yield line
        for called in re.findall(r"calls=%([\w.-]+)", line):
            yield from _fused_lines(called, computations)
