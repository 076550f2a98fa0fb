"""Task `teach`: the most likely tokens at each position of a text, to distil a model from them."""

from collections.abc import Iterable, Sequence

from actors.protocol.messages import Completion, Request
from pipeline.input.roles import PROMPT, InputRole
from pipeline.output.columns import OutputColumn
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.tasks import columns
from pipeline.tasks.perplexity import PERPLEXITY
from pipeline.tasks.prompts import prompt_texts
from pipeline.tasks.task import LogprobOptions, OutputOptions


class TeachTask:
    """Predicts all tokens of a text but the first, with the K most likely ones at each place."""

    name = "teach"
    help = "the K most likely tokens at each position of the text, for distillation"
    input_roles: tuple[InputRole, ...] = (PROMPT,)
    generates = False
    embeds = False
    splits_texts = True

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns the K most likely tokens at each scored one, and the mass beside them."""
        return LogprobOptions(None, None, scored=requested.top_k, tail=True)

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the score of the text, its tokens and the targets of a student."""
        windows: tuple[OutputColumn, ...] = ()
        if options.windows:
            windows = columns.WINDOWS
        return (
            *columns.PROMPT_USAGE,
            *columns.scores(choices=False),
            *windows,
            *columns.teacher_targets(options.logprobs.top_k),
        )

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the text, if it is text."""
        return prompt_texts(row)

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> Iterable[Request | Completion]:
        """Returns the requests of task perplexity: the text is scored given its first token."""
        return PERPLEXITY.requests(row, encoded, rules)

    def row_completion(self, completion: Completion) -> Completion:
        """Returns the completion unchanged."""
        return completion


TEACH = TeachTask()
