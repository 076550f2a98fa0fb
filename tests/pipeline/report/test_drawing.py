"""SVG elements of plots: identical bytes, ids and colours of the page, and the value axis."""

import re

import pytest
from matplotlib.figure import Figure

from pipeline.report.drawing import BAD, NARROW_WIDTH, STYLE_NAMES, count_axis, svg


def draw_line(figure: Figure) -> None:
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 3], color=BAD)
    axes.set_title("a < $b$")


def test_svg_is_the_same_for_the_same_plot() -> None:
    assert svg("name", draw_line, 2.0) == svg("name", draw_line, 2.0)


def test_svg_has_colors_of_the_style_sheet_only() -> None:
    element = svg("name", draw_line, 2.0)
    assert "var(--bad)" in element
    assert not [color for color in STYLE_NAMES if color in element]


def test_svg_starts_every_id_with_the_name_of_the_plot() -> None:
    ids = re.findall(r'\bid="([^"]*)"', svg("name", draw_line, 2.0))
    assert ids
    assert all(element_id.startswith("name-") for element_id in ids)


def test_svg_has_no_size_of_its_own() -> None:
    tags = re.findall(r"<svg[^>]*>", svg("name", draw_line, 2.0))
    assert len(tags) == 2
    for tag in tags:
        assert "viewBox" in tag
        assert " width=" not in tag
        assert " height=" not in tag


def test_svg_of_half_width_has_one_form() -> None:
    assert svg("name", draw_line, 2.0, NARROW_WIDTH).count("<svg") == 1


def test_narrow_plot_has_its_own_height() -> None:
    element = svg("name", draw_line, 2.0, narrow_height=3.0)
    heights = [float(size) for size in re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', element)]
    assert heights == [2.0 * 72, 3.0 * 72]


def test_svg_has_escaped_text_without_formulas() -> None:
    assert "a &lt; $b$" in svg("name", draw_line, 2.0)


@pytest.mark.parametrize(
    ("integer", "highest", "top"), [(True, 0.2, 1.0), (False, 0.2, 0.2), (False, 0.0, 1e-3)]
)
def test_count_axis_starts_at_zero_and_is_never_empty(
    integer: bool, highest: float, top: float
) -> None:
    axes = Figure().add_subplot()
    axes.set_ylim(-1, highest)
    count_axis(axes, integer=integer)
    assert axes.get_ylim() == (0, top)
