"""Batches and their dispatch to replicas, with retries."""
