"""Checkpoint files: xAI's layout, the safetensors layout, digests and the cache of a node."""
