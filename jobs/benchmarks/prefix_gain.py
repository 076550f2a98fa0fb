"""The ideal gain of prefix reuse: tokens over those that must be computed with an endless cache."""

from array import array
from collections.abc import Iterable, Sequence

from actors.engine.scoring import score_sequences
from actors.protocol.messages import Request, token_ids


def sequences(requests: Iterable[Request]) -> list["array[int]"]:
    """Returns the tokens that the engine computes for each request without any reuse.

    For a prompt to complete: all but its last token, which decode computes. For a prompt to score:
    the prompt with each different continuation.
    """
    computed: list[array[int]] = []
    for request in requests:
        if request.sampling is not None:
            computed.append(request.prompt_ids[:-1])
            continue
        scored, _ = score_sequences(request, with_prompt=False)
        computed += [token_ids(sequence.tokens.tolist()) for sequence in scored]
    return computed


def ideal_gain(computed: Sequence["array[int]"], page_size: int, *, last_is_read: bool) -> float:
    """Returns tokens over computed tokens when every complete page is cached for ever.

    Args:
        computed: tokens of each request, in order.
        page_size: tokens per page.
        last_is_read: the log-prob after the last token is requested, so that the last token is
            always computed.
    """
    cached: set[bytes] = set()
    total_tokens = 0
    computed_tokens = 0
    for ids in computed:
        last_end = len(ids) - last_is_read
        prefixes = [ids[:end].tobytes() for end in range(page_size, last_end + 1, page_size)]
        shared_pages = 0
        while shared_pages < len(prefixes) and prefixes[shared_pages] in cached:
            shared_pages += 1

        cached.update(prefixes)
        total_tokens += len(ids)
        computed_tokens += len(ids) - shared_pages * page_size
    return total_tokens / computed_tokens
