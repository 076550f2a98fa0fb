"""LLVM's language, written from Python: arithmetic on values, loads, loops and calls become lines of text.

Input: operations on `Value`s, in the order in which they are to run. Output: the text of a module,
which LLVM compiles. Types are their names: "i64", "float", "ptr", "<8 x float>". Numbers in
operations take the type of the value beside them. Variables are places on the stack
(`Function.local`); LLVM keeps them in registers. Knows nothing of matrices or of who calls the
code.
"""

import struct
from collections.abc import Iterator, Mapping
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
        return (
            f"0x{struct.pack('>d', struct.unpack('f', struct.pack('f', number))[0]).hex().upper()}"
        )
    return "null" if type_ == "ptr" else str(int(number))


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A number, vector or pointer that the code has computed.

    Operators write the instruction that takes it further.
    """

    function: "Function"
    type: str
    name: str

    def __add__(self, other: Operand) -> "Value":
        return self._arithmetic("add", other)

    def __sub__(self, other: Operand) -> "Value":
        return self._arithmetic("sub", other)

    def __mul__(self, other: Operand) -> "Value":
        return self._arithmetic("mul", other)

    def __truediv__(self, other: Operand) -> "Value":
        return self._arithmetic("div", other)

    def __floordiv__(self, other: Operand) -> "Value":
        return self._binary("udiv", other)

    def __mod__(self, other: Operand) -> "Value":
        return self._binary("urem", other)

    def __and__(self, other: Operand) -> "Value":
        return self._binary("and", other)

    def __or__(self, other: Operand) -> "Value":
        return self._binary("or", other)

    def __lshift__(self, other: Operand) -> "Value":
        return self._binary("shl", other)

    def __rshift__(self, other: Operand) -> "Value":
        return self._binary("lshr", other)

    def compared(self, how: str, other: Operand) -> "Value":
        """Returns whether self is `how` other: of integers "eq", "ne", "slt", "sgt", "ult", of floats "olt", "ogt", "uno"."""
        kind = "fcmp" if "float" in self.type else "icmp"
        result = (
            "i1"
            if not self.type.startswith("<")
            else vector("i1", int(self.type[1:].split(" x ")[0]))
        )
        return self.function.emit(
            result, f"{kind} {how} {self.type} {self.name}, {self.text_of(other)}"
        )

    def cast(self, how: str, type_: str) -> "Value":
        """Returns self as another type: "sext", "trunc", "sitofp", "fptosi", "bitcast", "ptrtoint"."""
        return self.function.emit(type_, f"{how} {self.type} {self.name} to {type_}")

    def choose(self, yes: "Value", no: Operand) -> "Value":
        """Returns `yes` where self is true and `no` where it is not."""
        return self.function.emit(
            yes.type,
            f"select {self.type} {self.name}, {yes.type} {yes.name}, {yes.type} {yes.text_of(no)}",
        )

    def at_most(self, other: Operand) -> "Value":
        """Returns the smaller of two numbers; of a NaN and a number, the number."""
        return self.compared("olt" if "float" in self.type else "slt", other).choose(self, other)

    def at_least(self, other: Operand) -> "Value":
        """Returns the larger of two numbers; of a NaN and a number, the number."""
        return self.compared("ogt" if "float" in self.type else "sgt", other).choose(self, other)

    def ceil_div(self, other: Operand) -> "Value":
        """Returns self / other, rounded up; both positive."""
        return (self + other - 1) // other

    def everywhere(self, lanes: int) -> "Value":
        """Returns a vector with self in every lane."""
        wide = vector(self.type, lanes)
        one = self.function.emit(
            wide, f"insertelement {wide} poison, {self.type} {self.name}, i64 0"
        )
        return self.function.emit(
            wide,
            f"shufflevector {wide} {one.name}, {wide} poison, {vector('i32', lanes)} "
            "zeroinitializer",
        )

    def _arithmetic(self, name: str, other: Operand) -> "Value":
        return self._binary(f"f{name}" if "float" in self.type else name, other)

    def _binary(self, instruction: str, other: Operand) -> "Value":
        return self.function.emit(
            self.type, f"{instruction} {self.type} {self.name}, {self.text_of(other)}"
        )

    def text_of(self, other: Operand) -> str:
        """Returns another operand as text, a number as one of this type."""
        return other.name if isinstance(other, Value) else constant(other, self.type)


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
        self.parameters = {
            name: Value(self, type_, f"%{name}") for name, type_ in parameters.items()
        }
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

    def number(self, value: int | float, type_: str = "i64") -> Value:
        """Returns a constant."""
        return Value(self, type_, constant(value, type_))

    def at(self, pointer: Value, index: Operand, element: str = "i8") -> Value:
        """Returns the address of element `index` of an array.

        The byte at this distance when nothing is said of elements.
        """
        offset = index.name if isinstance(index, Value) else str(int(index))
        return self.emit("ptr", f"getelementptr {element}, ptr {pointer.name}, i64 {offset}")

    def load(self, pointer: Value, type_: str, align: int = 1) -> Value:
        """Returns what lies at an address."""
        return self.emit(type_, f"load {type_}, ptr {pointer.name}, align {align}")

    def store(self, value: Value, pointer: Value, align: int = 1) -> None:
        """Writes a value to an address."""
        self.emit("void", f"store {value.type} {value.name}, ptr {pointer.name}, align {align}")

    def local(self, type_: str, start: Operand | None = None, count: int = 1) -> Value:
        """Returns the address of a variable, or of an array of `count`.

        `start` is its first value.
        """
        place = Value(self, "ptr", f"%v{self._next()}")
        self._locals.append(f"  {place.name} = alloca {type_}, i64 {count}, align 64")
        if start is not None:
            self.store(start if isinstance(start, Value) else self.number(start, type_), place)
        return place

    def call(self, callee: "Function", *arguments: Value) -> Value:
        """Calls a function of this module."""
        return self._call(callee.returns, f"@{callee.name}", arguments)

    def call_address(self, address: Value, returns: str, *arguments: Value) -> Value:
        """Calls whatever function lies at an address."""
        return self._call(returns, address.name, arguments)

    def call_named(self, name: str, returns: str, *arguments: Value) -> Value:
        """Calls a function that is not written here: an instruction of LLVM's ("llvm.fma.v8f32") or one of the C library."""
        self._module.declare(
            f"declare {returns} @{name}({', '.join(each.type for each in arguments)})"
        )
        return self._call(returns, f"@{name}", arguments)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """Returns x·y + z, rounded once."""
        lanes = x.type[1:].split(" x ")[0]
        return self.call_named(f"llvm.fma.v{lanes}f32", x.type, x, y, z)

    def give(self, value: Value | None = None) -> None:
        """Returns from the function.

        What is written next belongs to no path until a block begins.
        """
        self.emit("void", "ret void" if value is None else f"ret {value.type} {value.name}")

    @contextmanager
    def loop(self, begin: Operand, end: Operand, step: Operand = 1) -> Iterator[Value]:
        """Repeats what is written inside, with a counter from `begin` in steps while it is below `end`."""
        counter = self.local("i64", begin)
        test, inside, after = (f"b{self._next()}" for _ in range(3))
        self._jump(test)
        self._begin(test)
        now = self.load(counter, "i64", 8)
        self._branch(now.compared("slt", end), inside, after)
        self._begin(inside)
        yield now
        self.store(now + step, counter, 8)
        self._jump(test)
        self._begin(after)

    @contextmanager
    def repeat(self) -> Iterator[str]:
        """Repeats what is written inside until it jumps to the label it is given (`leave_if`)."""
        inside, after = (f"b{self._next()}" for _ in range(2))
        self._jump(inside)
        self._begin(inside)
        yield after
        self._jump(inside)
        self._begin(after)

    def leave_if(self, condition: Value, label: str) -> None:
        """Ends a `repeat` when the condition holds."""
        stay = f"b{self._next()}"
        self._branch(condition, label, stay)
        self._begin(stay)

    @contextmanager
    def when(self, condition: Value, *, returns: bool = False) -> Iterator[None]:
        """Runs what is written inside if the condition holds.

        With `returns` it ends in a `give`.
        """
        inside, after = (f"b{self._next()}" for _ in range(2))
        self._branch(condition, inside, after)
        self._begin(inside)
        yield
        if not returns:
            self._jump(after)
        self._begin(after)

    @property
    def text(self) -> str:
        """The function in LLVM's language."""
        linkage = "" if self._exported else "internal "
        parameters = ", ".join(f"{each.type} {each.name}" for each in self.parameters.values())
        body = "\n".join(["entry:", *self._locals, "  br label %start", "start:", *self._lines])
        return (
            f"define {linkage}{self.returns} @{self.name}({parameters}) nounwind {{\n{body}\n}}\n"
        )

    def _call(self, returns: str, callee: str, arguments: tuple[Value, ...]) -> Value:
        given = ", ".join(f"{each.type} {each.name}" for each in arguments)
        return self.emit(returns, f"call {returns} {callee}({given})")

    def _branch(self, condition: Value, yes: str, no: str) -> None:
        self.emit("void", f"br i1 {condition.name}, label %{yes}, label %{no}")

    def _jump(self, label: str) -> None:
        self.emit("void", f"br label %{label}")

    def _begin(self, label: str) -> None:
        self._lines.append(f"{label}:")

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
        """Begins a function; only exported ones are seen from outside."""
        self._functions.append(Function(self, name, returns, parameters, exported=exported))
        return self._functions[-1]

    def declare(self, declaration: str) -> None:
        """Names a function that is not written here."""
        self._declarations[declaration] = None

    @property
    def text(self) -> str:
        """The module in LLVM's language."""
        return "\n".join([*self._declarations, *(function.text for function in self._functions)])
