"""The demo: questions, the training of a small model on them, and a run that shows its answers."""
