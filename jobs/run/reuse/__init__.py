"""--reuse: rows that older runs have are copied, all others are computed."""
