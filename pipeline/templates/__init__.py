"""Jinja templates over the columns of a row, in a sandbox with bounded work."""
