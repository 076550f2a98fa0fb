"""Arrays over time: which request runs when, on which pages, and what comes out.

No Ray, no text, no files.
"""
