"""Prompts of a synthetic data set: seed rows, templates, worked examples."""
