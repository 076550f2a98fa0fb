"""Text → ids on the way in (`PromptRow` → `Request`), ids → text on the way out (`Completion` → `OutputRow`).

A row that cannot run becomes an error `Completion` here and rides the same stream. Knows the
SentencePiece model and the run's limits; not files' layout, batches or replicas.

Two things SentencePiece makes easy to get wrong:
- encode(context) + encode(continuation) is not encode(context + continuation): the whole is encoded, then sliced.
- decode(output) drops a leading space that decode(prompt + output) has: a completion's text is the join of its tokens' bytes.
"""

import codecs
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
import sentencepiece

from actors.protocol.errors import (
    EmptyPromptError,
    InvalidParameterError,
    InvalidPromptError,
    InvalidTokenError,
    MissingPromptError,
    PromptTooLongError,
    RequestError,
)
from actors.protocol.messages import (
    Completion,
    Request,
    RowRef,
    Score,
    token_ids,
    type_code_ids,
)
from actors.protocol.sampling import SamplingParams
from pipeline.errors import ConfigError
from pipeline.records import OutputRow, Passing, PromptRow
from pipeline.requests.sampling import effective_seed, resolve_sampling

ROWS_PER_CALL = 256  # rows encoded by one call of the library, which spreads them over threads
# a text longer than this many characters per allowed token is measured on its head first
CHARS_PER_TOKEN = 16


def _one_mark_per_byte(error: UnicodeError) -> tuple[str, int]:
    """What SentencePiece shows for bytes that are no UTF-8.

    Python's own "replace" shows one mark for several bytes.
    """
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("one_mark_per_byte", _one_mark_per_byte)


class Tokenizer:
    """A SentencePiece model. No BOS is prepended; EOS and other control tokens have no text."""

    def __init__(self, model: bytes) -> None:
        """Reads the bytes of a SentencePiece model file.

        Raises:
            ConfigError: they are none.
        """
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ConfigError(
                f"tokenizer: expected a SentencePiece model, got {len(model)} bytes that are none "
                f"({error}); check --tokenizer"
            ) from error
        self.vocab_size: int = self._model.vocab_size()
        self.token_bytes: tuple[bytes, ...] = tuple(self._bytes_of_all_tokens())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text.

        A text without characters has none. Texts must be valid Unicode.
        """
        ids: list[list[int]] = self._model.encode(list(texts), out_type=int) if texts else []
        return ids

    def text(self, ids: Sequence[int], text_bytes: int | None = None) -> str:
        """Returns the text of generated ids as it continues their prompt: leading space kept, cut to `text_bytes` bytes."""
        table = self.token_bytes
        joined = b"".join([table[token] if token < len(table) else b"" for token in ids])
        return joined[:text_bytes].decode("utf-8", errors="one_mark_per_byte")

    def _bytes_of_all_tokens(self) -> Iterator[bytes]:
        """Yields the bytes that each token contributes to a text in which it is not the first."""
        every = list(range(self.vocab_size))
        model = self._model
        kinds = zip(
            every,
            model.id_to_piece(every),
            model.is_byte(every),
            model.is_control(every),
            model.is_unknown(every),
            strict=True,
        )
        for token, piece, is_byte, is_control, is_unknown in kinds:
            if is_byte:
                yield bytes([int(piece[3:5], 16)])  # <0xE7>
            elif is_control:
                yield b""
            elif is_unknown:
                yield self._model.decode([token]).encode()
            else:
                yield piece.replace("\u2581", " ").encode()


@dataclass(frozen=True, slots=True)
class RequestRules:
    """What turns a row into requests, the same for the whole run."""

    task: Literal["generate", "score", "perplexity"]
    vocab_size: int  # of the model: ids at or above it are refused
    max_len: int  # longest prompt + completion, tokens
    overflow: Literal["error", "truncate-left"] = "error"
    defaults: SamplingParams = field(default_factory=SamplingParams)


def to_requests(
    rows: Iterable[PromptRow | Passing], tokenizer: Tokenizer | None, rules: RequestRules
) -> Iterator[Request | Completion | Passing]:
    """Yields the requests of each row, one per sample, in input order.

    One error completion for a row that cannot run.

    `tokenizer` may be None when every row has token ids. All other items of `rows` pass through.
    """
    source = iter(rows)
    while chunk := list(islice(source, ROWS_PER_CALL)):
        plans = [
            _plan(row, tokenizer, rules) if isinstance(row, PromptRow) else row for row in chunk
        ]
        texts = [text for plan in plans if isinstance(plan, _Plan) for text in plan.texts]
        encoded = iter(tokenizer.encode(texts)) if tokenizer else iter(())
        for plan in plans:
            if isinstance(plan, _Plan):
                yield from _requests(plan, list(islice(encoded, len(plan.texts))), rules)
            else:
                yield plan


def to_output_rows(
    completions: Iterable[Completion | Passing], tokenizer: Tokenizer | None
) -> Iterator[OutputRow | Passing]:
    """Yields each completion with its text; all other items pass through.

    The text is None for errors, for scores, and without a tokenizer.
    """
    for completion in completions:
        if not isinstance(completion, Completion):
            yield completion
            continue
        generated = completion.error_code is None and not completion.scores
        text = (
            tokenizer.text(completion.token_ids, completion.text_bytes)
            if generated and tokenizer
            else None
        )
        yield OutputRow(completion, text)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A row whose texts wait to be encoded; `ids` makes prompt and continuations of the result."""

    row: PromptRow
    texts: list[str]
    ids: "Callable[[list[list[int]]], tuple[array[int], tuple[array[int], ...]]]"


def _plan(row: PromptRow, tokenizer: Tokenizer | None, rules: RequestRules) -> _Plan | Completion:
    try:
        if rules.task == "score":
            return _plan_score(row, tokenizer, rules)
        return _plan_prompt(row, tokenizer, rules)
    except RequestError as error:
        return _failed(row, error)


def _plan_prompt(row: PromptRow, tokenizer: Tokenizer | None, rules: RequestRules) -> _Plan:
    if row.prompt is not None:
        text = _checked_text("prompt", row.prompt, tokenizer, rules)
        return _Plan(row, [text], lambda encoded: (token_ids(encoded[0]), ()))
    prompt = _checked_ids("prompt_token_ids", _present("prompt", row.prompt_token_ids), rules)
    return _Plan(row, [], lambda _: (prompt, ()))


def _plan_score(row: PromptRow, tokenizer: Tokenizer | None, rules: RequestRules) -> _Plan:
    if row.prompt is None and row.prompt_token_ids is None:
        raise MissingPromptError("prompt: expected text or token ids, got null")
    in_text = row.continuation is not None or row.choices is not None
    if in_text and row.prompt is None:
        raise InvalidPromptError(
            "continuation: it is text and the prompt is token ids; give both as text or both as "
            "token ids"
        )
    if in_text:
        return _plan_score_text(row, tokenizer, rules)
    if row.choices_token_ids is not None:
        given = [
            _checked_ids("choices_token_ids", ids, rules)
            for ids in _items("choices_token_ids", row.choices_token_ids)
        ]
    else:
        given = [
            _checked_ids(
                "continuation_token_ids",
                _present("continuation", row.continuation_token_ids),
                rules,
            )
        ]
    continuations = tuple(given)
    prompt = _plan_prompt(row, tokenizer, rules)
    return _Plan(row, prompt.texts, lambda encoded: (prompt.ids(encoded)[0], continuations))


def _plan_score_text(row: PromptRow, tokenizer: Tokenizer | None, rules: RequestRules) -> _Plan:
    """Context and continuations as lm-evaluation-harness cuts them: white space that ends the context begins the continuation."""
    context = _checked_text("prompt", row.prompt, tokenizer, rules)
    given = _items("choices", row.choices) if row.choices is not None else [row.continuation]
    parts = [_checked_text("continuation", part, tokenizer, rules) for part in given]
    kept = context.rstrip()
    moved = context[len(kept) :]
    if not kept:
        raise EmptyPromptError(
            "prompt: expected text before the continuation, got nothing but white space"
        )

    def ids(encoded: list[list[int]]) -> "tuple[array[int], tuple[array[int], ...]]":
        cut = len(encoded[0])
        return token_ids(encoded[0]), tuple(token_ids(whole[cut:]) for whole in encoded[1:])

    return _Plan(row, [kept, *(kept + moved + part for part in parts)], ids)


def _requests(
    plan: _Plan, encoded: list[list[int]], rules: RequestRules
) -> list[Request | Completion]:
    """Returns what becomes of one row: its requests, or its only completion."""
    row = plan.row
    try:
        prompt, continuations = plan.ids(encoded)
        if not len(prompt):
            raise EmptyPromptError("prompt: expected at least one token, got none")
        for continuation in continuations:
            if not len(continuation):
                raise EmptyPromptError("continuation: expected at least one token, got none")
        if plan.texts:  # what was given as ids was checked under its own name
            for name, ids in (
                ("prompt", prompt),
                *(("continuation", ids) for ids in continuations),
            ):
                _check_vocabulary(name, ids, rules)
        if rules.task == "generate":
            return _generate(row, prompt, rules)
        if rules.task == "score":
            room = rules.max_len - max(len(continuation) for continuation in continuations)
            prompt = _fitted(prompt, room, "the longest continuation", rules)
            return [Request(row.ref, prompt, continuations=continuations, row_id=row.id)]
        return [_perplexity(row, _fitted(prompt, rules.max_len, "nothing else", rules))]
    except RequestError as error:
        return [_failed(row, error)]


def _generate(
    row: PromptRow, prompt: "array[int]", rules: RequestRules
) -> list[Request | Completion]:
    sampling = resolve_sampling(row.parameters, rules.defaults)
    if sampling.max_tokens >= rules.max_len:
        raise InvalidParameterError(
            f"max_tokens: expected less than --max-len = {rules.max_len}, got "
            f"{sampling.max_tokens}: no prompt fits beside it"
        )
    prompt = _fitted(
        prompt, rules.max_len - sampling.max_tokens, f"max_tokens = {sampling.max_tokens}", rules
    )
    return [
        Request(
            RowRef(row.ref.shard, row.ref.row, sample, sampling.n),
            prompt,
            sampling=sampling.seeded(effective_seed(sampling.seed, row.id, sample)),
            row_id=row.id,
        )
        for sample in range(sampling.n)
    ]


def _perplexity(row: PromptRow, ids: "array[int]") -> Request | Completion:
    """The first token is given, the rest is scored.

    Of a single token nothing is left to score, and no replica is asked.
    """
    if len(ids) == 1:
        return Completion(
            row.ref,
            prompt_tokens=1,
            cached_tokens=0,
            scores=(Score(0.0, True, 0),),
            row_id=row.id,
        )
    return Request(row.ref, ids[:1], continuations=(ids[1:],), row_id=row.id)


def _fitted(prompt: "array[int]", room: int, beside: str, rules: RequestRules) -> "array[int]":
    """Returns the prompt, or its end when the run allows to drop its beginning."""
    if len(prompt) <= room:
        return prompt
    if rules.overflow == "truncate-left" and room > 0:
        # grok-1: truncates on the left without correcting the length; here the shorter prompt is
        # the prompt, and is counted so
        return prompt[len(prompt) - room :]
    raise PromptTooLongError(
        f"prompt: expected at most {max(room, 0)} tokens (--max-len {rules.max_len} less "
        f"{beside}), got {len(prompt)}; "
        "raise --max-len or use --on-overflow truncate-left"
    )


def _checked_text(
    name: str, value: object, tokenizer: Tokenizer | None, rules: RequestRules
) -> str:
    text = _present(name, value)
    if not isinstance(text, str):
        raise InvalidPromptError(f"{name}: expected a string, got {type(text).__name__}")
    if tokenizer is None:
        raise InvalidPromptError(
            f"{name}: it is text and the run has no tokenizer; give --tokenizer"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidPromptError(
            f"{name}: expected valid Unicode, got a lone surrogate at character {error.start}"
        ) from error
    if rules.overflow == "error" and len(text) > CHARS_PER_TOKEN * rules.max_len:
        _refuse_long(name, text, tokenizer, rules)
    return text


def _refuse_long(name: str, text: str, tokenizer: Tokenizer, rules: RequestRules) -> None:
    """Refuses a huge text by its head alone.

    Twice the limit leaves room for what the cut does to the last tokens.
    """
    [head] = tokenizer.encode([text[: CHARS_PER_TOKEN * rules.max_len]])
    if len(head) > 2 * rules.max_len:
        raise PromptTooLongError(
            f"{name}: expected at most --max-len {rules.max_len} tokens, got more than "
            f"{2 * rules.max_len} in "
            f"{len(text)} characters; raise --max-len or use --on-overflow truncate-left"
        )


def _checked_ids(name: str, value: object, rules: RequestRules) -> "array[int]":
    items = _items(name, value)
    try:
        # the data set's: what it holds is found out here
        ids = items if isinstance(items, array) else token_ids(items)  # type: ignore[arg-type]
    except OverflowError as error:
        raise InvalidTokenError(
            f"{name}: expected ids from 0 to {rules.vocab_size - 1}, got one beyond int32"
        ) from error
    except TypeError as error:
        raise InvalidPromptError(
            f"{name}: expected a list of integers, got an item that is none ({error})"
        ) from error
    _check_vocabulary(name, ids, rules)
    return ids


def _check_vocabulary(name: str, ids: "array[int]", rules: RequestRules) -> None:
    # One pass in NumPy: as an unsigned number, an id below zero is a huge one. In Python this was
    # the driver's dearest line.
    if len(ids) and int(np.maximum.reduce(np.frombuffer(ids, np.uint32))) >= rules.vocab_size:
        position = next(
            place for place, token in enumerate(ids) if not 0 <= token < rules.vocab_size
        )
        raise InvalidTokenError(
            f"{name}: expected ids below {rules.vocab_size}, got {ids[position]} at position "
            f"{position}"
        )


def _items(name: str, value: object) -> "list[object] | array[int]":
    value = _present(name, value)
    if isinstance(value, array) and value.typecode == type_code_ids and len(value):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()  # an array of any library
    if not isinstance(value, list | tuple):
        raise InvalidPromptError(f"{name}: expected a list, got {type(value).__name__}")
    if not len(value):
        raise EmptyPromptError(f"{name}: expected at least one item, got an empty list")
    return value if isinstance(value, list) else list(value)


def _present(name: str, value: object) -> object:
    if value is None:
        raise MissingPromptError(f"{name}: expected text or token ids, got null")
    return value


def _failed(row: PromptRow, error: RequestError) -> Completion:
    ref = RowRef(row.ref.shard, row.ref.row)
    return Completion.failed(ref, error.code, str(error), row_id=row.id)
