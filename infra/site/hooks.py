"""Hooks of mkdocs: pages from the root of the repository, and links between them and docs/."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# pages of the site by the file at the root of the repository
ROOT_PAGES = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from the root of the repository."""
    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=site_links(text, "")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Points links that leave docs/ to the pages of the site."""
    if page.file.src_uri in ROOT_PAGES.values():
        return markdown
    return site_links(markdown, posixpath.join("docs", page.file.src_uri))


def site_links(markdown: str, source: str) -> str:
    """Returns a page whose links lead to pages of the site.

    Args:
        markdown: the page.
        source: its path from the root of the repository; empty for a page at the root.

    Returns:
        Links to files that are no page of the site, such as LICENSE and tests, become text.
    """

    def site_link(match: "re.Match[str]") -> str:
        text, link, anchor = match.groups(default="")
        folder = posixpath.dirname(source)
        target = posixpath.normpath(posixpath.join(folder, link))
        here = posixpath.relpath(folder or "docs", "docs")
        if target in ROOT_PAGES:
            return f"[{text}]({posixpath.relpath(ROOT_PAGES[target], here)}{anchor})"
        if target.startswith("docs/"):
            return f"[{text}]({posixpath.relpath(target.removeprefix('docs/'), here)}{anchor})"
        return text

    return LINK.sub(site_link, markdown)
