"""Which Arrow types an input column may have."""

import pyarrow as pa
import pytest

from actors.protocol.sampling import PARAMETERS
from pipeline.errors import DatasetError
from pipeline.input.column_types import check_type
from pipeline.input.roles import CONTINUATION, PROMPT

TEXT = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.run_end_encoded(pa.int32(), pa.string()),
)
INTEGERS = (pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64())
REALS = (pa.float16(), pa.float32(), pa.float64())
BOOLEAN = (pa.bool_(),)
TEXT_LISTS = tuple(map(pa.list_, TEXT))
INTEGER_LISTS = (
    *map(pa.list_, INTEGERS),
    pa.large_list(pa.int32()),
    pa.list_(pa.int32(), 4),
    pa.list_view(pa.int32()),
    pa.large_list_view(pa.int32()),
)
INTEGER_LIST_LISTS = tuple(map(pa.list_, INTEGER_LISTS))
DECIMALS = (pa.decimal128(38, 0), pa.decimal128(3, 2))
NUMBER_LISTS = (*INTEGER_LISTS, pa.list_(pa.float32()), pa.list_(pa.decimal128(4, 0)))
PAIR = pa.struct([("token", pa.int32()), ("bias", pa.float32())])
STRUCTS = (pa.struct([("a", pa.int32())]), PAIR)
MAP = pa.map_(pa.int32(), pa.float32())
OTHERS = (pa.date32(), *STRUCTS, MAP, pa.list_(PAIR), pa.list_(STRUCTS[0]))
ALL = (
    *TEXT,
    *INTEGERS,
    *REALS,
    *BOOLEAN,
    *TEXT_LISTS,
    *DECIMALS,
    *NUMBER_LISTS,
    *INTEGER_LIST_LISTS,
    *OTHERS,
)
ACCEPTED = {
    "id": (*TEXT, *INTEGERS, pa.decimal128(38, 0)),
    "prompt": TEXT,
    "prompt_token_ids": NUMBER_LISTS,
    "continuation": TEXT,
    "continuation_token_ids": NUMBER_LISTS,
    "choices": TEXT_LISTS,
    "choices_token_ids": INTEGER_LIST_LISTS,
    "stop": (*TEXT, *TEXT_LISTS),
    "temperature": (*INTEGERS, *REALS, *DECIMALS),
    "max_tokens": (*INTEGERS, *REALS, *DECIMALS),
    "stop_token_ids": NUMBER_LISTS,
    "logit_bias": (*TEXT, *STRUCTS, MAP, *INTEGER_LIST_LISTS, pa.list_(PAIR)),
    "ignore_eos": BOOLEAN,
}


@pytest.mark.parametrize("use", ACCEPTED)
def test_check_type_accepts_exactly_the_types_of_a_use(use: str) -> None:
    for data_type in ALL:
        if data_type in ACCEPTED[use]:
            check_type("x", data_type, use, "file")
        else:
            with pytest.raises(DatasetError, match=r"^file: column 'x' is .*, expected "):
                check_type("x", data_type, use, "file")


def test_check_type_accepts_columns_without_values() -> None:
    for use in ACCEPTED:
        check_type("x", pa.null(), use, "file")
    for use in ("prompt_token_ids", "choices", "choices_token_ids"):
        check_type("x", pa.list_(pa.null()), use, "file")


def test_check_type_leaves_mixed_json_columns_to_their_rows() -> None:
    for use in ("prompt", "max_tokens", "choices_token_ids"):
        check_type("x", None, use, "file")
    with pytest.raises(DatasetError, match="values of several types"):
        check_type("x", None, "id", "file")


def test_every_role_form_and_parameter_has_an_expected_type() -> None:
    names = {form.name for role in (PROMPT, CONTINUATION) for form in role.forms}
    for use in (*names, *PARAMETERS):
        check_type("x", pa.null(), use, "file")
