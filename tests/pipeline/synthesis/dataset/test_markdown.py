from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.dataset.markdown import bar, block, code, inline


@settings(deadline=None)
@given(st.text(min_size=1))
def test_markdown_cells_and_code_hold_any_text(text: str) -> None:
    for shown in (inline(text), code(text)):
        assert "\n" not in shown
        assert "\r" not in shown
        assert not _unescaped_pipe(shown)
    fenced = block(text).splitlines()
    assert fenced[0] == fenced[-1]
    assert fenced[0] not in fenced[1:-1]


def _unescaped_pipe(shown: str) -> bool:
    at = 0
    while at < len(shown):
        if shown[at] == "|":
            return True
        at += 2 if shown[at] == "\\" and at + 1 < len(shown) else 1
    return False


def test_markdown_escapes_special_characters() -> None:
    assert inline("a_b | <x> https://h www.h") == "a\\_b \\| \\<x\\> https:/\\/h www\\.h"
    assert code("a|b") == "<code>a&#124;b</code>"
    assert code("`") == "`` ` ``"
    assert code("s3://user:secret@bucket/x") == "`s3://bucket/x`"
    assert (bar(1), bar(0), bar(0.5)) == ("█" * 24, "", "█" * 12)


def test_markdown_redacts_credentials() -> None:
    assert "secret" not in inline("s3://user:secret@bucket/x")
    assert "secret" not in code("s3://user:secret@bucket/x")


def test_block_has_a_longer_fence_than_its_text() -> None:
    assert block("x", "json") == "```json\nx\n```"
    assert block("a ``` b") == "````\na ``` b\n````"
    assert block("`````") == "``````\n`````\n``````"


def test_bar_has_eighths() -> None:
    assert bar(1 / (8 * 24)) == "▏"
    assert bar(15 / (8 * 24)) == "█▉"
