"""Checks of a machine: whether it runs a model, and whether its GPU kernels are right."""
