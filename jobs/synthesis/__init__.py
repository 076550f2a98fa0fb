"""The job that makes synthetic data sets as a library: configuration, prompts, selection."""
