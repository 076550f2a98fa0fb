"""Names that other tools have for sampling parameters, and names that are nearly one of ours.

Standard library only.
"""

import re
from collections.abc import Collection, Iterable, Iterator

from actors.protocol.plain_text import quoted
from actors.protocol.sampling import PARAMETERS
from actors.protocol.similar_names import closest_name

# names in vLLM, Transformers, llama.cpp, OpenAI's API and lm-evaluation-harness
OTHER_NAMES = {
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_gen_toks": "max_tokens",
    "max_length": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "min_new_tokens": "min_tokens",
    "min_length": "min_tokens",
    "num_return_sequences": "n",
    "num_samples": "n",
    "best_of": "n",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "stop_words": "stop",
    "until": "stop",
    "eos_token_id": "stop_token_ids",
    "repeat_penalty": "repetition_penalty",
    "bad_words_ids": "bad_words",
    "random_seed": "seed",
    "do_sample": "temperature",
    "ignore_eos_token": "ignore_eos",
}
# columns that hold several parameters
PARAMETER_GROUPS = frozenset(
    {
        "sampling_params",
        "sampling_parameters",
        "generation_config",
        "generation_kwargs",
        "gen_kwargs",
        "generation_params",
    }
)
SIMILARITY = 0.85  # of two names, as difflib measures it; lower ones are other words
SHORTEST_CHARS = 4  # of a name that is compared: `top`, `seq` and the like are other words


def similar_name(name: str, names: Collection[str]) -> str | None:
    """Returns which of `names` was probably meant by a name that is not one of them."""
    normal = _normal(name)
    if normal in names:
        return normal
    other_name = OTHER_NAMES.get(normal)
    if other_name in names:
        return other_name
    if len(normal) < SHORTEST_CHARS:
        return None
    return closest_name(normal, names, similarity=SIMILARITY)


def column_notices(columns: Iterable[str]) -> Iterator[str]:
    """Yields a sentence for each column that passes through and looks like a parameter."""
    for column in columns:
        effect = f"column {quoted(column)} passes through and sets nothing"
        if _normal(column) in PARAMETER_GROUPS:
            yield f"{effect}; give each parameter a column of its own, such as max_tokens"
            continue
        similar = similar_name(column, PARAMETERS.keys())
        if similar is not None:
            yield f"{effect}; did you mean {similar}?"


def _normal(name: str) -> str:
    """Returns a name in lower case with `_` between words: `maxTokens` is `max_tokens`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s.-]+", "_", words).lower()
