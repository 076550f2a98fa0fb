"""Execution of generated programs in a sandbox."""
