from pipeline.synthesis.rejections import DETAIL_CHARS, STAGES, shortened


def test_shortened_keeps_values_up_to_the_limit() -> None:
    assert shortened("x" * DETAIL_CHARS) == "x" * DETAIL_CHARS
    assert shortened("x" * (DETAIL_CHARS + 1)) == "x" * (DETAIL_CHARS - 1) + "…"
    assert shortened(None) == "None"


def test_stages_are_in_the_order_of_the_selection() -> None:
    assert STAGES == (
        "template",
        "generation",
        "filter",
        "parse",
        "where",
        "choose",
        "partition",
        "duplicate",
        "stop",
    )
