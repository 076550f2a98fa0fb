"""engine.py on the conformance checkpoints: against golden files and the NumPy model."""

import numpy as np
import pytest

from actors.engine.engine import Engine
from actors.protocol.errors import (
    EmptyPromptError,
    InvalidParameterError,
    InvalidTokenError,
    PromptTooLongError,
)
from actors.protocol.messages import Completion, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from pipeline.requests.join_windows import join_windows
from pipeline.requests.windows import text_windows, window_requests
from tests import reference
from tests.actors.engine.engines import (
    CONFORMANCE,
    generate,
    golden,
    make_engine,
    model_config,
    run,
    score,
)

MESHES = [(1, 1), (1, 8), (2, 4)]


def prompts(case: str = "mha") -> list[list[int]]:
    return [golden(case)[f"p{i}_tokens"].tolist() for i in range(4)]


def oracle_logprobs(tokens: list[int], case: str = "mha") -> np.ndarray:
    """Log-probs [T, V] by the NumPy model."""
    config = model_config(case)
    return reference.log_probs(
        reference.logits(
            reference.parameters(CONFORMANCE / case / "ckpt-0", config), config, tokens
        )
    )


def same(one: Completion, other: Completion, tolerance: float = 1e-4) -> None:
    assert one.token_ids == other.token_ids
    np.testing.assert_allclose(one.token_logprobs or [], other.token_logprobs or [], atol=tolerance)
    assert (one.finish_reason, one.stop_reason, one.text_bytes) == (
        other.finish_reason,
        other.stop_reason,
        other.text_bytes,
    )
    for mine, theirs in zip(one.scores, other.scores, strict=True):
        assert (mine.is_greedy, mine.tokens) == (theirs.is_greedy, theirs.tokens)
        assert abs(mine.loglikelihood - theirs.loglikelihood) < tolerance * max(1, mine.tokens)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("case", ["mha", "gqa"])
def test_greedy_completions_equal_the_reference(case: str, mesh: tuple[int, int]) -> None:
    """Prefill in pieces and decode, all four prompts side by side."""
    gold = golden(case)
    engine = make_engine(case, mesh, prefill_tokens=32)
    done = run(
        engine, [generate(i, prompt, 16, ignore_eos=True) for i, prompt in enumerate(prompts(case))]
    )
    for i, completion in enumerate(done):
        gap = gold[f"p{i}_gen_gap"]
        sure = int(np.argmax(gap < 5e-3)) if (gap < 5e-3).any() else len(gap)
        assert completion.token_ids.tolist()[:sure] == gold[f"p{i}_gen_tokens"].tolist()[:sure]
        assert completion.token_logprobs is not None
        np.testing.assert_allclose(
            completion.token_logprobs[:sure], gold[f"p{i}_gen_logprobs"][:sure], atol=1e-3
        )
        assert (completion.finish_reason, completion.prompt_tokens) == (
            "length",
            len(prompts(case)[i]),
        )


@pytest.mark.parametrize("mesh", MESHES)
def test_prompt_logprobs_equal_the_reference(mesh: tuple[int, int]) -> None:
    gold = golden("mha")
    engine = make_engine("mha", mesh, prompt_logprobs=3, logprobs=2, prefill_tokens=32)
    for i, completion in enumerate(
        run(engine, [generate(i, p, 2) for i, p in enumerate(prompts())])
    ):
        expected = gold[f"p{i}_next_logprobs"]
        np.testing.assert_allclose(completion.prompt_logprobs, expected, atol=1e-3)
        logprobs = gold[f"p{i}_logits"] - gold[f"p{i}_lse"][:, None]
        top = np.argsort(-logprobs[:-1], axis=-1, kind="stable")[:, :3]
        assert completion.prompt_top_token_ids is not None
        assert np.asarray(completion.prompt_top_token_ids).reshape(-1, 3).tolist() == top.tolist()
        np.testing.assert_allclose(
            np.asarray(completion.prompt_top_logprobs).reshape(-1, 3),
            np.take_along_axis(logprobs[:-1], top, 1),
            atol=1e-3,
        )
        assert len(completion.top_token_ids or ()) == 2 * len(completion.token_ids)
        assert (completion.top_token_ids or [0])[0] == completion.token_ids[0], (
            "greedy: the most likely is the chosen one"
        )


@pytest.mark.parametrize("mesh", MESHES)
def test_scores_equal_the_numpy_model(mesh: tuple[int, int]) -> None:
    """Choices of one token, of several, with common beginnings, and the same one twice."""
    prompt = prompts()[2]
    choices = [[7], [9], [7, 9, 11], [7, 9, 300], [400, 2], [9]]
    (completion,) = run(make_engine("mha", mesh), [score(0, prompt, *choices)])
    for ids, found in zip(choices, completion.scores, strict=True):
        logprobs = oracle_logprobs([*prompt, *ids])[len(prompt) - 1 : -1]
        assert found.loglikelihood == pytest.approx(
            float(logprobs[np.arange(len(ids)), ids].sum()), abs=1e-3
        )
        assert found.is_greedy == (logprobs.argmax(-1).tolist() == ids)
        assert found.tokens == len(ids)
    assert completion.scores[1] == completion.scores[5]


@pytest.mark.parametrize("mesh", [(1, 1), (1, 8)])
def test_scored_tokens_equal_the_golden_logits(mesh: tuple[int, int]) -> None:
    """Of three texts with one prefix, whose log-probs the later ones take from the first."""
    gold = golden("mha")
    text = prompts()[3]
    logprobs = reference.log_probs(gold["p3_logits"])
    split = 17
    requests = [
        score(0, text[:1], text[1:]),
        score(1, text[:split], text[split:], text[split : split + 3], [text[split]]),
        score(2, text[:1], text[1:]),
    ]
    done: list[Completion] = []
    engine = make_engine("mha", mesh, score_logprobs=3, prompt_logprobs=1, prefill_tokens=32)
    for request in requests:  # one after the other, so that pages are there to share
        done += run(engine, [request])
    assert done[2].scores == done[0].scores
    assert engine.stats().prefill_tokens < 2 * len(text)

    for request, completion in zip(requests, done, strict=True):
        first = len(request.prompt_ids)
        for ids, found in zip(request.continuations, completion.scores, strict=True):
            assert found.token_ids == ids
            rows = logprobs[first - 1 : first - 1 + len(ids)]
            expected = rows[np.arange(len(ids)), ids]
            np.testing.assert_allclose(found.token_logprobs, expected, atol=1e-3)
            assert found.loglikelihood == pytest.approx(sum(found.token_logprobs or ()), abs=1e-5)
            top = np.argsort(-rows, axis=-1, kind="stable")[:, :3]
            assert np.asarray(found.top_token_ids).reshape(-1, 3).tolist() == top.tolist()
            np.testing.assert_allclose(
                np.asarray(found.top_logprobs).reshape(-1, 3),
                np.take_along_axis(rows, top, 1),
                atol=1e-3,
            )
    assert len(done[1].prompt_top_token_ids or ()) == split - 1


def test_greedy_continuation_scores_as_greedy() -> None:
    prompt = prompts()[1]
    (written,) = run(make_engine(), [generate(0, prompt, 6, ignore_eos=True)])
    best, worse = written.token_ids.tolist(), [*written.token_ids.tolist()[:-1], 5]
    (completion,) = run(make_engine(), [score(0, prompt, best, worse)])
    assert [s.is_greedy for s in completion.scores] == [True, False]
    assert completion.scores[0].loglikelihood == pytest.approx(
        sum(written.token_logprobs or ()), abs=1e-3
    )


def test_windows_of_a_text_equal_the_oracle() -> None:
    """Each window is scored given its own tokens alone; their sum is the text's score."""
    text = prompts()[3]
    row = Request(RowRef(0, 0), token_ids())
    requests = list(window_requests(row, token_ids(text), max_len=16, stride=5))
    done = run(make_engine(max_len=16, score_logprobs=0, prefill_tokens=32), requests)
    expected: list[float] = []
    for window in text_windows(len(text), 16, 5):
        tokens = text[window.start : window.end]
        first = window.scored - window.start
        rows = oracle_logprobs(tokens)[first - 1 : -1]
        expected += rows[np.arange(len(rows)), tokens[first:]].tolist()

    [joined] = join_windows(done)
    [total] = joined.scores
    np.testing.assert_allclose(total.token_logprobs, expected, atol=1e-3)
    assert total.token_ids == token_ids(text[1:])
    assert total.loglikelihood == pytest.approx(sum(expected), abs=1e-3 * len(expected))


def test_scores_of_a_text_start_at_its_second_token() -> None:
    """Perplexity: the first token is the prompt, the rest its continuation."""
    gold, text = golden("mha"), prompts()[3]
    (completion,) = run(make_engine(prefill_tokens=16), [score(0, text[:1], text[1:])])
    assert completion.scores[0].loglikelihood == pytest.approx(
        float(gold["p3_next_logprobs"].sum()), abs=1e-2
    )
    (completion,) = run(make_engine(prompt_logprobs=0), [score(0, text[:20], text[20:], [3])])
    np.testing.assert_allclose(completion.prompt_logprobs, gold["p3_next_logprobs"][:19], atol=1e-3)
    assert completion.scores[0].loglikelihood == pytest.approx(
        float(gold["p3_next_logprobs"][19:].sum()), abs=1e-2
    )


def workload() -> list[Request]:
    rng = np.random.default_rng(3)
    shared = rng.integers(3, 512, 30).tolist()
    requests = []
    for row in range(14):
        prompt = [
            *shared[: int(rng.integers(0, 30))],
            *rng.integers(3, 512, int(rng.integers(1, 30))).tolist(),
        ]
        if row % 3 == 2:
            requests.append(score(row, prompt, rng.integers(3, 512, 3).tolist(), [5], [6]))
        else:
            kind = (
                {}
                if row % 3 == 0
                else {"temperature": 0.9, "top_p": 0.8, "top_k": 40, "seed": 10**15 + row}
            )
            requests.append(generate(row, prompt, int(rng.integers(1, 12)), **kind))
    return requests


def test_completions_do_not_depend_on_neighbours_order_mesh_or_sizes() -> None:
    requests = workload()
    together = run(make_engine(), requests)
    alone = [
        run(make_engine(slots=1, prefill_tokens=16, decode_steps=1), [request])[0]
        for request in requests
    ]
    backwards = run(make_engine(page_size=4, decode_steps=7, prefill_tokens=64), requests[::-1])[
        ::-1
    ]
    no_reuse = run(make_engine(reuse_prefixes=False), requests)
    meshes = [run(make_engine(mesh=mesh), requests) for mesh in MESHES[1:]]
    for others in (alone, backwards, no_reuse, *meshes):
        for one, other in zip(together, others, strict=True):
            same(one, other)


def test_shared_prefixes_are_computed_and_counted_once() -> None:
    shared = prompts()[3][:32]
    requests = [generate(row, [*shared, 100 + row, 7], 3) for row in range(4)]
    engine = make_engine()
    done = run(engine, requests)
    assert [c.cached_tokens for c in done] == [0, 32, 32, 32]
    assert engine.stats().prefill_tokens == 33 + 3, (
        "the prefix and the first tail, then one token each; the last is decode's"
    )
    assert engine.stats().cached_tokens == 96
    cold = run(make_engine(reuse_prefixes=False), requests)
    assert [c.cached_tokens for c in cold] == [0, 0, 0, 0]
    for one, other in zip(done, cold, strict=True):
        same(one, other)


@pytest.mark.parametrize("mesh", [(1, 1), (2, 4)])
def test_prompt_logprobs_of_a_shared_prefix_are_computed_once(mesh: tuple[int, int]) -> None:
    """For prompts to complete, to score, and for texts; the log-probs do not change."""
    shared = prompts()[3][:33]
    tails = [[100 + row, 7, 200 + row, 9] for row in range(3)]
    requests = [generate(row, [*shared, *tail], 3) for row, tail in enumerate(tails)]
    requests += [
        score(10 + row, [*shared, *tail], [5, 6], [5, 8], [4]) for row, tail in enumerate(tails)
    ]
    requests += [
        score(20 + row, shared[:1], [*shared[1:], *tail]) for row, tail in enumerate(tails)
    ]
    sizes = {"prompt_logprobs": 2, "mesh": mesh, "prefill_tokens": 32}
    warm, cold = make_engine(**sizes), make_engine(**sizes, reuse_prefixes=False)
    done = run(warm, requests)
    for one, other in zip(done, run(cold, requests), strict=True):
        same(one, other)
        np.testing.assert_allclose(one.prompt_logprobs, other.prompt_logprobs, atol=1e-4)
        assert one.prompt_top_token_ids == other.prompt_top_token_ids
    assert warm.stats().prefill_tokens < cold.stats().prefill_tokens / 2
    assert [c.cached_tokens for c in done[1:3]] == [24, 24] or mesh != (1, 1), (
        "4 pages match; the last is computed for its end"
    )


def test_eviction_under_pressure_changes_nothing() -> None:
    """A cache that holds two sequences at a time: pages are taken away and computed again."""
    requests = [
        *workload(),
        *(
            Request(RowRef(1, r.ref.row), r.prompt_ids, r.sampling, r.continuations)
            for r in workload()
        ),
    ]
    tight, roomy = run(make_engine(cache_tokens=144), requests), run(make_engine(), requests)
    for one, other in zip(tight, roomy, strict=True):
        same(one, other)


def test_samples_of_a_prompt_differ_by_seed_only() -> None:
    prompt = prompts()[2]
    requests = [
        Request(
            RowRef(0, 0, sample, 4),
            token_ids(prompt),
            Sampling(max_tokens=8, temperature=1.0, seed=seed),
        )
        for sample, seed in enumerate([1, 2, 3, 1])
    ]
    done = run(make_engine(), requests)
    assert done[0].token_ids == done[3].token_ids
    assert len({tuple(c.token_ids) for c in done}) == 3
    for completion in done:
        logprobs = oracle_logprobs([*prompt, *completion.token_ids])[len(prompt) - 1 : -1]
        chosen = logprobs[np.arange(len(completion.token_ids)), completion.token_ids.tolist()]
        np.testing.assert_allclose(completion.token_logprobs, chosen, atol=1e-3)


def greedy(prompt: list[int], count: int) -> list[int]:
    (completion,) = run(make_engine(), [generate(0, prompt, count, ignore_eos=True)])
    return completion.token_ids.tolist()


def test_stop_strings_span_tokens_and_calls() -> None:
    prompt = prompts()[1]
    tokens = greedy(prompt, 12)
    letters = [bytes([97 + token % 26]) * 2 for token in range(512)]
    text = b"".join(letters[token] for token in tokens)
    stop = text[7:10].decode()  # from the middle of the fourth token into the fifth
    at = text.find(stop.encode())
    (completion,) = run(
        make_engine(token_bytes=letters),
        [generate(0, prompt, 12, stop=("never!", stop), ignore_eos=True)],
    )
    assert (completion.finish_reason, completion.stop_reason, completion.text_bytes) == (
        "stop",
        stop,
        at,
    )
    assert completion.token_ids.tolist() == tokens[: (at + 3 + 1) // 2]
    (later,) = run(
        make_engine(token_bytes=letters),
        [generate(0, prompt, 12, stop=(stop,), ignore_eos=True, min_tokens=9)],
    )
    assert len(later.token_ids) > 9


def eos_prompt(engine: Engine) -> tuple[list[int], int]:
    """A prompt after which seeded sampling at a high temperature draws EOS, and the seed."""
    prompt = prompts()[0]
    for seed in range(4000):
        (completion,) = run(engine, [generate(0, prompt, 1, temperature=8.0, seed=seed)])
        if completion.stop_reason == "eos":
            return prompt, seed
    raise AssertionError("no seed draws EOS")


def test_eos_ends_a_completion_unless_suppressed_or_ignored() -> None:
    """EOS as the very first token, forbidden by min_tokens, and ignored."""
    prompt, seed = eos_prompt(make_engine())
    kind = {"temperature": 8.0, "seed": seed}
    ended, forbidden, ignored, ignored_early = run(
        make_engine(),
        [
            generate(0, prompt, 9, **kind),
            generate(1, prompt, 9, min_tokens=5, **kind),
            generate(2, prompt, 9, ignore_eos=True, **kind),
            generate(3, prompt, 9, ignore_eos=True, min_tokens=5, **kind),
        ],
    )
    assert (ended.token_ids.tolist(), ended.finish_reason, ended.stop_reason) == (
        [2],
        "stop",
        "eos",
    )
    assert 2 not in forbidden.token_ids[:5]
    assert len(forbidden.token_ids) > 5
    assert (ignored.token_ids[0], len(ignored.token_ids), ignored.finish_reason) == (2, 9, "length")
    assert ignored_early.token_ids == ignored.token_ids, (
        "min_tokens suppresses only an EOS that ends"
    )


def test_token_0_in_a_prompt_is_never_attended_to() -> None:
    """A prompt with pads inside: one forward, prefill in pieces, and decode give the same."""
    gold = golden("mha")
    tokens = gold["edge_mid_tokens"].tolist()
    assert 0 in tokens[1:]
    expected = gold["edge_mid_logits"]
    peak = expected.max(-1, keepdims=True)
    expected = expected - peak - np.log(np.exp(expected - peak).sum(-1, keepdims=True))
    chosen = expected[np.arange(len(tokens) - 1), tokens[1:]]
    (whole,) = run(make_engine(prompt_logprobs=0), [generate(0, tokens, 4)])
    np.testing.assert_allclose(whole.prompt_logprobs, chosen, atol=1e-3)
    (pieces,) = run(
        make_engine(prompt_logprobs=0, page_size=2, prefill_tokens=16),
        [generate(0, [*tokens * 4], 4)],
    )
    (one,) = run(
        make_engine(prompt_logprobs=0, prefill_tokens=128), [generate(0, [*tokens * 4], 4)]
    )
    same(pieces, one)
    np.testing.assert_allclose(pieces.prompt_logprobs, one.prompt_logprobs, atol=1e-4)
    continued = [*tokens, *whole.token_ids.tolist()]
    (scored,) = run(make_engine(), [score(0, tokens, continued[len(tokens) :])])
    assert scored.scores[0].is_greedy
    assert scored.scores[0].loglikelihood == pytest.approx(
        sum(whole.token_logprobs or ()), abs=1e-3
    )


def test_leading_token_0_is_defined_and_alone_possible() -> None:
    for tokens in ([0], [0, 0, 5], [0] * 20 + [7, 8]):
        first = run(make_engine(), [generate(0, tokens, 4), generate(1, prompts()[3], 4)])[0]
        second = run(make_engine(prefill_tokens=16, page_size=4), [generate(0, tokens, 4)])[0]
        same(first, second)
        assert np.isfinite(first.token_logprobs or [np.nan]).all()
        expected = oracle_logprobs([*tokens, *first.token_ids])[len(tokens) - 1 : -1]
        np.testing.assert_allclose(
            first.token_logprobs,
            expected[np.arange(len(first.token_ids)), first.token_ids.tolist()],
            atol=1e-3,
        )


def test_token_0_from_decode_is_never_attended_to() -> None:
    """The last prompt token and generated ones enter the cache through decode; pad is hidden."""
    prompt = [*prompts()[2][:9], 0]
    requests = [
        generate(row, prompt, 16, temperature=8.0, seed=row, ignore_eos=True) for row in range(64)
    ]
    drawn = [c for c in run(make_engine(), requests) if 0 in c.token_ids[:-1]]
    assert drawn, "about 1,000 draws at a high temperature hold a pad"
    for completion in drawn:
        continued = completion.token_ids.tolist()
        logprobs = oracle_logprobs([*prompt, *continued])[len(prompt) - 1 : -1]
        np.testing.assert_allclose(
            completion.token_logprobs, logprobs[np.arange(len(continued)), continued], atol=1e-3
        )
        (scored,) = run(make_engine(), [score(0, prompt, continued)])  # all of it through prefill
        assert scored.scores[0].loglikelihood == pytest.approx(
            sum(completion.token_logprobs or ()), abs=1e-3
        )


def test_prompt_of_one_token_costs_no_prefill() -> None:
    """It is the first input of decode; pad, EOS and an ordinary token alike."""
    for token in (0, 2, prompts()[0][0]):
        engine = make_engine(prompt_logprobs=2)
        (completion,) = run(engine, [generate(0, [token], 5, ignore_eos=True)])
        assert (
            engine.stats().prefill_tokens,
            completion.prompt_tokens,
            completion.cached_tokens,
        ) == (0, 1, 0)
        assert (
            list(completion.prompt_logprobs or ())
            == list(completion.prompt_top_token_ids or ())
            == []
        )
        logprobs = oracle_logprobs([token, *completion.token_ids])[:-1]
        assert completion.token_ids.tolist() == logprobs.argmax(-1).tolist()
        np.testing.assert_allclose(completion.token_logprobs, logprobs.max(-1), atol=1e-3)


def test_eos_inside_a_prompt_and_inside_a_score_is_an_ordinary_token() -> None:
    prompt = [2, *prompts()[1], 2]
    (completion,) = run(make_engine(), [generate(0, prompt, 3, min_tokens=3)])
    assert len(completion.token_ids) == 3
    (scored,) = run(make_engine(), [score(0, prompt, [2, 7, 2, 9])])
    logprobs = oracle_logprobs([*prompt, 2, 7, 2, 9])[len(prompt) - 1 : -1]
    assert scored.scores[0].loglikelihood == pytest.approx(
        float(logprobs[np.arange(4), [2, 7, 2, 9]].sum()), abs=1e-3
    )
    assert scored.scores[0].tokens == 4


def test_full_cache_makes_requests_wait_and_changes_nothing() -> None:
    """Room for one long sequence: five of them and a shorter one run one after the other."""
    rng = np.random.default_rng(4)
    requests = [
        generate(row, rng.integers(3, 512, 40 + row).tolist(), 40, ignore_eos=True)
        for row in range(5)
    ]
    requests.append(generate(5, [7, 9] * 8, 4, ignore_eos=True))
    engine = make_engine(cache_tokens=96)
    for request in requests:
        engine.add(request)
    done: list[Completion] = []
    for _ in range(10_000):
        if engine.idle:
            break
        done += engine.step()
    assert [c.ref.row for c in done] == [0, 1, 2, 3, 4, 5], "nobody overtakes, nobody starves"
    for one, other in zip(done, run(make_engine(), requests), strict=True):
        same(one, other)


def test_longest_sequence_fills_the_cache_to_its_last_token() -> None:
    prompt = np.random.default_rng(0).integers(3, 512, 80).tolist()
    engine = make_engine(max_len=96, cache_tokens=96, slots=2)
    first, second = run(
        engine, [generate(0, prompt, 16, ignore_eos=True), generate(1, prompt, 16, ignore_eos=True)]
    )
    assert len(first.token_ids) == 16
    same(first, second)
    logprobs = oracle_logprobs([*prompt, *first.token_ids])[len(prompt) - 1 : -1]
    np.testing.assert_allclose(
        first.token_logprobs, logprobs[np.arange(16), first.token_ids.tolist()], atol=1e-3
    )


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (generate(0, [], 4), EmptyPromptError, "no token"),
        (score(0, [5], []), EmptyPromptError, "no token"),
        (generate(0, [5, 512], 4), InvalidTokenError, "512 is outside the vocabulary of 512"),
        (score(0, [5], [-1]), InvalidTokenError, "-1 is outside"),
        (generate(0, [5] * 90, 7), PromptTooLongError, "90 tokens needs 97"),
        (generate(0, [5], 0), InvalidParameterError, "max_tokens"),
        (generate(0, [5], 4, stop=("x",)), InvalidParameterError, "--tokenizer"),
    ],
)
def test_engine_rejects_requests_that_cannot_run(
    request_: Request, error: type[Exception], words: str
) -> None:
    engine = make_engine()
    with pytest.raises(error, match=words):
        engine.add(request_)
    assert engine.idle


def test_call_shapes_are_few_and_compiled_once() -> None:
    engine = make_engine(share_programs=False)
    run(engine, workload())
    programs = engine.stats().programs
    run(engine, workload())
    assert engine.stats().programs <= programs + 6, (
        "the second time only prefix reuse may bring shorter shapes"
    )
    again = engine.stats().programs
    run(engine, workload())
    assert engine.stats().programs == again
