"""Kernels that LLVM compiles for CPUs, with the weight layout they need."""
