"""Resolves a `ScoreConfig` before any replica starts: model, tokenizer, input, shards, run.json.

Detects the mistakes of a user before anything starts. Reads listings, footers, ids, the tokenizer
and samples of the checkpoint; loads no weights and imports neither JAX nor Ray.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from actors.engine.config import EngineConfig, StepName
from actors.engine.planning.sizes import Devices, EngineSizes, SizeFlags, engine_sizes
from actors.model.config import ModelConfig, parameter_shapes
from actors.protocol.messages import Request
from actors.protocol.parameters import ParameterError
from actors.protocol.sampling import PARAMETERS, resolve_parameters
from actors.protocol.size_buckets import prompt_size_buckets
from actors.replica import ReplicaSpec
from jobs.cli.template_flag import read_template
from jobs.run.config import AUTO, ScoreConfig
from jobs.run.models import model_config
from pipeline import storage
from pipeline.dispatch.buckets import BucketConfig, mean_request_tokens
from pipeline.errors import ConfigError
from pipeline.input.columns import InputColumns, InputSchema, inspect_columns
from pipeline.input.listing import SkippedFile, read_listing
from pipeline.input.shards import RowSample, plan_shards
from pipeline.input.unique_ids import check_unique_ids
from pipeline.output.round_trip import check_output
from pipeline.output.schema import OutputSchema, output_schema
from pipeline.records import InputFile, Shard
from pipeline.requests.rules import RequestRules
from pipeline.requests.sample import sample_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import TASKS, EmbeddingOptions, LogprobOptions, Task
from pipeline.templates.row_template import RowTemplate

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(__file__).resolve().parents[1] / "demo"
ITEMSIZES = {"bfloat16": 2, "float32": 4}  # bytes of a number of --dtype
# Bytes of weights of the smallest model that --device auto means GPUs for.
SMALLEST_GPU_MODEL_BYTES = 16 * 10**9


@dataclass(frozen=True)
class Plan:
    """One run, resolved."""

    # with the defaults filled in that depend on model and input
    config: ScoreConfig
    model: ModelConfig
    tokenizer: Tokenizer | None
    files: tuple[InputFile, ...]
    schema: InputSchema
    shards: tuple[Shard, ...]  # of all partitions
    rules: RequestRules
    tokenizer_digest: str | None
    devices: Devices  # of every replica, as the plan assumes them
    sizes: EngineSizes  # of every replica
    skipped: tuple[SkippedFile, ...] = ()  # files of the input that are not read

    @property
    def own_shards(self) -> tuple[Shard, ...]:
        """The shards of this driver's partition."""
        index, count = self.config.partition_pair()
        return tuple(shard for shard in self.shards if shard.number % count == index)

    @property
    def own_row_count(self) -> int:
        """Number of rows of this driver's partition."""
        return sum(shard.rows for shard in self.own_shards)

    @property
    def task(self) -> Task:
        """What the run does with each row."""
        return TASKS[self.config.task]

    def output_schema(self) -> OutputSchema:
        """Returns the columns of the run's parts."""
        return output_schema(
            self.schema,
            task=self.task,
            logprobs=self.config.logprobs,
            prompt_logprobs=self.config.prompt_logprobs,
            scored_logprobs=self.config.scored_logprobs,
            choices=self.schema.has_choices,
            boundary_chars=self.config.boundary_chars,
            top_k_logprobs=self.config.top_k_logprobs,
            embedding=EmbeddingOptions(self.model.emb_size, self.config.embedding_dtype),
            text_bytes=self.config.writes_text_bytes,
            windows=self.config.writes_windows,
        )

    def bucket_config(self) -> BucketConfig:
        """Returns how batches are cut."""
        return BucketConfig(prompt_size_buckets(self.rules.max_len), self.sizes.batch_tokens)

    def engine_config(self) -> EngineConfig:
        """Returns how engines are sized, and which log-probs they compute."""
        data_shards, _ = self.config.mesh_shape()
        config = self.config
        requested = LogprobOptions(
            config.logprobs,
            config.prompt_logprobs,
            config.scored_logprobs,
            top_k=config.top_k_logprobs,
        )
        logprobs = self.task.logprob_options(requested)
        return EngineConfig(
            max_len=self.rules.max_len,
            prefill_tokens=self.sizes.prefill_tokens,
            slots=self.sizes.slots * data_shards,
            decode_steps=self.sizes.decode_steps,
            logprobs=logprobs.generated,
            prompt_logprobs=logprobs.prompt,
            score_logprobs=logprobs.scored,
            tail_logprobs=logprobs.tail,
            pooling=config.pool if self.task.embeds else None,
            normalize=config.normalize,
            shard_activations=self.config.shard_activations,
            deterministic=self.config.deterministic,
            sampling_parameters=self._sampling_parameters(),
        )

    def _sampling_parameters(self) -> tuple[str, ...]:
        """Returns the sampling parameters that requests may set to other than their defaults."""
        if not self.task.generates:
            return ()
        names: list[str] = []
        for name, parameter in PARAMETERS.items():
            is_set = getattr(self.rules.defaults, name) != parameter.default
            if is_set or name in self.schema.parameters:
                names.append(name)
        return tuple(names)

    def replica_spec(self) -> ReplicaSpec:
        """Returns what replicas are started with."""
        token_bytes = None
        if self.tokenizer is not None:
            token_bytes = self.tokenizer.token_bytes
            # Token ids of the model that the tokenizer does not have.
            token_bytes += (b"",) * (self.model.vocab_size - len(token_bytes))

        return ReplicaSpec(
            model=self.model,
            checkpoint=str(self.config.checkpoint),
            mesh=self.config.mesh_shape(),
            dtype=self.config.dtype,
            engine=self.engine_config(),
            token_bytes=token_bytes,
            steps=self._steps(),
        )

    def _steps(self) -> tuple[StepName, ...]:
        """Returns the step functions of the engine that the run calls."""
        if self.task.embeds:
            return ("prefill", "pool")
        if not self.task.generates:
            return ("prefill", "score")
        if self.engine_config().prompt_logprobs is not None:
            return ("prefill", "decode", "score")
        return ("prefill", "decode")


def make_plan(config: ScoreConfig, other_outputs: Sequence[str] = ()) -> Plan:
    """Resolves and checks a configuration.

    Args:
        config: of the run.
        other_outputs: run folders that are no input where they lie below the input folder, beside
            the output folder and those of --reuse.

    Raises:
        ConfigError, DatasetError, ModelError: something does not fit; nothing was started.
    """
    config = _with_demo(config)
    model = model_config(config.model)
    config = replace(
        config,
        max_len=config.max_len or model.sequence_len,
        mesh="{}x{}".format(*config.mesh_shape()),
    )
    _check_lengths(config, model)
    if config.output is not None:
        storage.check_scheme_is_writable(config.output)

    tokenizer = None
    tokenizer_digest = None
    if config.tokenizer:
        tokenizer_bytes = storage.read(config.tokenizer)[0]
        tokenizer = Tokenizer(tokenizer_bytes)
        tokenizer_digest = f"sha256:{hashlib.sha256(tokenizer_bytes).hexdigest()}"

    no_inputs = (*other_outputs, *config.reuse)
    listing = read_listing(str(config.input), config.limit, config.output, no_inputs)
    files = listing.files
    template = None
    if config.template is not None:
        template = read_template(config.template)
    schema = inspect_columns(files, _columns(config, template))
    _check_tokenizer(config, model, tokenizer, schema)
    _check_repetition(config, schema)
    check_unique_ids(files, schema.id_column, config.limit)

    rules = _request_rules(config, model, tokenizer)
    _check_sampling(rules)
    row_sample = None
    if config.sample is not None:
        row_sample = RowSample(config.sample, config.sample_seed)
    shards = plan_shards(files, config.shard_rows, config.limit, row_sample)

    devices = _devices(config, model)
    mean_tokens = None
    # On CPUs the standard sizes fit any input. The sample is of all partitions, so that each of
    # them gets the same sizes.
    if devices.on_gpus or config.slots != AUTO:
        sample = sample_requests(shards, schema, TASKS[config.task], tokenizer, rules)
        mean_tokens = _mean_request_tokens(sample.requests, rules.max_len)
    sizes = engine_sizes(model, devices, ITEMSIZES[config.dtype], _size_flags(config), mean_tokens)
    config = replace(
        config,
        slots=sizes.slots,
        prefill_tokens=sizes.prefill_tokens,
        batch_tokens=sizes.batch_tokens,
    )
    plan = Plan(
        config,
        model,
        tokenizer,
        files,
        schema,
        shards,
        rules,
        tokenizer_digest,
        devices,
        sizes,
        listing.skipped,
    )
    check_output(plan.output_schema())
    return plan


def assumes_gpus(config: ScoreConfig, model: ModelConfig) -> bool:
    """Returns whether a run is planned for GPUs: by --device, or for a model that needs them."""
    if config.device == "auto":
        return parameter_shapes(model).stored_bytes >= SMALLEST_GPU_MODEL_BYTES
    return config.device == "gpu"


def _devices(config: ScoreConfig, model: ModelConfig) -> Devices:
    data_shards, model_shards = config.mesh_shape()
    return Devices(data_shards, model_shards, on_gpus=assumes_gpus(config, model))


def _size_flags(config: ScoreConfig) -> SizeFlags:
    return SizeFlags(
        _number(config.slots), _number(config.prefill_tokens), _number(config.batch_tokens)
    )


def _number(value: int | Literal["auto"]) -> int | None:
    """Returns the number that a flag is set to; None for auto."""
    if value == AUTO:
        return None
    return value


def _mean_request_tokens(requests: Sequence[Request], max_len: int) -> float | None:
    """Returns the mean share of a request in the token budget of a batch; None without requests."""
    if not requests:
        return None
    return mean_request_tokens(requests, prompt_size_buckets(max_len))


def _request_rules(
    config: ScoreConfig, model: ModelConfig, tokenizer: Tokenizer | None
) -> RequestRules:
    max_len = config.max_len or 0
    rules = RequestRules(
        model.vocab_size,
        max_len,
        config.on_overflow,
        window_stride=config.window_stride or max_len - 1,
        defaults=config.sampling_params(),
        context_token=model.eos_token,
    )
    if tokenizer is None:
        return rules
    text_bytes = None
    if config.writes_text_bytes:
        text_bytes = tokenizer.text_bytes
    return replace(
        rules,
        encode_fragment=tokenizer.encode_fragment,
        token_spans=tokenizer.token_spans,
        text_bytes=text_bytes,
    )


def _with_demo(config: ScoreConfig) -> ScoreConfig:
    """Fills in the weights and the tokenizer of the demo model, which are part of this package."""
    if config.model != "demo":
        return config
    checkpoint = config.checkpoint or str(DEMO / "ckpt-0")
    tokenizer = config.tokenizer or str(DEMO / "tokenizer.model")
    return replace(config, checkpoint=checkpoint, tokenizer=tokenizer)


def _columns(config: ScoreConfig, template: RowTemplate | None) -> InputColumns:
    return InputColumns(
        task=TASKS[config.task],
        prompt_column=config.prompt_column,
        id_column=config.id_column,
        continuation_column=config.continuation_column,
        boundary_chars=config.boundary_chars,
        text_bytes=config.writes_text_bytes,
        windows=config.writes_windows,
        token_logprobs=config.token_logprobs,
        template=template,
        keep_prompt=config.keep_prompt,
    )


def _check_lengths(config: ScoreConfig, model: ModelConfig) -> None:
    max_len = config.max_len or 0
    if max_len > model.sequence_len:
        raise ConfigError(
            f"--max-len: expected at most the model's context of {model.sequence_len} tokens, got "
            f"{max_len}"
        )
    if config.window_stride is not None and config.window_stride >= max_len:
        raise ConfigError(
            f"--window-stride: expected less than --max-len {max_len}, got {config.window_stride}: "
            "the first token that a window scores needs one before it"
        )
    generates = TASKS[config.task].generates
    if generates and config.max_tokens is not None and config.max_tokens >= max_len:
        raise ConfigError(
            f"--max-tokens: expected less than --max-len {max_len}, got {config.max_tokens}: no "
            "prompt fits beside it"
        )

    model_shards = config.mesh_shape()[1]
    axis_sizes = {
        "key/value heads": model.num_kv_heads,
        "expert rows": model.ffn_size,
        "tokens": model.vocab_size,
    }
    if config.shard_activations:
        axis_sizes["activation columns"] = model.emb_size
    for name, size in axis_sizes.items():
        if size % model_shards:
            raise ConfigError(
                f"--mesh: {config.mesh} splits over {model_shards} devices the model's {size} "
                f"{name}, which it does not divide"
            )


def _check_tokenizer(
    config: ScoreConfig, model: ModelConfig, tokenizer: Tokenizer | None, schema: InputSchema
) -> None:
    if tokenizer is None and schema.has_text:
        raise ConfigError(
            "--tokenizer is missing: the input has text; give a SentencePiece model, or token ids "
            "in the input"
        )
    if tokenizer is None and (config.stop or "stop" in schema.parameters):
        raise ConfigError(
            "--tokenizer is missing: stop strings are text; give a SentencePiece model"
        )
    if tokenizer is not None and tokenizer.vocab_size > model.vocab_size:
        raise ConfigError(
            f"--tokenizer: expected a vocabulary of at most the model's {model.vocab_size} tokens, "
            f"got {tokenizer.vocab_size}; "
            "this tokenizer belongs to another model"
        )
    if (
        TASKS[config.task].generates
        and config.max_tokens is None
        and "max_tokens" not in schema.parameters
    ):
        raise ConfigError("--max-tokens is missing: give it, or a column max_tokens in the input")


def _check_sampling(rules: RequestRules) -> None:
    """Checks token ids and texts of the run's sampling parameters against the vocabulary."""
    values = {name: getattr(rules.defaults, name) for name in PARAMETERS}
    try:
        resolve_parameters(values, rules.vocabulary)
    except ParameterError as error:
        raise ConfigError(error.flag_message) from error


def _check_repetition(config: ScoreConfig, schema: InputSchema) -> None:
    """Rejects --repetition-min-count without a pattern length: it would have no effect."""
    has_pattern = config.repetition_max_pattern > 0 or "repetition_max_pattern" in schema.parameters
    default_count = PARAMETERS["repetition_min_count"].default
    if config.repetition_min_count != default_count and not has_pattern:
        raise ConfigError(
            f"--repetition-min-count: {config.repetition_min_count} has no effect without "
            "--repetition-max-pattern; give the "
            "longest pattern to look for, in tokens, e.g. 32"
        )
