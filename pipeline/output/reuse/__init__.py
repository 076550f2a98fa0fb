"""Rows and parts of older runs, which a run copies in place of computing them again."""
