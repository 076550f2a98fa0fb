"""Task `perplexity`: log-likelihood of each whole text, given its first token."""

from collections.abc import Sequence

from actors.protocol.messages import Completion, Request, Score, logprobs, token_ids
from pipeline.input.roles import PROMPT, InputRole
from pipeline.output.columns import OutputColumn
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.validation import fit_prompt
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

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns those of the prompt, and with log-probs of scored tokens the same K for these."""
        scored = None
        if requested.scored is not None:
            scored = requested.prompt or 0
        return LogprobOptions(generated=None, prompt=requested.prompt, scored=scored)

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the score, and the log-probs of the first token or of the whole text.

        Without log-probs of scored tokens the prompt is the first token alone, as it was in all
        runs before there were any.
        """
        text_columns: tuple[OutputColumn, ...] = columns.prompt_logprobs(options.logprobs.prompt)
        if options.logprobs.scored is not None:
            text_columns = (
                *columns.scored_logprobs(0, choices=options.choices),
                *columns.text_logprobs(options.logprobs.prompt),
            )
        return (
            *columns.PROMPT_USAGE,
            *columns.scores(choices=options.choices),
            *text_columns,
        )

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the text, if it is text."""
        return prompt_texts(row)

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> list[Request | Completion]:
        """Returns a request whose prompt is the first token and whose continuation is the rest.

        A text of one token has nothing to score: it is complete without a replica.
        """
        ids = prompt_ids(row, encoded, rules)
        ids = fit_prompt(ids, rules.max_len, rules)
        if len(ids) == 1:
            return [
                Completion(
                    row.ref,
                    prompt_tokens=1,
                    cached_tokens=0,
                    scores=(NOTHING_SCORED,),
                    context_ids=ids,
                    row_id=row.id,
                )
            ]
        return [Request(row.ref, ids[:1], continuations=(ids[1:],), row_id=row.id)]


PERPLEXITY = PerplexityTask()
