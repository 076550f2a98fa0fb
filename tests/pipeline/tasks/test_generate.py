"""Task generate: one request per sample, beside max_tokens of the row."""

from actors.protocol.messages import Completion, Request, RowRef
from pipeline.requests.sampling import effective_seed
from pipeline.requests.tokenize import to_requests
from pipeline.tasks import GENERATE
from tests.pipeline.tasks.rows import RULES, only_item, prompt_row


def test_generate_samples_have_addresses_and_seeds_of_their_own() -> None:
    row = prompt_row(prompt_token_ids=[5], parameters={"n": 3, "seed": 11})
    items = list(to_requests([row], GENERATE, None, RULES))
    assert [item.ref for item in items] == [RowRef(3, 5, sample, 3) for sample in range(3)]
    seeds = [item.sampling.seed for item in items if isinstance(item, Request) and item.sampling]
    assert seeds == [effective_seed(11, "id-5", sample) for sample in range(3)]


def test_generate_parameter_out_of_range_fails_row() -> None:
    item = only_item(prompt_row(prompt_token_ids=[5], parameters={"temperature": -1.0}), None)
    assert isinstance(item, Completion)
    assert item.error_code == "invalid_parameter"
    assert "temperature: expected a number" in str(item.error_message)


def test_generate_prompt_fits_beside_max_tokens() -> None:
    prompt = list(range(5, 61))  # 56 tokens of 64, with 8 to generate
    item = only_item(prompt_row(prompt_token_ids=prompt), None)
    assert isinstance(item, Request)
    assert list(item.prompt_ids) == prompt
    item = only_item(prompt_row(prompt_token_ids=[*prompt, 5]), None)
    assert isinstance(item, Completion)
    assert item.error_code == "prompt_too_long"


def test_generate_max_tokens_leaves_room_for_one_token() -> None:
    row = prompt_row(prompt_token_ids=[5], parameters={"max_tokens": 63})
    assert isinstance(only_item(row, None), Request)
    row = prompt_row(prompt_token_ids=[5], parameters={"max_tokens": 64})
    item = only_item(row, None)
    assert isinstance(item, Completion)
    assert "max_tokens: expected less than --max-len = 64, got 64" in str(item.error_message)
