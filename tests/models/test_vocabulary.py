"""New words for a trained policy: they change nothing that was there, and they can be learnt."""

import pytest
import torch

from tests.toys import build
from unified_rl.core.errors import CapabilityError, ConfigError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.models.adapter import Adapter
from unified_rl.models.adapter_folder import adapted
from unified_rl.models.janus.load import janus
from unified_rl.models.vila_u.load import vila_u
from unified_rl.models.vocabulary import add_words

WORDS = ("A", "A.", "</think>", "red")
"""Three new ones, and one that is known."""
LOADERS = {"janus": janus, "vila_u": vila_u}
GROWING = tuple(LOADERS)


@pytest.fixture(params=GROWING)
def grown(request):
    policy = build(request.param)
    before = policy.text_vocabulary_size
    assert add_words(policy, WORDS) == 3
    assert policy.text_vocabulary_size == before + 3
    return request.param, policy


def test_each_word_is_one_token_wherever_it_stands_by_itself(grown):
    _, policy = grown
    tokens = policy.tokenizer.convert_ids_to_tokens(policy.tokenize("A. red </think> A circle"))
    assert tokens == ["A.", "red", "</think>", "A", "circle"]
    assert policy.tokenizer.decode(policy.tokenize("A. red </think>")) == "A. red </think>"


def test_old_words_have_the_logits_that_they_had(grown):
    family, policy = grown
    before = build(family)
    ids = torch.tensor([5, 10, 20])
    size = before.text_vocabulary_size
    assert torch.equal(policy.embed_text(ids), before.embed_text(ids))
    state = before.embed_text(ids)
    assert torch.equal(policy.text_logits(state)[:, :size], before.text_logits(state))


def test_a_new_row_of_the_head_is_the_mean_of_the_old_ones(grown):
    family, policy = grown
    old = build(family).text_rows()[1].weight
    assert torch.allclose(policy.text_rows()[1].weight[len(old) :], old.mean(0), atol=1e-7)


def test_new_embeddings_differ_and_have_the_spread_of_the_old_ones(grown):
    _, policy = grown
    weight = policy.text_rows()[0].weight
    old, new = weight[:-3], weight[-3:]
    assert (new[0] - new[1]).abs().max() > 0.1 * old.std()
    assert 0.5 * old.std() < new.std() < 2 * old.std()


def test_new_words_may_be_chosen(grown):
    _, policy = grown
    assert bool(policy.allowed_text[-3:].all())
    assert len(policy.allowed_text) == policy.text_vocabulary_size


@pytest.mark.parametrize("padding", [1, 3, 10])
@pytest.mark.parametrize("family", GROWING)
def test_a_padded_head_is_filled_where_the_new_ids_are(family, padding):
    plain, padded = build(family), build(family)
    size = len(plain.tokenizer)
    assert plain.text_vocabulary_size == size
    padded.grow_text(padding)
    with torch.no_grad():
        for module in padded.text_rows():
            module.weight[size:] = 100.0  # what nothing has trained
    for policy in (plain, padded):
        assert add_words(policy, WORDS) == 3
    assert padded.tokenize("A") == plain.tokenize("A") == [size]
    assert padded.text_vocabulary_size == size + max(3, padding)
    for one, other in zip(plain.text_rows(), padded.text_rows(), strict=True):
        assert torch.equal(other.weight[: size + 3], one.weight)
        assert bool((other.weight[size + 3 :] == 100.0).all())
    assert bool(padded.allowed_text[size : size + 3].all())
    assert not bool(padded.allowed_text[size + 3 :].any())


def test_known_words_change_nothing():
    policy = build("janus")
    assert add_words(policy, ("red", "circle")) == 0


def test_the_same_seed_gives_the_same_rows():
    first, second = build("janus"), build("janus")
    add_words(first, WORDS)
    add_words(second, WORDS)
    assert torch.equal(first.text_rows()[0].weight, second.text_rows()[0].weight)


def test_a_grown_policy_survives_its_folder(grown, tmp_path):
    family, policy = grown
    policy.save(tmp_path)
    again = LOADERS[family](str(tmp_path))
    assert again.text_vocabulary_size == policy.text_vocabulary_size
    assert again.tokenize("A. red </think>") == policy.tokenize("A. red </think>")
    assert torch.equal(again.text_rows()[1].weight, policy.text_rows()[1].weight)


def test_it_learns_a_new_word(grown):
    _, policy = grown
    policy.requires_grad_(True)
    sample = Sample("s", Task.TEXT, (Text("red"),), (Text("A"),))
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(8):
        loss = -policy.logprobs(policy.encode([sample], torch.Generator())).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_family_whose_codes_follow_its_words_refuses():
    with pytest.raises(CapabilityError, match="cannot take new words"):
        add_words(build("showo"), WORDS)


def test_an_adapter_that_could_not_save_them_refuses():
    with pytest.raises(ConfigError, match="policy.words names 4 words"):
        adapted(lambda: build("janus"), Adapter("lora"), None, words=WORDS)


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        (("language_model",), r"\[language_model\] would not train; add heads and embeddings, or"),
        (("vision", "heads"), r"\[vision, heads\] would not train; add embeddings, or"),
        (("embeddings",), r"adapter.trainable=\[embeddings\] would not train; add heads, or"),
    ],
)
def test_an_adapter_that_would_not_train_them_refuses(trainable, message):
    with pytest.raises(ConfigError, match=f"policy.words names 4 words, .*{message}"):
        adapted(lambda: build("janus"), Adapter(trainable=trainable), None, words=WORDS)


def test_an_adapter_that_trains_them_takes_them():
    adapter = Adapter(trainable=("heads", "embeddings"))
    policy = adapted(lambda: build("janus"), adapter, words=WORDS)
    assert all(module.weight.requires_grad for module in policy.text_rows())
    assert len(policy.tokenize("A")) == 1


def test_words_of_the_configuration_are_added():
    assert adapted(lambda: build("janus"), None, words=WORDS).tokenize("A") != [3]
