"""Sentences about what is probably not meant in a run, before any replica starts."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from actors.protocol.errors import PromptTooLongError
from actors.protocol.messages import Completion, Request
from actors.protocol.parameter_names import column_notices
from actors.protocol.plain_text import bare, plain_message
from actors.protocol.sampling import SamplingParams
from jobs.run.plan import Plan
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.input import formats
from pipeline.input.roles import CONTINUATION
from pipeline.monitoring.row_counts import allowed_failures
from pipeline.output.run_folder import RunFolder
from pipeline.records import Shard
from pipeline.requests.sample import SampleReader, sampled_shards
from pipeline.requests.tokenize import to_requests

CHECKED_ROWS = 256  # the first ones of each sampled shard
TOP_BYTES = 8  # id and log-prob of one of the most likely tokens, on the way to the output
NOTED_PART_BYTES = 2 * 10**9  # of a part that is not written yet, in the driver
SUITABLE_PART_BYTES = 10**9
_ESCAPE = re.compile(r"\\[nrt]")


def plan_notices(plan: Plan) -> Iterator[str]:
    """Yields what the flags and the names of columns suggest."""
    yield from plan.schema.notices
    if plan.task.generates:
        yield from _escape_notices(plan.rules.defaults)
        yield from column_notices(plan.schema.passthrough.names[1:])


def part_notices(plan: Plan, folder: RunFolder, committed: Collection[int]) -> Iterator[str]:
    """Yields that committed parts of a resumed run differ from those that it will write.

    Earlier versions wrote a null for the first token of a text as all of `prompt_logprobs`.

    Raises:
        OutageError: storage does not answer.
    """
    scores_prompt = not plan.task.generates and CONTINUATION not in plan.task.input_roles
    if not scores_prompt or plan.config.prompt_logprobs is None or not committed:
        return
    url = folder.part_url(min(committed))
    with formats.open_parquet(url, client=folder.client) as parquet:
        part = parquet.read(["scored_tokens", "prompt_logprobs"])
    lengths = pc.list_value_length(part["prompt_logprobs"])
    expected = pc.add(part["scored_tokens"], 1)
    if pc.any(pc.not_equal(lengths, expected)).as_py():
        yield (
            f"parts of {plain_message(folder.data_url)} are of an earlier version, whose "
            "prompt_logprobs are a null for the first token of each text; new parts cover the "
            "whole text. Remove the parts, and their rows are computed again"
        )


def _escape_notices(params: SamplingParams) -> Iterator[str]:
    for name, texts in (("stop", params.stop), ("bad-words", params.bad_words)):
        for text in texts:
            escape = _ESCAPE.search(text)
            if escape is not None:
                yield (
                    f"--{name} '{bare(text)}' has a backslash and the letter {escape[0][1]}, as "
                    f"typed; did you mean the control character? In a shell write $'{escape[0]}', "
                    f'in a job file "{escape[0]}"'
                )


@dataclass(frozen=True, slots=True)
class RowFaults:
    """Rows of a sample that cannot run, and the size of the others."""

    rows: int  # of the sample
    counts: Mapping[str, int]  # by error code, the most frequent first
    first: Mapping[str, str]  # by error code: the first row and its message
    tokens: int = 0  # of the requests of the others

    @property
    def total(self) -> int:
        """Rows that cannot run."""
        return sum(self.counts.values())


def row_faults(plan: Plan, shards: Sequence[Shard], client: storage.Client) -> RowFaults:
    """Returns which rows of a sample of shards cannot run, whatever the model does.

    The sample is spread over the shards; rows that run again are not part of it.

    Raises:
        OutageError: storage does not answer.
    """
    sampled = sampled_shards([shard for shard in shards if shard.only is None], CHECKED_ROWS)
    shard_of = {shard.number: shard for shard in sampled}
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    tokens = 0
    reader = SampleReader(plan.rules)
    rows = reader.rows(sampled, plan.schema, client)
    for item in to_requests(rows, plan.task, plan.tokenizer, plan.rules):
        if isinstance(item, Completion) and item.error_code is not None:
            row = shard_of[item.ref.shard].file_row(item.ref.row)
            first.setdefault(item.error_code, f"row {row}: {item.error_message}")
            counts[item.error_code] += 1
        elif isinstance(item, Request):
            tokens += _row_tokens(item)
    row_count = sum(shard.rows for shard in sampled) - reader.left_out
    return RowFaults(row_count, dict(counts.most_common()), first, tokens)


def _row_tokens(request: Request) -> int:
    """Returns the tokens of a request that are those of its row: windows of a text overlap."""
    if request.ref.windows > 1:
        return len(request.continuations[0])
    return request.longest


def row_notices(plan: Plan, faults: RowFaults) -> Iterator[str]:
    """Yields how many rows of a sample cannot run, why, and that parts take much memory."""
    yield from _memory_notices(plan, faults)
    if not faults.total:
        return
    sample = f"{faults.rows:,} sampled rows"
    if faults.rows == plan.own_row_count:
        sample = f"{faults.rows:,} rows"
    counts = ", ".join(f"{code} {count:,}" for code, count in faults.counts.items())
    message = (
        f"{faults.total:,} of {sample} cannot run ({counts}) and will be written as errors; "
        f"{next(iter(faults.first.values()))}"
    )
    allowed = allowed_failures(plan.own_row_count, plan.config.max_error_rate)
    expected = faults.total / faults.rows * plan.own_row_count
    if expected > allowed:
        message += (
            f". At this rate the run ends with exit code 4: --max-error-rate allows {allowed:,} of "
            f"{plan.own_row_count:,} rows"
        )
    yield plain_message(message)


def _memory_notices(plan: Plan, faults: RowFaults) -> Iterator[str]:
    """Yields that the most likely tokens of a part take gigabytes of the driver's memory."""
    if not faults.rows:
        return
    engine = plan.engine_config()
    top_k = max(engine.target_logprobs, engine.logprobs or 0)
    row_bytes = faults.tokens / faults.rows * top_k * TOP_BYTES
    part_rows = min(plan.config.shard_rows, plan.own_row_count)
    part_bytes = row_bytes * part_rows
    if part_bytes < NOTED_PART_BYTES:
        return
    suitable_rows = max(1, int(SUITABLE_PART_BYTES / row_bytes))
    yield (
        f"a part of {part_rows:,} rows has {part_bytes / 1e9:,.1f} GB of most likely tokens, which "
        "the driver holds until the part is written, of several parts at once; --shard-rows "
        f"{suitable_rows} makes parts of 1 GB"
    )


def check_lengths(plan: Plan, faults: RowFaults) -> None:
    """Checks that not more prompts are too long than --max-error-rate allows.

    Raises:
        ConfigError: the sample alone has more of them, or consists of them.
    """
    count = faults.counts.get(PromptTooLongError.code, 0)
    if not count:
        return
    allowed = allowed_failures(plan.own_row_count, plan.config.max_error_rate)
    are_all = count == faults.rows and plan.config.max_error_rate < 1
    if count <= allowed and not are_all:
        return
    cures = [f"raise --max-len {plan.rules.max_len}"]
    if plan.rules.max_len == plan.model.sequence_len:
        cures = [f"shorten them to the model's context of {plan.rules.max_len} tokens"]
    if plan.task.generates:
        cures += ["lower --max-tokens", "use --on-overflow truncate-left"]
    if plan.task.splits_texts:
        cures.append("use --on-overflow window")
    raise ConfigError(
        f"prompts are too long in {count:,} of {faults.rows:,} rows, the first one "
        f"{faults.first[PromptTooLongError.code]}; --max-error-rate allows {allowed:,} failed "
        f"rows, so nothing was started: {', '.join(cures)}, or raise --max-error-rate"
    )
