"""Resolves a `ScoreConfig` before any replica starts: model, tokenizer, input, shards, run.json.

All that a user can get wrong is found here, before anything starts. Reads listings, footers, ids,
the tokenizer and samples of the checkpoint; loads no weights and imports neither JAX nor Ray.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from actors.engine.config import EngineConfig
from actors.model.config import ModelConfig
from actors.protocol.parameters import ParameterError
from actors.protocol.sampling import PARAMETERS, resolve_parameters
from actors.protocol.size_buckets import prompt_size_buckets
from actors.replica import ReplicaSpec
from jobs.run.config import ScoreConfig
from jobs.run.models import model_config
from pipeline import storage
from pipeline.dispatch.buckets import BucketConfig
from pipeline.errors import ConfigError
from pipeline.input.columns import InputColumns, InputSchema, inspect_columns
from pipeline.input.shards import list_input, plan_shards
from pipeline.input.unique_ids import check_unique_ids
from pipeline.records import InputFile, Shard
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import TASKS, LogprobOptions, Task

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(__file__).resolve().parents[1] / "demo"


@dataclass(frozen=True)
class Plan:
    """One run, resolved."""

    config: ScoreConfig  # with the defaults that depend on the model filled in
    model: ModelConfig
    tokenizer: Tokenizer | None
    files: tuple[InputFile, ...]
    schema: InputSchema
    shards: tuple[Shard, ...]  # of all partitions
    rules: RequestRules
    tokenizer_digest: str | None

    @property
    def own_shards(self) -> tuple[Shard, ...]:
        """The shards of this driver's partition."""
        index, count = self.config.partition_pair()
        return tuple(shard for shard in self.shards if shard.number % count == index)

    @property
    def task(self) -> Task:
        """What the run does with each row."""
        return TASKS[self.config.task]

    def bucket_config(self) -> BucketConfig:
        """Returns how batches are cut."""
        return BucketConfig(prompt_size_buckets(self.rules.max_len), self.config.batch_tokens)

    def engine_config(self) -> EngineConfig:
        """Returns how engines are sized, and which log-probs they compute."""
        standard = EngineConfig(max_len=self.rules.max_len)
        requested = LogprobOptions(self.config.logprobs, self.config.prompt_logprobs)
        logprobs = self.task.logprob_options(requested)
        return replace(
            standard,
            batch_tokens=min(self.config.batch_tokens, standard.batch_tokens),
            logprobs=logprobs.generated,
            prompt_logprobs=logprobs.prompt,
            shard_activations=self.config.shard_activations,
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
        table = self.tokenizer.token_bytes if self.tokenizer else None
        if table is not None:
            # ids that the model has and the tokenizer has not
            table += (b"",) * (self.model.vocab_size - len(table))
        return ReplicaSpec(
            model=self.model,
            checkpoint=str(self.config.checkpoint),
            mesh=self.config.mesh_shape(),
            dtype=self.config.dtype,
            engine=self.engine_config(),
            token_bytes=table,
        )


def make_plan(config: ScoreConfig) -> Plan:
    """Resolves and checks a configuration.

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
    model_bytes = storage.read(config.tokenizer)[0] if config.tokenizer else None
    tokenizer = Tokenizer(model_bytes) if model_bytes is not None else None
    files = list_input(str(config.input), config.limit)
    schema = inspect_columns(files, _columns(config))
    _check_tokenizer(config, model, tokenizer, schema)
    _check_repetition(config, schema)
    check_unique_ids(files, schema.id_column, config.limit)
    rules = RequestRules(
        model.vocab_size,
        config.max_len or 0,
        config.on_overflow,
        config.sampling_params(),
        tokenizer.encode_fragment if tokenizer else None,
    )
    _check_sampling(rules)
    sha = f"sha256:{hashlib.sha256(model_bytes).hexdigest()}" if model_bytes is not None else None
    shards = plan_shards(files, config.shard_rows, config.limit)
    return Plan(config, model, tokenizer, files, schema, shards, rules, sha)


def _with_demo(config: ScoreConfig) -> ScoreConfig:
    """The demo model brings its own weights and tokenizer."""
    if config.model != "demo":
        return config
    checkpoint = config.checkpoint or str(DEMO / "ckpt-0")
    return replace(
        config, checkpoint=checkpoint, tokenizer=config.tokenizer or str(DEMO / "tokenizer.model")
    )


def _columns(config: ScoreConfig) -> InputColumns:
    return InputColumns(
        task=TASKS[config.task],
        prompt_column=config.prompt_column,
        id_column=config.id_column,
        continuation_column=config.continuation_column,
    )


def _check_lengths(config: ScoreConfig, model: ModelConfig) -> None:
    longest = config.max_len or 0
    if longest > model.sequence_len:
        raise ConfigError(
            f"--max-len: expected at most the model's context of {model.sequence_len} tokens, got "
            f"{longest}"
        )
    generates = TASKS[config.task].generates
    if generates and config.max_tokens is not None and config.max_tokens >= longest:
        raise ConfigError(
            f"--max-tokens: expected less than --max-len {longest}, got {config.max_tokens}: no "
            "prompt fits beside it"
        )
    split = config.mesh_shape()[1]
    shared_out = {
        "key/value heads": model.num_kv_heads,
        "expert rows": model.ffn_size,
        "tokens": model.vocab_size,
    }
    if config.shard_activations:
        shared_out["activation columns"] = model.emb_size
    for name, count in shared_out.items():
        if count % split:
            raise ConfigError(
                f"--mesh: {config.mesh} splits over {split} devices the model's {count} {name}, "
                "which it does not divide"
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
    """A count alone looks for nothing: whoever gives it believes that loops are cut off."""
    searched = config.repetition_max_pattern > 0 or "repetition_max_pattern" in schema.parameters
    if config.repetition_min_count != PARAMETERS["repetition_min_count"].default and not searched:
        raise ConfigError(
            f"--repetition-min-count: {config.repetition_min_count} has no effect without "
            "--repetition-max-pattern; give the "
            "longest pattern to look for, in tokens, e.g. 32"
        )
