"""Progress of a run: counters, snapshots, progress line and log."""
