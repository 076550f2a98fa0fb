"""Terraform and its provider, for the tests of this folder.

Or the reason why they cannot be had.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.infra.tools import ROOT, program

SOURCE = ROOT / "infra" / "terraform"
OFFLINE = ROOT.parent / "shared" / "tools" / "terraform-offline" / "setup.sh"
NO_REGISTRY = (
    "Failed to query available provider packages",
    "Failed to install provider",
    "Failed to resolve provider packages",
)


@dataclass(frozen=True)
class Terraform:
    """A copy of infra/terraform, initialised where nothing of the checkout is touched."""

    folder: Path
    env: dict[str, str]

    def run(self, *arguments: str, folder: str = ".") -> "subprocess.CompletedProcess[str]":
        command = ["terraform", f"-chdir={self.folder / folder}", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def init(self, folder: str = ".") -> None:
        done = self.run("init", "-backend=false", "-input=false", "-no-color", folder=folder)
        if done.returncode and any(words in done.stderr for words in NO_REGISTRY):
            pytest.skip(f"the AWS provider cannot be had: {' '.join(done.stderr.split())[:200]}")
        assert done.returncode == 0, done.stdout + done.stderr

    def test(self, *arguments: str) -> list[dict[str, Any]]:
        """Runs `terraform test` and returns its messages, the summary last."""
        done = self.run("test", "-json", *arguments)
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        assert messages, done.stderr
        return messages


def make(folder: Path) -> Terraform:
    """Copies the sources into `folder` and locates the provider.

    The provider comes from the offline mirror where there is one, else from the registry.
    """
    program("terraform", "it is HashiCorp's, and no Python package")
    kept = Path(tempfile.gettempdir()) / f"grok-batch-terraform-{os.getuid()}"
    kept.mkdir(exist_ok=True)
    copy = folder / "terraform"
    shutil.copytree(
        SOURCE, copy, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__")
    )
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))
    }
    env |= {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
    if OFFLINE.exists():
        done = subprocess.run(
            ["bash", str(OFFLINE), str(kept)], cwd=copy, capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"the offline mirror cannot be made: {done.stderr[-200:]}")
        env["TF_CLI_CONFIG_FILE"] = done.stdout.strip().rpartition("=")[2]
    else:
        env["TF_PLUGIN_CACHE_DIR"] = str(kept)
    terraform = Terraform(copy, env)
    terraform.init()
    return terraform


def resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields all resources of a state, those of modules in modules too."""
    yield from module.get("resources", ())
    for child in module.get("child_modules", ()):
        yield from resources(child)
