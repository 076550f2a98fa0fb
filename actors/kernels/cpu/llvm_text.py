"""Builds modules in LLVM's textual language: arithmetic, loads, loops and calls.

Types are their names: "i64", "float", "ptr", "<8 x float>". Numbers in operations take the type of
the value beside them. Variables are places on the stack (`Function.alloca`); LLVM keeps them in
registers. The text is built here and not with `llvmlite.ir` because that (0.50) has no bfloat16
type, its `fma` refuses vectors, and every `x * y + z` is nested builder calls: longer, less clear.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Union

Operand = Union["Value", int, float]


def vector(element: str, lanes: int) -> str:
    """Returns the type of `lanes` numbers side by side."""
    return f"<{lanes} x {element}>"


def constant(number: int | float, type_: str) -> str:
    """Returns a number as text of a type; the same number in every lane of a vector."""
    if type_.startswith("<"):
        element = type_[:-1].split(" x ")[1]
        return f"splat ({element} {constant(number, element)})"
    if type_ == "float":  # the bits of the float64 that equals the float32 nearest to it
        (rounded,) = struct.unpack("f", struct.pack("f", number))
        return f"0x{struct.pack('>d', rounded).hex().upper()}"
    return "null" if type_ == "ptr" else str(int(number))


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A number, vector or pointer in the code; operators write an instruction that takes it."""

    function: "Function"
    type: str
    name: str

    def __add__(self, operand: Operand) -> "Value":
        return self._arithmetic("add", operand)

    def __sub__(self, operand: Operand) -> "Value":
        return self._arithmetic("sub", operand)

    def __mul__(self, operand: Operand) -> "Value":
        return self._arithmetic("mul", operand)

    def __truediv__(self, operand: Operand) -> "Value":
        return self._arithmetic("div", operand)

    def __floordiv__(self, operand: Operand) -> "Value":
        return self._binary("udiv", operand)

    def __mod__(self, operand: Operand) -> "Value":
        return self._binary("urem", operand)

    def __and__(self, operand: Operand) -> "Value":
        return self._binary("and", operand)

    def __or__(self, operand: Operand) -> "Value":
        return self._binary("or", operand)

    def __lshift__(self, operand: Operand) -> "Value":
        return self._binary("shl", operand)

    def __rshift__(self, operand: Operand) -> "Value":
        return self._binary("lshr", operand)

    def compare(self, predicate: str, operand: Operand) -> "Value":
        """Returns the comparison of self with an operand.

        Predicates of integers: "eq", "ne", "slt", "sgt", "ult"; of floats: "olt", "ogt", "uno".
        """
        instruction = "fcmp" if self.is_float else "icmp"
        result = "i1"
        if self.type.startswith("<"):
            result = vector("i1", int(self.type[1:].split(" x ")[0]))
        operands = f"{self.type} {self.name}, {self.operand_text(operand)}"
        return self.function.emit(result, f"{instruction} {predicate} {operands}")

    def cast(self, instruction: str, type_: str) -> "Value":
        """Returns self as another type.

        Instructions: "sext", "zext", "trunc", "sitofp", "fptosi", "bitcast", "ptrtoint".
        """
        return self.function.emit(type_, f"{instruction} {self.type} {self.name} to {type_}")

    def select(self, true_value: "Value", false_value: Operand) -> "Value":
        """Returns `true_value` where self is true and `false_value` where it is not."""
        type_ = true_value.type
        false_text = true_value.operand_text(false_value)
        return self.function.emit(
            type_,
            f"select {self.type} {self.name}, {type_} {true_value.name}, {type_} {false_text}",
        )

    def minimum(self, operand: Operand) -> "Value":
        """Returns the smaller of two numbers; of a NaN and a number, the number."""
        return self.compare(self._signed("lt"), operand).select(self, operand)

    def maximum(self, operand: Operand) -> "Value":
        """Returns the larger of two numbers; of a NaN and a number, the number."""
        return self.compare(self._signed("gt"), operand).select(self, operand)

    def ceil_div(self, operand: Operand) -> "Value":
        """Returns self / operand, rounded up; both positive."""
        return (self + operand - 1) // operand

    def splat(self, lanes: int) -> "Value":
        """Returns a vector with self in every lane."""
        type_ = vector(self.type, lanes)
        first_lane = self.function.emit(
            type_, f"insertelement {type_} poison, {self.type} {self.name}, i64 0"
        )
        mask = f"{vector('i32', lanes)} zeroinitializer"
        return self.function.emit(
            type_, f"shufflevector {type_} {first_lane.name}, {type_} poison, {mask}"
        )

    @property
    def is_float(self) -> bool:
        """Whether self is a floating-point number or a vector of them."""
        return "float" in self.type

    def _signed(self, predicate: str) -> str:
        """Returns the predicate of ordered floats or of signed integers."""
        return f"o{predicate}" if self.is_float else f"s{predicate}"

    def _arithmetic(self, name: str, operand: Operand) -> "Value":
        return self._binary(f"f{name}" if self.is_float else name, operand)

    def _binary(self, instruction: str, operand: Operand) -> "Value":
        return self.function.emit(
            self.type, f"{instruction} {self.type} {self.name}, {self.operand_text(operand)}"
        )

    def operand_text(self, operand: Operand) -> str:
        """Returns an operand as text, a number as one of this type."""
        if isinstance(operand, Value):
            return operand.name
        return constant(operand, self.type)


class Function:
    """One function, written from its first instruction to its last."""

    def __init__(
        self,
        module: "Module",
        name: str,
        returns: str,
        parameters: Mapping[str, str],
        *,
        exported: bool,
    ) -> None:
        self.name = name
        self.returns = returns
        self.parameters: dict[str, Value] = {}
        for parameter, type_ in parameters.items():
            self.parameters[parameter] = Value(self, type_, f"%{parameter}")
        self._module = module
        self._exported = exported
        self._locals: list[str] = []
        self._lines: list[str] = []
        self._count = 0

    def __getitem__(self, parameter: str) -> Value:
        return self.parameters[parameter]

    @property
    def address(self) -> Value:
        """The function itself, as a pointer."""
        return Value(self, "ptr", f"@{self.name}")

    def emit(self, type_: str, instruction: str) -> Value:
        """Writes an instruction and returns its result; of type "void" it has none."""
        if type_ == "void":
            self._lines.append(f"  {instruction}")
            return Value(self, type_, "")
        result = Value(self, type_, f"%v{self._next()}")
        self._lines.append(f"  {result.name} = {instruction}")
        return result

    def constant(self, value: int | float, type_: str = "i64") -> Value:
        """Returns a constant."""
        return Value(self, type_, constant(value, type_))

    def gep(self, pointer: Value, index: Operand, element: str = "i8") -> Value:
        """Returns the address of element `index` of an array; by default elements are bytes."""
        offset = str(int(index)) if isinstance(index, int | float) else index.name
        return self.emit("ptr", f"getelementptr {element}, ptr {pointer.name}, i64 {offset}")

    def load(self, pointer: Value, type_: str, align: int = 1) -> Value:
        """Returns the value at an address."""
        return self.emit(type_, f"load {type_}, ptr {pointer.name}, align {align}")

    def store(self, value: Value, pointer: Value, align: int = 1) -> None:
        """Writes a value to an address."""
        self.emit("void", f"store {value.type} {value.name}, ptr {pointer.name}, align {align}")

    def alloca(self, type_: str, start: Operand | None = None, count: int = 1) -> Value:
        """Returns the address of a variable, or of an array of `count`, that begins as `start`."""
        address = Value(self, "ptr", f"%v{self._next()}")
        self._locals.append(f"  {address.name} = alloca {type_}, i64 {count}, align 64")
        if isinstance(start, Value):
            self.store(start, address)
        elif start is not None:
            self.store(self.constant(start, type_), address)
        return address

    def call(self, callee: "Function", *arguments: Value) -> Value:
        """Calls a function of this module."""
        return self._call(callee.returns, f"@{callee.name}", arguments)

    def call_indirect(self, address: Value, returns: str, *arguments: Value) -> Value:
        """Calls the function at an address."""
        return self._call(returns, address.name, arguments)

    def call_external(self, name: str, returns: str, *arguments: Value) -> Value:
        """Calls an intrinsic of LLVM ("llvm.fma.v8f32") or a function of the C library."""
        types = ", ".join(argument.type for argument in arguments)
        self._module.declare(f"declare {returns} @{name}({types})")
        return self._call(returns, f"@{name}", arguments)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """Returns x·y + z, rounded once."""
        lanes = x.type[1:].split(" x ")[0]
        return self.call_external(f"llvm.fma.v{lanes}f32", x.type, x, y, z)

    def ret(self, value: Value | None = None) -> None:
        """Returns from the function; the next instruction must begin a block."""
        if value is None:
            self.emit("void", "ret void")
        else:
            self.emit("void", f"ret {value.type} {value.name}")

    @contextmanager
    def loop(self, begin: Operand, end: Operand, step: Operand = 1) -> Iterator[Value]:
        """Repeats what is written inside, with a counter from `begin` while it is below `end`."""
        counter = self.alloca("i64", begin)
        test = self._new_label()
        inside = self._new_label()
        after = self._new_label()
        self._jump(test)
        self._begin_block(test)
        count = self.load(counter, "i64", 8)
        self._branch(count.compare("slt", end), inside, after)
        self._begin_block(inside)
        yield count
        self.store(count + step, counter, 8)
        self._jump(test)
        self._begin_block(after)

    @contextmanager
    def repeat(self) -> Iterator[str]:
        """Repeats what is written inside until `break_if` jumps to the label that this yields."""
        inside = self._new_label()
        after = self._new_label()
        self._jump(inside)
        self._begin_block(inside)
        yield after
        self._jump(inside)
        self._begin_block(after)

    def break_if(self, condition: Value, label: str) -> None:
        """Ends a `repeat` when the condition holds."""
        stay = self._new_label()
        self._branch(condition, label, stay)
        self._begin_block(stay)

    @contextmanager
    def if_then(self, condition: Value, *, returns: bool = False) -> Iterator[None]:
        """Runs what is written inside if the condition holds; with `returns` it ends in a `ret`."""
        inside = self._new_label()
        after = self._new_label()
        self._branch(condition, inside, after)
        self._begin_block(inside)
        yield
        if not returns:
            self._jump(after)
        self._begin_block(after)

    @property
    def text(self) -> str:
        """The function in LLVM's language."""
        linkage = "" if self._exported else "internal "
        parameters = _typed_list(self.parameters.values())
        body = "\n".join(["entry:", *self._locals, "  br label %start", "start:", *self._lines])
        signature = f"{linkage}{self.returns} @{self.name}({parameters})"
        return f"define {signature} nounwind {{\n{body}\n}}\n"

    def _call(self, returns: str, callee: str, arguments: tuple[Value, ...]) -> Value:
        return self.emit(returns, f"call {returns} {callee}({_typed_list(arguments)})")

    def _branch(self, condition: Value, true_label: str, false_label: str) -> None:
        labels = f"label %{true_label}, label %{false_label}"
        self.emit("void", f"br i1 {condition.name}, {labels}")

    def _jump(self, label: str) -> None:
        self.emit("void", f"br label %{label}")

    def _begin_block(self, label: str) -> None:
        self._lines.append(f"{label}:")

    def _new_label(self) -> str:
        return f"b{self._next()}"

    def _next(self) -> int:
        self._count += 1
        return self._count


class Module:
    """Functions that are compiled together."""

    def __init__(self) -> None:
        self._functions: list[Function] = []
        self._declarations: dict[str, None] = {}

    def function(
        self, name: str, returns: str, parameters: Mapping[str, str], *, exported: bool = False
    ) -> Function:
        """Begins a function; only exported ones are visible outside of the module."""
        function = Function(self, name, returns, parameters, exported=exported)
        self._functions.append(function)
        return function

    def declare(self, declaration: str) -> None:
        """Declares a function that another module or library defines."""
        self._declarations[declaration] = None

    @property
    def text(self) -> str:
        """The module in LLVM's language."""
        functions = [function.text for function in self._functions]
        return "\n".join([*self._declarations, *functions])


def _typed_list(values: Iterable[Value]) -> str:
    """Returns parameters or arguments as text, each with its type."""
    return ", ".join(f"{value.type} {value.name}" for value in values)
