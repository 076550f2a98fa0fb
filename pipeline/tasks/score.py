"""Task `score`: log-likelihood of one or several continuations of each prompt.

encode(context) + encode(continuation) is not encode(context + continuation) in SentencePiece. As in
lm-evaluation-harness, the joined text is encoded and then cut where the context ends, and white
space at the end of the context moves to the beginning of the continuation.
"""

from array import array
from collections.abc import Sequence

from actors.protocol.errors import EmptyPromptError, InvalidPromptError
from actors.protocol.messages import Completion, Request, token_ids
from pipeline.input.roles import CONTINUATION, PROMPT, InputRole
from pipeline.output.columns import OutputColumn
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.validation import (
    check_encoded,
    check_list,
    check_present,
    check_text,
    check_token_ids,
    fit_prompt,
)
from pipeline.tasks import columns
from pipeline.tasks.prompts import prompt_ids, prompt_texts
from pipeline.tasks.task import LogprobOptions, OutputOptions


class ScoreTask:
    """Scores given continuations."""

    name = "score"
    help = "log-likelihood of given continuations"
    input_roles: tuple[InputRole, ...] = (PROMPT, CONTINUATION)
    generates = False

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns those of the prompt: no tokens are generated."""
        return LogprobOptions(generated=None, prompt=requested.prompt)

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the scores, as lists if rows have choices, and the log-probs of the prompt."""
        return (
            *columns.PROMPT_USAGE,
            *columns.scores(choices=options.choices),
            *columns.prompt_logprobs(options.logprobs.prompt),
        )

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the context, and the context joined with each continuation."""
        if row.prompt is None:
            check_present("prompt", row.prompt_token_ids)
        if row.continuation is None and row.choices is None:
            return prompt_texts(row)
        if row.prompt is None:
            raise InvalidPromptError(
                "continuation: expected token ids, as the prompt has, got text; give both as text "
                "or both as token ids"
            )

        prompt = check_text("prompt", row.prompt)
        context = prompt.rstrip()
        trailing_space = prompt[len(context) :]
        continuations = [check_text("continuation", text) for text in _continuation_texts(row)]
        if not context:
            raise EmptyPromptError(
                "prompt: expected text before the continuation, got only white space"
            )
        return (context, *(context + trailing_space + text for text in continuations))

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> list[Request | Completion]:
        """Returns one request with all continuations of the row."""
        continuations = _continuation_ids(row, encoded, rules)
        longest = max(len(continuation) for continuation in continuations)
        ids = prompt_ids(row, encoded, rules)
        ids = fit_prompt(ids, rules.max_len - longest, rules, "the longest continuation")
        return [Request(row.ref, ids, continuations=continuations, row_id=row.id)]


def _continuation_texts(row: PromptRow) -> Sequence[object]:
    if row.choices is not None:
        return check_list("choices", row.choices)
    return [row.continuation]


def _continuation_ids(
    row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
) -> "tuple[array[int], ...]":
    if len(encoded) > 1:
        context_tokens = len(encoded[0])
        continuations: list[array[int]] = []
        for joined in encoded[1:]:
            continuation = token_ids(joined[context_tokens:])
            continuations.append(check_encoded("continuation", continuation))
        return tuple(continuations)

    if row.choices_token_ids is None:
        check_present("continuation", row.continuation_token_ids)
        name = "continuation_token_ids"
        return (check_token_ids(name, row.continuation_token_ids, rules.vocab_size),)

    name = "choices_token_ids"
    choices = check_list(name, row.choices_token_ids)
    return tuple(check_token_ids(name, choice, rules.vocab_size) for choice in choices)


SCORE = ScoreTask()
