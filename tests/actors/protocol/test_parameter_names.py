import pytest

from actors.protocol.parameter_names import (
    OTHER_NAMES,
    PARAMETER_GROUPS,
    column_notices,
    similar_name,
)
from actors.protocol.sampling import PARAMETERS


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("max_new_tokens", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("Max-Tokens", "max_tokens"),
        ("temprature", "temperature"),
        ("presence_penality", "presence_penalty"),
        ("stop_token_id", "stop_token_ids"),
        ("stop_sequences", "stop"),
        ("topic", None),
        ("step", None),
        ("text", None),
        ("answer", None),
        ("num", None),
    ],
)
def test_similar_name_of_a_column(name: str, parameter: str | None) -> None:
    assert similar_name(name, PARAMETERS.keys()) == parameter


def test_other_names_stand_for_parameters_of_this_project() -> None:
    assert set(OTHER_NAMES.values()) <= set(PARAMETERS)
    assert not set(OTHER_NAMES) & set(PARAMETERS)


def test_column_notices_name_columns_without_effect() -> None:
    columns = ["id", "sampling_params", "max_new_tokens", "topic", "note"]
    group, renamed = column_notices(columns)
    assert "'sampling_params' passes through and sets nothing" in group
    assert "a column of its own" in group
    assert "'max_new_tokens' passes through and sets nothing; did you mean max_tokens?" in renamed
    assert len(list(column_notices(PARAMETER_GROUPS))) == len(PARAMETER_GROUPS)
