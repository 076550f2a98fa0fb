"""Roles of input columns and their forms."""

import dataclasses

import pytest

from pipeline.input.roles import CONTINUATION, PROMPT, InputRole
from pipeline.records import PromptRow


@pytest.mark.parametrize("role", [PROMPT, CONTINUATION])
def test_role_forms_are_fields_of_prompt_rows(role: InputRole) -> None:
    fields = {field.name for field in dataclasses.fields(PromptRow)}
    assert {form.name for form in role.forms} <= fields
    assert role.forms[0].name == role.name  # the form whose column may have any name


@pytest.mark.parametrize("role", [PROMPT, CONTINUATION])
def test_role_forms_say_what_their_names_say(role: InputRole) -> None:
    for form in role.forms:
        assert form.is_text != form.name.endswith("_token_ids")
        assert form.is_list == form.name.startswith("choices")
