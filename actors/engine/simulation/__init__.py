"""Time and cost of a run on devices that are not here: the real scheduler, tabulated kernels."""
