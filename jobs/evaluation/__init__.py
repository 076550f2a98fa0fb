"""The evaluation job as a library: configuration, prompts, report."""
