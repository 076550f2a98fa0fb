"""The documentation's site: it builds without a warning, and links lead to pages and headings."""

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.blocks import ROOT
from tests.docs.site_environment import tool

CONFIG = ROOT / "infra" / "site" / "mkdocs.yml"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [tool("mkdocs"), "build", "--quiet", "--config-file", CONFIG, "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_site_has_every_page_of_the_documentation(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        folder = name.parent if name.name == "index" else name
        assert (site / folder / "index.html").is_file(), name


@pytest.mark.slow
def test_links_of_the_site_lead_to_its_pages_and_headings(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    for path, text in pages.items():
        if path.name == "404.html":
            continue  # its links begin at the root of a server
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            assert _leads_somewhere(link, path, pages), f"{path.relative_to(site)}: {link}"


def _leads_somewhere(link: str, path: Path, pages: dict[Path, str]) -> bool:
    parts = urlsplit(link)
    if parts.scheme:
        return True
    target = path
    if parts.path:
        target = (path.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    return not parts.fragment or f'id="{unquote(parts.fragment)}"' in pages[target]


@pytest.mark.slow
def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', path.read_text()
        )
        assert loaded == [], path


@pytest.mark.slow
def test_reference_has_the_docstrings_of_public_names(site: Path) -> None:
    text = (site / "api" / "index.html").read_text()
    for name in (
        "grok_batch.api.score",
        "jobs.cli.exit_codes.ExitCode",
        "pipeline.evals.suite.EvalRequest",
    ):
        assert f'id="{name}"' in text
