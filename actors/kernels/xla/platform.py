"""The platform of plain XLA, for devices without kernels of our own."""

from dataclasses import replace

from actors.kernels.interface import Kernels, Platform
from actors.kernels.xla import attention, experts
from actors.kernels.xla.layout import keep_loaded_layout

XLA = Platform(
    name="xla",
    kernels=Kernels.jitted(experts.grouped_ffn, attention.attend),
    pack_for_device=keep_loaded_layout,
    cache_dtype=attention.cache_dtype,
    reads_whole_table=True,
)

# CPUs that the machine code of `kernels/cpu` is not written for: dequantizing int8 weights in every
# step costs more there than reading dense ones.
XLA_CPU = replace(XLA, name="xla-cpu", dense_by_default=True)
