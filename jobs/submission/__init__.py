"""Submission of a job to a Ray cluster, with retries."""
