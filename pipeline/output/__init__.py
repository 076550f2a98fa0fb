"""Output: schema, columns, writer and run folder."""
