"""Task `score`: log-likelihood of one or several continuations of each prompt.

encode(context) + encode(continuation) is not encode(context + continuation) in SentencePiece. The
joined text is encoded, and the tokens that overlap the continuation are scored, given those before
them. The first of them can cover the end of the context too: `boundary_chars` is how much of it. As
in lm-evaluation-harness, white space at the end of the context counts as part of the continuation,
and a continuation without any context is scored given the end-of-text token.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from actors.protocol.errors import InvalidPromptError
from actors.protocol.messages import CLEAN_BOUNDARY, Boundary, Completion, Request, token_ids
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
    embeds = False
    splits_texts = False

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns those of the prompt and of scored tokens: no tokens are generated."""
        return LogprobOptions(None, prompt=requested.prompt, scored=requested.scored)

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the scores, as lists if rows have choices, and the log-probs of the prompt."""
        boundary: tuple[OutputColumn, ...] = ()
        if options.boundary_chars:
            boundary = (columns.boundary_chars(choices=options.choices),)
        return (
            *columns.PROMPT_USAGE,
            *columns.scores(choices=options.choices),
            *boundary,
            *columns.scored_logprobs(options.logprobs.scored, choices=options.choices),
            *columns.prompt_logprobs(options.logprobs.prompt),
        )

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the context, and the context joined with each continuation."""
        if row.prompt is None:
            check_present("prompt", row.prompt_token_ids)
        if not _has_text(row):
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
        return (context, *(context + trailing_space + text for text in continuations))

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> list[Request | Completion]:
        """Returns one request with all continuations of the row."""
        if _has_text(row):
            split = _split_texts(self.texts(row), encoded, rules)
        else:
            continuations = _continuation_ids(row, rules)
            split = _SplitRow(prompt_ids(row, encoded, rules), continuations)

        longest = max(len(continuation) for continuation in split.continuations)
        ids = fit_prompt(split.prompt, rules.max_len - longest, rules, "the longest continuation")
        return [
            Request(
                row.ref,
                ids,
                continuations=split.continuations,
                row_id=row.id,
                boundaries=split.boundaries,
            )
        ]

    def row_completion(self, completion: Completion) -> Completion:
        """Returns the completion unchanged."""
        return completion


@dataclass(frozen=True, slots=True)
class _SplitRow:
    """The token ids of a row: what all continuations have before them, and the rest of each."""

    prompt: "array[int]"
    continuations: "tuple[array[int], ...]"
    boundaries: tuple[Boundary, ...] = ()


def _has_text(row: PromptRow) -> bool:
    return row.continuation is not None or row.choices is not None


def _continuation_texts(row: PromptRow) -> Sequence[object]:
    if row.choices is not None:
        return check_list("choices", row.choices)
    return [row.continuation]


def _split_texts(
    texts: Sequence[str], encoded: Sequence[list[int]], rules: RequestRules
) -> _SplitRow:
    """Splits the tokens of each joined text where the first token of the continuation is.

    Args:
        texts: the context, and the context joined with each continuation.
        encoded: the token ids of each text.
        rules: of the run.
    """
    context = texts[0]
    context_ids = encoded[0]
    all_joined_ids = encoded[1:]
    if rules.token_spans is None:
        return _split_as_harness(
            context_ids or [rules.context_token], all_joined_ids, len(context_ids)
        )

    starts: list[int] = []
    covered_chars: list[int] = []
    for text, joined_ids in zip(texts[1:], all_joined_ids, strict=True):
        start = len(context_ids)
        covered = 0
        if joined_ids[:start] != context_ids:
            start, covered = _first_scored(rules.token_spans(text), len(context))
        check_encoded("continuation", token_ids(joined_ids[start:]))
        starts.append(start)
        covered_chars.append(covered)

    shared = _common_prefix(all_joined_ids, min(starts))
    prompt = token_ids(all_joined_ids[0][:shared] or [rules.context_token])
    continuations: list[array[int]] = []
    boundaries: list[Boundary] = []
    for joined_ids, start, covered in zip(all_joined_ids, starts, covered_chars, strict=True):
        continuations.append(token_ids(joined_ids[shared:]))
        boundaries.append(Boundary(start - shared, covered))

    if all(boundary == CLEAN_BOUNDARY for boundary in boundaries):
        return _SplitRow(prompt, tuple(continuations))
    return _SplitRow(prompt, tuple(continuations), tuple(boundaries))


def _split_as_harness(
    prompt: list[int], all_joined_ids: Sequence[list[int]], context_tokens: int
) -> _SplitRow:
    """Splits joined texts where the tokens of the context alone end."""
    continuations: list[array[int]] = []
    for joined_ids in all_joined_ids:
        continuation = token_ids(joined_ids[context_tokens:])
        continuations.append(check_encoded("continuation", continuation))
    return _SplitRow(token_ids(prompt), tuple(continuations))


def _first_scored(spans: Sequence[tuple[int, int]], context_chars: int) -> tuple[int, int]:
    """Returns the first token that overlaps the continuation.

    Args:
        spans: begin and end of each token, in characters of the joined text.
        context_chars: length of the context.

    Returns:
        The index of the token, and how many characters of the context it covers.
    """
    for index, (begin, end) in enumerate(spans):
        # Byte tokens ahead of the last one of their character are empty and begin with it.
        if end > context_chars or begin >= context_chars:
            return index, max(context_chars - begin, 0)
    return len(spans), 0


def _common_prefix(sequences: Sequence[list[int]], longest: int) -> int:
    """Returns how many leading tokens all sequences share, at most `longest`."""
    first = sequences[0]
    shared = longest
    for ids in sequences[1:]:
        while ids[:shared] != first[:shared]:
            shared -= 1
    return shared


def _continuation_ids(row: PromptRow, rules: RequestRules) -> "tuple[array[int], ...]":
    if row.choices_token_ids is None:
        check_present("continuation", row.continuation_token_ids)
        name = "continuation_token_ids"
        return (check_token_ids(name, row.continuation_token_ids, rules.vocab_size),)

    name = "choices_token_ids"
    choices = check_list(name, row.choices_token_ids)
    return tuple(check_token_ids(name, choice, rules.vocab_size) for choice in choices)


SCORE = ScoreTask()
