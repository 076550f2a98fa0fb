"""Checks of a report page in the headless Chromium of browser.py."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from tests.end_to_end.browser import Browser

# Of each plot the form for a window of this width; the others are not displayed.
BOXES = """[...document.querySelectorAll('figure svg')]
  .filter(svg => svg.checkVisibility()).map(svg => {
  const box = svg.getBoundingClientRect();
  return {
    name: svg.getAttribute('aria-labelledby'),
    x: box.x, y: box.y + scrollY, width: box.width, height: box.height,
  }; })"""
OUTSIDE = """[...document.querySelectorAll('figure svg')]
  .filter(svg => svg.checkVisibility()).flatMap(svg => {
  const out = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < out.left - 1 || box.right > out.right + 1
      || box.top < out.top - 1 || box.bottom > out.bottom + 1; })
  .map(text => text.textContent); })"""


def look_at_report(browser: Browser, page: Path, scheme: str) -> set[str]:
    """Opens a page in a light or dark scheme and returns the names of its plots, all visible.

    Nothing may be fetched or complained about, cut off, or wider than the window.
    """
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.open(page)
    paper = Image.open(io.BytesIO(browser.photograph())).convert("RGB").getpixel((2, 2))
    assert paper == ((255, 255, 255) if scheme == "light" else (20, 23, 28))
    boxes: list[dict[str, Any]] = browser.evaluate(BOXES)
    for box in boxes:
        assert box["width"] > 300, box
        assert box["height"] > 60, box
        shot = browser.photograph({key: box[key] for key in ("x", "y", "width", "height")})
        colors = Image.open(io.BytesIO(shot)).convert("RGB").getcolors(1 << 24)
        assert colors is not None
        inked = sum(count for count, color in colors if color != paper)
        assert inked > 0.01 * box["width"] * box["height"], f"{box['name']} is empty"
        assert len(colors) > 20, f"{box['name']} has no lines or text"
    assert browser.evaluate(OUTSIDE) == [], "text is cut off"
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "the page is wider than the window"
    )
    assert browser.fetched() == [page.as_uri()]
    assert browser.complaints() == []
    return {box["name"].removesuffix("-title") for box in boxes}
