from pathlib import Path

import pytest

from jobs.cli.template_flag import read_template
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        (r"Q: {{ q }}\nA:", "Q: 1+1\nA:"),
        ("Q: {{ q }}\nA:", "Q: 1+1\nA:"),
        (r"{{ q }}\t\\n\x", "1+1\t\\n\\x"),
        ("{{ q }} {braces}", "1+1 {braces}"),
    ],
)
def test_template_flag_reads_escapes(value: str, prompt: str) -> None:
    assert read_template(value).render({"q": "1+1"}, {}) == prompt


def test_template_flag_takes_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "prompt.jinja"
    file.write_text("{{ q }}: \\nabla\nA:")
    assert read_template(f"@{file}").render({"q": "x"}, {}) == "x: \\nabla\nA:"

    file.write_bytes(b"{{ q }} \xff")
    with pytest.raises(ConfigError, match=r"prompt.jinja is not UTF-8 .*at byte 8"):
        read_template(f"@{file}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{question}\nAnswer:", "uses no column.*single braces are text: write {{ question }}"),
        ("the same for all", "uses no column.*write {{ column }}"),
        ("{{ a", "--template: line 1: unexpected end of template"),
    ],
)
def test_template_flag_refuses_text_that_is_no_template(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_template(value)
