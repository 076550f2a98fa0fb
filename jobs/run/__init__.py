"""The main job as a library: configuration, plan, fingerprint, execution, metrics and summary."""
