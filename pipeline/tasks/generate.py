"""Task `generate`: completes each prompt, `n` times."""

from collections.abc import Sequence

from actors.protocol.errors import InvalidParameterError
from actors.protocol.messages import Completion, Request, RowRef
from pipeline.input.roles import PROMPT, InputRole
from pipeline.output.columns import OutputColumn
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.sampling import effective_seed, resolve_sampling
from pipeline.requests.validation import fit_prompt
from pipeline.tasks import columns
from pipeline.tasks.prompts import prompt_ids, prompt_texts
from pipeline.tasks.task import LogprobOptions, OutputOptions


class GenerateTask:
    """Draws completions of prompts."""

    name = "generate"
    help = "complete each prompt"
    input_roles: tuple[InputRole, ...] = (PROMPT,)
    generates = True
    embeds = False
    splits_texts = False

    def logprob_options(self, requested: LogprobOptions) -> LogprobOptions:
        """Returns those of generated tokens and of the prompt: nothing is scored."""
        return LogprobOptions(generated=requested.generated, prompt=requested.prompt)

    def output_columns(self, options: OutputOptions) -> tuple[OutputColumn, ...]:
        """Returns the completion, its log-probs, those of the prompt, and the seed."""
        return (
            *columns.COMPLETION,
            *columns.generated_logprobs(options.logprobs.generated),
            *columns.prompt_logprobs(options.logprobs.prompt),
            columns.SEED,
        )

    def texts(self, row: PromptRow) -> tuple[str, ...]:
        """Returns the text of the prompt, if it is text."""
        return prompt_texts(row)

    def requests(
        self, row: PromptRow, encoded: Sequence[list[int]], rules: RequestRules
    ) -> list[Request | Completion]:
        """Returns one request per sample, each with its own seed."""
        ids = prompt_ids(row, encoded, rules)
        sampling = resolve_sampling(row.parameters, rules.defaults, rules.vocabulary)
        max_tokens = sampling.max_tokens
        if max_tokens >= rules.max_len:
            raise InvalidParameterError(
                f"max_tokens: expected less than --max-len = {rules.max_len}, got {max_tokens}: no "
                "prompt fits beside it"
            )
        room = rules.max_len - max_tokens
        ids = fit_prompt(ids, room, rules, f"max_tokens = {max_tokens}")

        requests: list[Request | Completion] = []
        for sample in range(sampling.n):
            ref = RowRef(row.ref.shard, row.ref.row, sample, sampling.n)
            seed = effective_seed(sampling.seed, row.id, sample)
            requests.append(Request(ref, ids, sampling=sampling.seeded(seed), row_id=row.id))
        return requests

    def row_completion(self, completion: Completion) -> Completion:
        """Returns the completion unchanged."""
        return completion


GENERATE = GenerateTask()
