"""Conversion and verification of checkpoints.

A package of its own beside jobs/run: no run needs it, and it combines the file formats of
actors/weights with the object storage of pipeline/storage.
"""
