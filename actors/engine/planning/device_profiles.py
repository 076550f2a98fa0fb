"""Properties of device models, and times of kernels on them, estimated or measured.

A profile is a JSON file in `devices/`. The times are those of one device of the eight that run
Grok-1, at the sizes of `REFERENCE_SHARD`. A measurement is a JSON object with a list of times in
the same form, as `jobs/check_gpu.py --json` writes it. Does not import JAX.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from importlib import resources
from typing import Any, Literal

from actors.protocol.errors import ModelError
from actors.protocol.plain_text import quoted

SCHEMA_VERSION = 1
CPU = "cpu"  # the profile of processors, which is not a machine for rent
_DEVICES = resources.files("actors.engine.planning") / "devices"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A part of a call whose time is tabulated.

    `launches` is the number of kernels that run one after the other. It gives the part of the time
    that does not depend on the sizes.
    """

    meaning: str
    runs: Literal["twice a layer", "layer", "step", "call"]
    launches: int


# `tokens` of a time: rows of the call that reach the kernel, padding included. `context`: keys that
# a token sees on average.
KERNELS: Mapping[str, Kernel] = {
    "experts_gate_value": Kernel("products of gate and value of the chosen experts", "layer", 1),
    "experts_out": Kernel("output products of the chosen experts", "layer", 1),
    "attention_decode": Kernel("one token of each sequence over its pages", "layer", 3),
    "attention_prefill": Kernel("rows of several tokens over their pages", "layer", 3),
    "attention_inputs": Kernel("query, key and value, rotated and in pages", "layer", 2),
    "attention_output": Kernel("projection of the attention's output", "layer", 1),
    "norms": Kernel("the four norms of a layer, with residuals", "layer", 2),
    "routing": Kernel("router, choice of experts and their tiles", "layer", 2),
    "combine": Kernel("weighted sum of the experts' outputs", "layer", 1),
    "all_reduce": Kernel("sum of [tokens, width] over the devices", "twice a layer", 4),
    "vocabulary": Kernel("logits of the device's part of the vocabulary", "step", 1),
    "sampling_greedy": Kernel("most likely token and log-probs", "step", 20),
    "sampling_sorted": Kernel("sampled token, by temperature, top-p and top-k", "step", 40),
    "host_decode": Kernel("host work of a decode call; tokens: generated in it", "call", 0),
    "host_prefill": Kernel("host work of a prefill call", "call", 0),
}


@dataclass(frozen=True, slots=True)
class ModelShard:
    """Sizes of the model's part on one device."""

    width: int
    ffn: int
    q_heads: int
    kv_heads: int
    key_size: int
    experts: int
    chosen_experts: int
    vocab: int
    devices: int  # along the model axis


# One of eight devices that run Grok-1: the sizes at which times are tabulated.
REFERENCE_SHARD = ModelShard(
    width=6144,
    ffn=4096,
    q_heads=6,
    kv_heads=1,
    key_size=128,
    experts=8,
    chosen_experts=2,
    vocab=16384,
    devices=8,
)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """The time of one run of a kernel, in microseconds, as a range.

    Raises:
        ModelError: a value is not valid.
    """

    kernel: str
    tokens: int
    low_us: float
    high_us: float
    status: str  # estimated or measured
    source: str  # estimated: formula or document; measured: the command
    context: int = 0  # attention only
    date: str | None = None  # of a measurement, YYYY-MM-DD
    hardware: str | None = None  # of a measurement: device and software

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ModelError(
                f"kernel time: expected a kernel of {', '.join(KERNELS)}, got {quoted(self.kernel)}"
            )
        name = f"kernel time of {self.kernel}"
        if self.tokens < 1 or self.context < 0:
            raise ModelError(
                f"{name}: expected tokens >= 1 and context >= 0, got {self.tokens} and "
                f"{self.context}"
            )
        if self.kernel.startswith("attention_") and self.is_attention_kernel != (self.context > 0):
            raise ModelError(f"{name}: expected a context for the two attention kernels only")
        if not 0 < self.low_us <= self.high_us:
            raise ModelError(
                f"{name}: expected 0 < low_us <= high_us, got {self.low_us} and {self.high_us}"
            )
        if self.status not in {"estimated", "measured"}:
            raise ModelError(
                f"{name}: status: expected estimated or measured, got {quoted(self.status)}"
            )
        if self.status == "measured" and not (self.date and self.hardware):
            raise ModelError(f"{name}: a measured time needs a date and the hardware")
        if not self.source:
            raise ModelError(f"{name}: source is empty; expected a document or a command")

    @property
    def is_attention_kernel(self) -> bool:
        """Whether the time depends on the number of cached keys."""
        return self.kernel in {"attention_decode", "attention_prefill"}

    @property
    def expected_us(self) -> float:
        """The middle of the range."""
        return (self.low_us + self.high_us) / 2


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A device model, the machines that it is rented in, and the times of kernels on it.

    Raises:
        ModelError: a value is not valid.
    """

    name: str
    title: str
    device_kinds: tuple[str, ...]  # as JAX names the device
    memory_bytes: int
    memory_bytes_per_s: float
    flops_per_s: float  # dense bfloat16 products
    link_bytes_per_s: float  # to the other devices of the machine, each direction
    multiprocessors: int
    launch_us: float  # from one small kernel to the next
    devices_per_machine: int
    machine_hour_usd: tuple[float, float]  # lowest and highest usual price
    boot_s: tuple[float, float]  # from the request for a machine to the start of a replica
    # of weights, from storage or disk to all devices of a machine: slowest and fastest
    load_bytes_per_s: tuple[float, float]
    compile_s: tuple[float, float]  # of all programs of a replica: with and without a cache
    compute_efficiency: float  # of products without a tabulated time
    memory_efficiency: float  # of reads without a tabulated time
    host_us_per_token: float  # of calls without a tabulated time
    source: str
    # the profile whose times, scaled by the floors, stand for kernels without times of their own
    estimates_from: str | None = None
    times: tuple[KernelTime, ...] = ()

    def __post_init__(self) -> None:
        positive = (
            "memory_bytes",
            "memory_bytes_per_s",
            "flops_per_s",
            "link_bytes_per_s",
            "multiprocessors",
            "devices_per_machine",
            "compute_efficiency",
            "memory_efficiency",
            "host_us_per_token",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ModelError(
                    f"device {self.name}: {name} must be above 0, got {getattr(self, name)}"
                )
        for name in ("machine_hour_usd", "boot_s", "load_bytes_per_s", "compile_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ModelError(
                    f"device {self.name}: {name} must be a range [low, high], got [{low}, {high}]"
                )
        if self.load_bytes_per_s[0] == 0:
            raise ModelError(f"device {self.name}: load_bytes_per_s must be above 0")

    def times_of(self, kernel: str) -> tuple[KernelTime, ...]:
        """Returns the times of a kernel: the measured ones alone where there are any."""
        times = [time for time in self.times if time.kernel == kernel]
        measured = [time for time in times if time.status == "measured"]
        return tuple(measured or times)

    def with_times(self, times: Sequence[KernelTime]) -> "DeviceProfile":
        """Returns the profile with more times; a time at equal sizes replaces the earlier one."""
        by_size = {_size_key(time): time for time in self.times}
        for time in times:
            by_size[_size_key(time)] = time
        return replace(self, times=tuple(by_size.values()))

    @property
    def measured_kernels(self) -> tuple[str, ...]:
        """The kernels with measured times."""
        measured = {time.kernel for time in self.times if time.status == "measured"}
        return tuple(kernel for kernel in KERNELS if kernel in measured)


def _size_key(time: KernelTime) -> tuple[str, int, int, str]:
    return time.kernel, time.tokens, time.context, time.status


def profile_names() -> tuple[str, ...]:
    """Returns the names of all device profiles, sorted."""
    names = [file.name.removesuffix(".json") for file in _DEVICES.iterdir()]
    return tuple(sorted(names))


def gpu_names() -> tuple[str, ...]:
    """Returns the names of the profiles of GPUs, sorted."""
    return tuple(name for name in profile_names() if name != CPU)


def load_profile(name: str) -> DeviceProfile:
    """Returns a device profile.

    Raises:
        ModelError: there is none of this name, or its file is not valid.
    """
    names = profile_names()
    if name not in names:
        raise ModelError(f"device: expected one of {', '.join(names)}, got {quoted(name)}")
    return read_profile((_DEVICES / f"{name}.json").read_text())


def read_profile(text: str) -> DeviceProfile:
    """Returns the device profile of a JSON text.

    Raises:
        ModelError: the text is not a device profile.
    """
    values = _read_object(text, "device profile")
    times = read_times(values)
    values.pop("schema_version")
    values["times"] = times
    return _checked(DeviceProfile, values, "device profile")


def read_measurement(text: str) -> tuple[KernelTime, ...]:
    """Returns the times of a measurement, as `jobs/check_gpu.py --json` writes it.

    Raises:
        ModelError: the text is not a measurement.
    """
    return read_times(_read_object(text, "measurement"))


def measurement(times: Sequence[KernelTime]) -> dict[str, Any]:
    """Returns the JSON object of a measurement."""
    return {"schema_version": SCHEMA_VERSION, "times": [asdict(time) for time in times]}


def read_times(values: Mapping[str, Any]) -> tuple[KernelTime, ...]:
    """Returns the list `times` of a device profile or a measurement.

    Raises:
        ModelError: a time, or the version of the schema, is not valid.
    """
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"device profile: schema_version: expected {SCHEMA_VERSION}, got {quoted(version)}"
        )
    times = values.get("times")
    if not isinstance(times, list):
        raise ModelError(f"device profile: times: expected a list, got {quoted(times)}")
    return tuple(_checked(KernelTime, time, "kernel time") for time in times)


def _read_object(text: str, subject: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{subject}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise ModelError(f"{subject}: expected a JSON object, got {type(values).__name__}")
    return values


def _checked(kind: type[Any], values: Any, subject: str) -> Any:
    """Returns an instance of a dataclass with these fields."""
    if not isinstance(values, dict):
        raise ModelError(f"{subject}: expected a JSON object, got {quoted(values)}")
    names = {field.name for field in fields(kind)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ModelError(f"{subject}: unknown keys {', '.join(unknown)}; remove or correct them")

    required = {field.name for field in fields(kind) if field.default is MISSING}
    missing = sorted(required - set(values))
    if missing:
        raise ModelError(f"{subject}: missing keys {', '.join(missing)}")

    types = {field.name: field.type for field in fields(kind)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        converted[name] = _converted(types[name], value, f"{subject}: {name}")
    return kind(**converted)


def _converted(kind: Any, value: Any, subject: str) -> Any:
    """Returns a value of JSON as the type of its field; null is left to optional fields.

    Raises:
        ModelError: a number or a list of numbers was expected.
    """
    if kind is float:
        return _number(value, subject)
    if kind is int:
        number = _number(value, subject)
        if number != int(number):
            raise ModelError(f"{subject}: expected a whole number, got {quoted(value)}")
        return int(number)
    if kind == tuple[float, float]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ModelError(f"{subject}: expected a list of two numbers, got {quoted(value)}")
        low, high = value
        return _number(low, subject), _number(high, subject)
    if kind == tuple[str, ...] and isinstance(value, list):
        return tuple(value)
    return value


def _number(value: Any, subject: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"{subject}: expected a number, got {quoted(value)}")
    return float(value)
