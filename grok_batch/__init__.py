"""Batch inference for Grok-1 on Ray: the name under which the project is installed and typed.

The code is in `jobs`, `pipeline` and `actors`; this package holds the console command.
"""

from actors.protocol import version

__all__ = ["__version__"]

__version__ = version.VERSION
