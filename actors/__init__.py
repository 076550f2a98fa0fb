"""Replica side: actors that each own one device mesh, their engine, and the model it calls."""
