"""Roles of input columns: what a task reads of a row, and the forms that it may have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ColumnForm:
    """One form of a role's values, which is also the usual name of its column."""

    name: str  # the field of `PromptRow` that takes the values
    is_text: bool  # text is encoded by the tokenizer; otherwise values are token ids
    is_list: bool = False  # several values per row


@dataclass(frozen=True, slots=True)
class InputRole:
    """What a task reads of each row: one column holds it, in one of several forms.

    The column of the first form may have any name, which --<role>-column gives.
    """

    name: str
    forms: tuple[ColumnForm, ...]


PROMPT = InputRole(
    "prompt",
    (
        ColumnForm("prompt", is_text=True),
        ColumnForm("prompt_token_ids", is_text=False),
    ),
)
CONTINUATION = InputRole(
    "continuation",
    (
        ColumnForm("continuation", is_text=True),
        ColumnForm("continuation_token_ids", is_text=False),
        ColumnForm("choices", is_text=True, is_list=True),
        ColumnForm("choices_token_ids", is_text=False, is_list=True),
    ),
)
