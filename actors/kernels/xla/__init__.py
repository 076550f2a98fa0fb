"""Kernels in plain JAX, for any platform."""
