"""Removal of passwords, keys and signatures from the URLs in a text, for the pipeline."""

from actors.protocol.plain_text import redact_credentials

__all__ = ["redact_credentials"]
