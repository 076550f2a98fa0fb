"""Questions and a tokenizer -> trained parameters of the demo model.

Fresh questions at every step, loss on answers only.

A step depends on its number and the state before it, on nothing else: equal seeds give equal
parameters on equal machines. Knows nothing of files or of int8; `make_demo.py` writes what comes
out of here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from actors.model.config import ModelConfig
from jobs.demo.dense_model import FloatParams, forward, initial_params
from jobs.demo.questions import TRAINING_MIX, Question, training_questions, transcript

Encode = Callable[[list[str]], list[list[int]]]  # texts to ids
WAITING = 64  # questions among which one is looked for that fills what is left of a row
SEED_STRIDE = 1_000_000  # step `n` draws its questions from seed x this + n


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Sizes and rates of a training."""

    steps: int = 5000
    rows: int = 32  # per step
    row_tokens: int = 64
    answer_tokens: int = 768  # per step, at most
    learning_rate: float = 3e-3  # at its highest
    warmup_share: float = 0.02  # of the steps
    decay_share: float = 0.25  # of the steps: the last ones, down to zero
    weight_decay: float = 0.05
    balance_weight: float = 0.01  # of the experts' imbalance in the loss
    spare: float = 1.25  # rows of an expert, in multiples of an even share
    question_seed: int = 5
    weight_seed: int = 3


class State(NamedTuple):
    """What a step changes."""

    params: Any  # {module: {name: float32}}
    optimizer: Any


class TrainingBatch(NamedTuple):
    """Rows of packed questions, and which of their tokens are answers."""

    tokens: np.ndarray  # [R, T] int32, 0 where nothing is
    documents: np.ndarray  # [R, T] int32, differs between the questions of a row
    # [M] int32, the position before each token of an answer, in the flattened rows
    wanted: np.ndarray
    targets: np.ndarray  # [M] int32, the token; 0 beyond the last


def train(
    config: ModelConfig,
    training: TrainingConfig,
    encode: Encode,
    report: Callable[[int, float], None],
) -> dict[str, dict[str, Array]]:
    """Returns the parameters after all steps.

    `report` hears of each step's number and loss on answers, in nats per token.
    """
    state = start(config, training)
    step = compiled_step(config, training)
    for number in range(training.steps):
        asked = training_questions(training.question_seed * SEED_STRIDE + number, TRAINING_MIX)
        state, answers = step(state, make_batch(encode, asked, config.eos_token, training))
        report(number, float(answers))
    trained: dict[str, dict[str, Array]] = state.params
    return trained


def make_batch(
    encode: Encode, asked: Iterator[Question], eos: int, training: TrainingConfig
) -> TrainingBatch:
    """Returns rows packed with questions and their answers, each ended by `eos`.

    No question is split.
    """
    shape = (training.rows, training.row_tokens)
    tokens, documents, answers = (
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, bool),
    )
    waiting: list[tuple[list[int], int]] = []
    for row in range(training.rows):
        used = 0
        while True:
            if len(waiting) < WAITING:
                waiting += _encoded(encode, asked, eos)
            place = next(
                (i for i, (ids, _) in enumerate(waiting) if used + len(ids) <= training.row_tokens),
                None,
            )
            if place is None:
                break
            ids, prompt = waiting.pop(place)
            end = used + len(ids)
            tokens[row, used:end], documents[row, used:end], answers[row, used + prompt : end] = (
                ids,
                used,
                True,
            )
            used = end
    at = np.flatnonzero(answers)[: training.answer_tokens]
    wanted, targets = np.zeros((2, training.answer_tokens), np.int32)
    wanted[: len(at)], targets[: len(at)] = at - 1, tokens.reshape(-1)[at]
    return TrainingBatch(tokens, documents, wanted, targets)


def _encoded(encode: Encode, asked: Iterator[Question], eos: int) -> list[tuple[list[int], int]]:
    """Returns the ids of some questions with their answers, and how many of them are the prompt's."""
    some = list(islice(asked, WAITING))
    prompts, wholes = (
        encode([each.prompt for each in some]),
        encode([transcript(each) for each in some]),
    )
    return [([*whole, eos], len(prompt)) for prompt, whole in zip(prompts, wholes, strict=True)]


def loss(
    params: FloatParams, batch: TrainingBatch, config: ModelConfig, training: TrainingConfig
) -> tuple[Array, Array]:
    """Returns what is minimised, and the mean negative log-likelihood of the answers' tokens alone."""
    size = batch.tokens.size
    rows = min(size, int(size * config.num_selected_experts / config.num_experts * training.spare))
    found = forward(
        params,
        config,
        jnp.asarray(batch.tokens),
        jnp.asarray(batch.documents),
        jnp.asarray(batch.wanted),
        rows,
    )
    targets_M = jnp.asarray(batch.targets)
    losses_M = optax.softmax_cross_entropy_with_integer_labels(found.logits, targets_M)
    answers = jnp.mean(losses_M, where=targets_M > 0)
    return answers + training.balance_weight * found.imbalance, answers


def optimizer(training: TrainingConfig) -> optax.GradientTransformation:
    """Returns AdamW with a warm-up, a long level and a straight way down to zero.

    Norm scales do not decay.
    """
    warmup, decay = (
        max(1, int(training.steps * share))
        for share in (training.warmup_share, training.decay_share)
    )
    level = optax.linear_schedule(0.0, training.learning_rate, warmup)
    descent = optax.linear_schedule(training.learning_rate, 0.0, decay)
    schedule = optax.join_schedules([level, descent], [training.steps - decay])
    matrices = partial(jax.tree.map, lambda value: value.ndim > 1)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=training.weight_decay, mask=matrices),
    )


def start(config: ModelConfig, training: TrainingConfig) -> State:
    """Returns the state before the first step."""
    params = initial_params(config, training.weight_seed)
    return State(params, optimizer(training).init(params))


def compiled_step(
    config: ModelConfig, training: TrainingConfig
) -> Callable[[State, TrainingBatch], tuple[State, Array]]:
    """Returns one step: a state (given up) and a batch to the next state and the loss on the answers."""
    rule = optimizer(training)

    def step(state: State, batch: TrainingBatch) -> tuple[State, Array]:
        (_, answers), gradients = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch, config, training
        )
        updates, rest = rule.update(gradients, state.optimizer, state.params)
        return State(optax.apply_updates(state.params, updates), rest), answers

    return jax.jit(step, donate_argnums=0)
