"""How tests compile small models and engines that are not about rounding."""

from types import MappingProxyType

# Option of XLA's compiler. LLVM's optimizations take two fifths of the time to compile and change
# no result of a model beyond rounding.
UNOPTIMIZED = MappingProxyType({"xla_backend_optimization_level": "0"})
