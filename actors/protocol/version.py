"""The version of this project: of the wheel, of `grok-batch --version` and of run.json."""

VERSION = "0.1.0"
