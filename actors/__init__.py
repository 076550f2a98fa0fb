"""Replica side: actors that each own one device mesh, the engine they run, and the model the engine calls."""
