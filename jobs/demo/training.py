"""Trains the demo model on fresh questions at every step, with the loss on answers only.

A step depends on its number and the state before it, on nothing else: equal seeds give equal
parameters on equal machines. `build.py` writes the parameters as int8.
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
PENDING_QUESTIONS = 64  # among which the next one that fits into a row is searched
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

    tokens: np.ndarray  # [R, T] int32, 0 is padding
    documents: np.ndarray  # [R, T] int32, differs between the questions of a row
    # [M] int32, the position before each token of an answer, in the flattened rows
    positions: np.ndarray
    targets: np.ndarray  # [M] int32, the token; 0 beyond the last


class EncodedQuestion(NamedTuple):
    """A question with its answer and the end of text as ids."""

    ids: list[int]
    prompt_tokens: int  # number of ids, from the first one on


def train(
    config: ModelConfig,
    training: TrainingConfig,
    encode: Encode,
    report: Callable[[int, float], None],
) -> dict[str, dict[str, Array]]:
    """Returns the parameters after all steps.

    `report` is called with the number of each step and its loss on answers, in nats per token.
    """
    state = start(config, training)
    step = compiled_step(config, training)
    for number in range(training.steps):
        seed = training.question_seed * SEED_STRIDE + number
        questions = training_questions(seed, TRAINING_MIX)
        batch = make_batch(encode, questions, config.eos_token, training)
        state, answer_loss = step(state, batch)
        report(number, float(answer_loss))
    trained: dict[str, dict[str, Array]] = state.params
    return trained


def make_batch(
    encode: Encode, questions: Iterator[Question], eos: int, training: TrainingConfig
) -> TrainingBatch:
    """Returns rows packed with questions and their answers, each ended by `eos`.

    No question is split.
    """
    shape = (training.rows, training.row_tokens)
    tokens = np.zeros(shape, np.int32)
    documents = np.zeros(shape, np.int32)
    is_answer = np.zeros(shape, bool)
    pending: list[EncodedQuestion] = []
    for row in range(training.rows):
        start = 0
        while True:
            if len(pending) < PENDING_QUESTIONS:
                pending += _encode_questions(encode, questions, eos)
            index = _first_that_fits(pending, training.row_tokens - start)
            if index is None:
                break

            question = pending.pop(index)
            end = start + len(question.ids)
            tokens[row, start:end] = question.ids
            documents[row, start:end] = start
            is_answer[row, start + question.prompt_tokens : end] = True
            start = end

    answer_positions = np.flatnonzero(is_answer)[: training.answer_tokens]
    count = len(answer_positions)
    positions = np.zeros(training.answer_tokens, np.int32)
    targets = np.zeros(training.answer_tokens, np.int32)
    positions[:count] = answer_positions - 1
    targets[:count] = tokens.reshape(-1)[answer_positions]
    return TrainingBatch(tokens, documents, positions, targets)


def _first_that_fits(pending: list[EncodedQuestion], room: int) -> int | None:
    for index, question in enumerate(pending):
        if len(question.ids) <= room:
            return index
    return None


def _encode_questions(
    encode: Encode, questions: Iterator[Question], eos: int
) -> list[EncodedQuestion]:
    batch = list(islice(questions, PENDING_QUESTIONS))
    prompts = encode([question.prompt for question in batch])
    transcripts = encode([transcript(question) for question in batch])
    encoded = []
    for prompt, ids in zip(prompts, transcripts, strict=True):
        encoded.append(EncodedQuestion([*ids, eos], len(prompt)))
    return encoded


def loss(
    params: FloatParams, batch: TrainingBatch, config: ModelConfig, training: TrainingConfig
) -> tuple[Array, Array]:
    """Returns the training loss, and the mean negative log-likelihood of the answers' tokens."""
    size = batch.tokens.size
    even_share = size * config.num_selected_experts / config.num_experts
    rows = min(size, int(even_share * training.spare))
    output = forward(
        params,
        config,
        jnp.asarray(batch.tokens),
        jnp.asarray(batch.documents),
        jnp.asarray(batch.positions),
        rows,
    )
    targets_M = jnp.asarray(batch.targets)
    losses_M = optax.softmax_cross_entropy_with_integer_labels(output.logits, targets_M)
    answer_loss = jnp.mean(losses_M, where=targets_M > 0)
    return answer_loss + training.balance_weight * output.imbalance, answer_loss


def optimizer(training: TrainingConfig) -> optax.GradientTransformation:
    """Returns AdamW with a linear warm-up, a constant rate and a linear decay to zero.

    Norm scales do not decay.
    """
    warmup = max(1, int(training.steps * training.warmup_share))
    decay = max(1, int(training.steps * training.decay_share))
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
    """Returns the step: a state, which is donated, and a batch to the next state and the loss."""
    rule = optimizer(training)

    def step(state: State, batch: TrainingBatch) -> tuple[State, Array]:
        (_, answer_loss), gradients = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch, config, training
        )
        updates, optimizer_state = rule.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, optimizer_state), answer_loss

    return jax.jit(step, donate_argnums=0)
