"""The prompt of a row, as tasks read it: text or token ids."""

from array import array
from collections.abc import Sequence

from actors.protocol.messages import token_ids
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.validation import check_encoded, check_present, check_text, check_token_ids


def prompt_texts(row: PromptRow) -> tuple[str, ...]:
    """Returns the text of the prompt; none where the prompt is token ids.

    Raises:
        RequestError: the text is not valid.
    """
    if row.prompt is None:
        return ()
    return (check_text("prompt", row.prompt),)


def prompt_ids(row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules) -> "array[int]":
    """Returns the token ids of the prompt, whose text is the first of the encoded ones.

    Raises:
        RequestError: there are none, or an id is outside the vocabulary.
    """
    if row.prompt is not None:
        return check_encoded("prompt", token_ids(encoded[0]))
    check_present("prompt", row.prompt_token_ids)
    return check_token_ids("prompt_token_ids", row.prompt_token_ids, rules.vocab_size)
