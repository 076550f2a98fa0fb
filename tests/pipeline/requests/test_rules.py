import pickle

import pytest

from actors.protocol.sampling import SamplingParams
from pipeline.requests.rules import RequestRules


def test_vocabulary_rejects_token_ids_outside_the_model() -> None:
    vocabulary = RequestRules(vocab_size=10, max_len=4).vocabulary
    vocabulary.check([0, 9])
    for token in (-1, 10):
        with pytest.raises(ValueError, match="expected token ids below 10"):
            vocabulary.check([token])


def test_vocabulary_encodes_text_with_the_tokenizer_of_the_run() -> None:
    rules = RequestRules(vocab_size=128, max_len=4, encode_fragment=str.encode)
    assert rules.vocabulary.tokens_of("ab") == (97, 98)


def test_vocabulary_without_tokenizer_rejects_text() -> None:
    with pytest.raises(ValueError, match="the run has no tokenizer"):
        RequestRules(vocab_size=128, max_len=4).vocabulary.tokens_of("ab")


def test_rules_reject_long_prompts_and_use_default_sampling() -> None:
    rules = RequestRules(vocab_size=10, max_len=4)
    assert rules.overflow == "error"
    assert rules.defaults == SamplingParams()
    assert pickle.loads(pickle.dumps(rules)) == rules
