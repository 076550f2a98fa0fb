"""Rows to requests, completions to output rows: tokenizer and sampling parameters."""
