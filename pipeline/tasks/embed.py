"""Task `embed`: the embedding of each text, its pooled hidden states after the last norm."""

from collections.abc import Sequence

from actors.protocol.messages import Completion, Request
from pipeline.input.roles import PROMPT, InputRole
from pipeline.output.columns import OutputColumn
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.validation import fit_prompt
from pipeline.tasks import columns
from pipeline.tasks.prompts import prompt_ids, prompt_texts
from pipeline.tasks.task import LogprobOptions, OutputOptions


class EmbedTask:
    """Embeds texts."""

    name = "embed"
    help = "embedding of the whole text"
    input_roles: tuple[InputRole, ...] = (PROMPT,)
    generates = False
    embeds = True
    splits_texts = False

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns none: nothing is multiplied with the vocabulary."""
        return LogprobOptions(generated=None, prompt=None)

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the embedding."""
        return (*columns.PROMPT_USAGE, columns.embedding(options.embedding))

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the text, if it is text."""
        return prompt_texts(row)

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> list[Request | Completion]:
        """Returns one request for the text."""
        ids = prompt_ids(row, encoded, rules)
        ids = fit_prompt(ids, rules.max_len, rules)
        return [Request(row.ref, ids, row_id=row.id, embeds=True)]

    def row_completion(self, completion: Completion) -> Completion:
        """Returns the completion unchanged."""
        return completion


EMBED = EmbedTask()
