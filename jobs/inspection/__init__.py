"""Looks at runs that exist: what is done, and what the rows say."""
