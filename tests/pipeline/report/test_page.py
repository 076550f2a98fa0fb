import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from pipeline.report import page
from pipeline.report.drawing import Plot
from pipeline.report.page import LONGEST_TEXT_CHARS, render_template, text

TEMPLATES = Path(page.__file__).parent / "templates"
HOSTILE = "<script>alert('1')</script>"
SIGNED = "s3://user:secret@bucket/x?X-Amz-Signature=secret"


def plot(**changes: str) -> Plot:
    values = {"name": "rates", "title": "Rates", "explanation": "Per second."} | changes
    return Plot(**values, svg=Markup("<svg></svg>"), header=("until", "rate"), rows=(("1 s", "2"),))


def part(name: str, *arguments: object) -> str:
    """Returns what a macro of parts.html.j2 makes of its arguments."""
    macros = page._environment(page.OWN_PACKAGE).get_template("parts.html.j2").module
    return str(getattr(macros, name)(*arguments))


def test_text_is_escaped_redacted_and_shortened() -> None:
    assert text(HOSTILE) == "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"
    assert "secret" not in text(SIGNED)
    assert len(text("y" * 10_000)) == LONGEST_TEXT_CHARS
    assert text(text("a & b")) == "a &amp; b"


@pytest.mark.parametrize("value", [HOSTILE, SIGNED])
def test_every_part_escapes_and_redacts_texts(value: str) -> None:
    parts = [
        part("table", (value,), [(value,)]),
        part("figure", plot(title=value, explanation=value)),
        part("cards", [(value, value, value)]),
        part("remarks", [value]),
        part("badge", value, "good"),
        part("fact", value, value),
        part("folded", value, (value,), [(value,)]),
    ]
    for html in parts:
        assert "<script" not in html
        assert "secret" not in html


def test_attribute_value_cannot_end_its_attribute() -> None:
    badge = part("badge", "words", '"><img src=x onerror=alert(1)>')
    assert "<img" not in badge
    assert badge.count('"') == 2


def test_markup_is_not_escaped_twice() -> None:
    assert "<li><code>a&amp;b</code></li>" in part(
        "remarks", [Markup("<code>{}</code>").format("a&b")]
    )


def test_missing_value_of_a_template_raises() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render_template("base.html.j2", body="")


def test_page_allows_no_scripts_and_no_requests() -> None:
    html = render_template("base.html.j2", title="Title", body=Markup("<p>Body</p>"))
    assert html.startswith("<!DOCTYPE html>")
    assert "default-src 'none'" in html
    assert "<p>Body</p>" in html
    assert "<script" not in html


def test_short_cells_stay_on_one_line() -> None:
    html = part("table", ("name",), [("short",), ("a sentence that is longer than that",)])
    assert html.count("class=short") == 1


def test_empty_list_of_remarks_says_so() -> None:
    assert "Nothing stands out." in part("remarks", [])


def test_style_sheet_defines_every_colour_that_plots_use() -> None:
    from pipeline.report.drawing import STYLE_NAMES

    defined = set(re.findall(r"--([a-z]+):", (TEMPLATES / "report.css").read_text()))
    assert set(STYLE_NAMES.values()) <= defined


def test_only_plots_pass_unescaped() -> None:
    for template in TEMPLATES.glob("*.j2"):
        source = template.read_text()
        assert not re.search(r"\|\s*safe", source), template.name
        assert "{% autoescape" not in source, template.name


def test_texts_keep_the_space_before_a_unit() -> None:
    assert text("12\xa0%") == "12\xa0%"
