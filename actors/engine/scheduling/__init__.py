"""Which sequences run in which call, and on which pages: numbers and lists only, no JAX."""
