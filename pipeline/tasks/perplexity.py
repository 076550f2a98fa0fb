"""Task `perplexity`: log-likelihood of each whole text, given its first token.

A text longer than the context fails, loses its beginning, or is scored in windows, as --on-overflow
says.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace

from actors.protocol.messages import Completion, Request, Score, logprobs, token_ids
from pipeline.input.roles import PROMPT, InputRole
from pipeline.output.columns import OutputColumn
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.validation import fit_prompt
from pipeline.requests.windows import window_requests
from pipeline.tasks import columns
from pipeline.tasks.prompts import prompt_ids, prompt_texts
from pipeline.tasks.task import LogprobOptions, OutputOptions

NOTHING_SCORED = Score(
    loglikelihood=0.0,
    is_greedy=True,
    tokens=0,
    token_ids=token_ids(),
    token_logprobs=logprobs(),
    top_token_ids=token_ids(),
    top_logprobs=logprobs(),
    tail_logprobs=logprobs(),
)


class PerplexityTask:
    """Scores all tokens of a text but the first."""

    name = "perplexity"
    help = "log-likelihood of the whole text"
    input_roles: tuple[InputRole, ...] = (PROMPT,)
    generates = False
    embeds = False
    splits_texts = True

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns those of scored tokens: they are the tokens of the prompt, too."""
        scored = None
        if requested.prompt is not None or requested.scored is not None:
            scored = requested.prompt or 0
        return LogprobOptions(generated=None, prompt=None, scored=scored)

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the score, what the text is, and the log-probs of its tokens."""
        task_columns = (*columns.PROMPT_USAGE, *columns.scores(choices=options.choices))
        if options.text_bytes:
            task_columns += columns.TEXT_BYTES
        if options.windows:
            task_columns += columns.WINDOWS
        if options.logprobs.scored is not None:
            task_columns += columns.scored_logprobs(0, choices=options.choices)
        return task_columns + columns.prompt_logprobs(options.logprobs.prompt)

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the text, if it is text."""
        return prompt_texts(row)

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> Iterable[Request | Completion]:
        """Returns a request whose prompt is the first token and whose continuation is the rest.

        A text of one token has nothing to score: it is complete without a replica. A text longer
        than the context is a request per window, where the run splits texts.
        """
        ids = prompt_ids(row, encoded, rules)
        prompt_bytes = _text_bytes(row, ids, rules)
        if len(ids) == 1:
            return [
                Completion(
                    row.ref,
                    prompt_tokens=1,
                    cached_tokens=0,
                    scores=(NOTHING_SCORED,),
                    context_ids=ids,
                    row_id=row.id,
                    prompt_bytes=prompt_bytes,
                )
            ]

        request = Request(row.ref, token_ids(), row_id=row.id, prompt_bytes=prompt_bytes)
        if rules.overflow == "window":
            return window_requests(request, ids, rules.max_len, rules.window_stride)
        ids = fit_prompt(ids, rules.max_len, rules, overflow="window")
        return [replace(request, prompt_ids=ids[:1], continuations=(ids[1:],))]

    def row_completion(self, completion: Completion) -> Completion:
        """Returns the completion with the log-probs of the scored tokens as those of the prompt."""
        if not completion.scores:
            return completion
        [score] = completion.scores
        if score.token_logprobs is None:
            return completion
        return replace(
            completion,
            prompt_logprobs=score.token_logprobs,
            prompt_top_token_ids=score.top_token_ids,
            prompt_top_logprobs=score.top_logprobs,
        )


def _text_bytes(row: PromptRow, ids: "array[int]", rules: RequestRules) -> int | None:
    """Returns the UTF-8 bytes of the text; of token ids, those of the text that they encode."""
    if isinstance(row.prompt, str):
        return len(row.prompt.encode())
    if rules.text_bytes is None:
        return None
    return rules.text_bytes(ids)


PERPLEXITY = PerplexityTask()
