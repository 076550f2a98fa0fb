"""similar_names.py: the similar name, or all names in their order."""

import pytest

from actors.protocol.similar_names import closest_name, suggestion

NAMES = ("text", "status", "finish_reason")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("texd", "; did you mean 'text'?"),
        ("finish_reson", "; did you mean 'finish_reason'?"),
        ("answer", "; there are text, status, finish_reason"),
        ("", "; there are text, status, finish_reason"),
    ],
)
def test_suggestion_names_similar_or_all_names(name: str, end: str) -> None:
    assert suggestion(name, NAMES) == end


def test_closest_name_has_a_least_similarity() -> None:
    assert closest_name("texd", NAMES, similarity=0.7) == "text"
    assert closest_name("texd", NAMES, similarity=0.8) is None
