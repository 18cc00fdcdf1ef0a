"""The word-level tokenizer: one id a word, special tokens whole, the same after a file."""

import pytest
from transformers import AutoTokenizer

from unified_rl.microworld.words import vocabulary
from unified_rl.models.template import Template
from unified_rl.models.words import word_tokenizer

STORY = "<think> a red circle <vis>"


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(vocabulary(), Template())


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_word_is_one_id(tokenizer):
    assert len(ids(tokenizer, STORY)) == len(STORY.split())


def test_text_survives(tokenizer):
    assert tokenizer.decode(ids(tokenizer, STORY)) == STORY


def test_every_word_of_the_world_is_known(tokenizer):
    assert tokenizer.unk_token_id not in ids(tokenizer, " ".join(vocabulary()))


def test_an_unknown_word_is_told_apart(tokenizer):
    assert ids(tokenizer, "red zeppelin")[1] == tokenizer.unk_token_id


def test_every_token_of_the_template_has_an_id_of_its_own(tokenizer):
    template = Template()
    tokens = {*template.forbidden, template.end_of_text, template.image_trigger}
    found = {tokenizer.convert_tokens_to_ids(token) for token in tokens}
    assert len(found) == len(tokens)
    assert tokenizer.convert_tokens_to_ids("red") not in found


def test_a_word_given_twice_counts_once():
    assert len(word_tokenizer(["red", "red"], Template())) == len(
        word_tokenizer(["red"], Template())
    )


def test_ids_are_without_gaps(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_a_saved_tokenizer_reads_alike(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert ids(loaded, STORY) == ids(tokenizer, STORY)
    assert loaded.decode(ids(loaded, STORY)) == STORY
