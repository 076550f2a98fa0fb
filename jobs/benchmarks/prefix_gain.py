"""Requests → how often their tokens would be computed if nothing were known twice.

What an engine reaches is compared with it.
"""

from array import array
from collections.abc import Iterable, Sequence

from actors.engine.scoring import score_sequences
from actors.protocol.messages import Request, token_ids


def sequences(requests: Iterable[Request]) -> list["array[int]"]:
    """Returns the tokens that the engine computes for each request when it reuses nothing.

    A prompt to complete without its last token, which decode takes in; a prompt to score with each
    different continuation.
    """
    found: list[array[int]] = []
    for request in requests:
        if request.sampling is not None:
            found.append(request.prompt_ids[:-1])
        else:
            found += (
                token_ids(each.tokens.tolist())
                for each in score_sequences(request, with_prompt=False)[0]
            )
    return found


def ideal_gain(computed: Sequence["array[int]"], page_size: int, *, last_is_read: bool) -> float:
    """Returns tokens over those that must be computed when every whole page that came before is there for ever.

    `last_is_read`: the log-prob after the last token is asked for, so that the last token is
    computed always.
    """
    known: set[bytes] = set()
    tokens = needed = 0
    for ids in computed:
        pages = [
            ids[:end].tobytes() for end in range(page_size, len(ids) + 1 - last_is_read, page_size)
        ]
        shared = next((count for count, page in enumerate(pages) if page not in known), len(pages))
        known.update(pages)
        tokens += len(ids)
        needed += len(ids) - shared * page_size
    return tokens / needed
