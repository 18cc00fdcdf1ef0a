"""The lean Llama reads what the library reads, however adapted, and says where it cannot."""

import gc
import weakref

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel, PhiConfig, PhiModel

from unified_rl.decoding.cache import PrefixCache
from unified_rl.decoding.decoder import LibraryDecoder
from unified_rl.models import column_attention, fixed_steps, lean_llama
from unified_rl.models.lean_llama import LeanLlama, is_lean
from unified_rl.models.packed_layer import PackedLayer

WIDTH, COLUMNS = 32, 12
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 8,
    "max_position_embeddings": 64,
}
KINDS = {
    "plain": {},
    "shared keys": {"num_key_value_heads": 2},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "slower turns": {
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    },
}
ADAPTED = ("q_proj", "up_proj", "down_proj")


def llama(**settings):
    torch.manual_seed(0)
    model = LlamaModel(LlamaConfig(**SIZES, **settings)).eval()
    for parameter in model.parameters():  # norms and biases too, which start as ones and zeros
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def library(model):
    def backbone(embeds, mask, positions, cache):
        return model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    return LibraryDecoder(backbone, PrefixCache(model.config, COLUMNS))


def reads(decoder, device="cpu"):
    """States of a left-padded prompt, of single columns, and of rows that go on, more and fewer."""
    generator = torch.Generator().manual_seed(1)
    valid = torch.ones(2, COLUMNS, dtype=torch.bool)
    valid[1, :2] = False
    embeds = torch.randn(2, COLUMNS, WIDTH, generator=generator)
    positions = (valid.cumsum(1) - 1).clamp_min(0)
    found = []

    def read(rows, span):
        seen = valid[rows, None, : span.stop] | ~valid[rows, span, None]
        past = torch.ones(COLUMNS, COLUMNS, dtype=torch.bool).tril()[span, : span.stop]
        mask = (seen & past)[:, None]
        given = embeds[rows, span], mask, positions[rows, span]
        found.append(decoder.read(*(tensor.to(device) for tensor in given)).clone())

    both = torch.arange(2)
    read(both, slice(0, 5))
    read(both, slice(5, 6))
    read(both, slice(6, 9))
    decoder.rewind(3)
    read(both, slice(6, 7))
    spread = torch.tensor([1, 0, 0, 1])
    decoder.spread(spread.to(device))
    read(spread, slice(7, 8))
    read(spread, slice(8, 10))
    fewer = torch.tensor([3, 1])
    decoder.spread(fewer.to(device))
    read(spread[fewer], slice(10, 11))
    read(spread[fewer], slice(11, 12))
    found[0][1, :2] = 0  # nobody reads what comes of padding
    return found


def assert_alike(model, fixed=None):
    found = reads(LeanLlama(model, COLUMNS, fixed))
    for ours, theirs in zip(found, reads(library(model)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_it_reads_what_the_library_reads(kind, packed, monkeypatch):
    monkeypatch.setattr(lean_llama, "PACKED_BYTES", 2**31 if packed else 0)
    model = llama(**KINDS[kind])
    assert is_lean(model)
    assert_alike(model)


@pytest.mark.parametrize("bucket", [4, 128])  # single columns 5, 6, 7, 8: of the second, then third
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_steps_of_fixed_shape_read_the_same(kind, bucket, monkeypatch):
    monkeypatch.setattr(fixed_steps, "BUCKET", bucket)
    monkeypatch.setattr(lean_llama, "BUCKET", bucket)
    assert_alike(llama(**KINDS[kind]), fixed=True)


@torch.no_grad()
def test_steps_of_fixed_shape_keep_their_addresses():
    decoder, seen = LeanLlama(llama(), COLUMNS, fixed=True), []
    step = decoder._step

    def watched(*given):
        seen.append([tensor.data_ptr() for tensor in given[:4]] + [given[4]])
        return step(*given)

    decoder._step = watched
    for column in range(3):
        mask = torch.ones(2, 1, 1, column + 1, dtype=torch.bool)
        decoder.read(torch.randn(2, 1, WIDTH), mask, torch.full((2, 1), column))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][4] == 128


@pytest.mark.parametrize("fixed", [False, True])
@torch.no_grad()
def test_keys_and_values_are_given_back_with_the_session(fixed):
    decoder = LeanLlama(llama(), COLUMNS, fixed)
    reads(decoder)
    keys = weakref.ref(decoder._kept.keys[0])
    gc.disable()  # a cycle would hold gigabytes until the collector comes by
    try:
        del decoder
        assert keys() is None
    finally:
        gc.enable()


@torch.no_grad()
def test_steps_of_fixed_shape_read_under_autocast():
    model = llama()
    with torch.autocast("cpu", torch.bfloat16):
        single, whole = (reads(LeanLlama(model, COLUMNS, fixed)) for fixed in (True, False))
    for one, other in zip(single, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.05)  # a few of bfloat16's steps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_graph_reads_what_is_read_without(kind):
    model = llama(**KINDS[kind]).to("cuda")
    replayed = reads(LeanLlama(model, COLUMNS), "cuda")
    eager = reads(LeanLlama(model, COLUMNS, fixed=False), "cuda")
    for graphed, alone in zip(replayed, eager, strict=True):
        torch.testing.assert_close(graphed, alone, rtol=0, atol=2e-5)


@torch.no_grad()
def test_large_buffers_read_the_same(monkeypatch):
    monkeypatch.setattr(column_attention, "HUGE_BYTES", 0)
    assert_alike(llama())


def test_a_large_buffer_is_aligned_and_typed(monkeypatch):
    monkeypatch.setattr(column_attention, "HUGE_BYTES", 0)
    made = column_attention.buffer((3, 5, 7), torch.zeros(1, dtype=torch.bfloat16))
    assert (made.shape, made.dtype, made.data_ptr() % 64) == ((3, 5, 7), torch.bfloat16, 0)
    made.fill_(2)
    assert made.float().sum() == 2 * 3 * 5 * 7


@torch.no_grad()
def test_an_adapted_layer_counts():
    model = llama()
    before = reads(LeanLlama(model, COLUMNS))
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=list(ADAPTED)), model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    model.eval()
    assert is_lean(model)
    assert_alike(model)
    assert (reads(LeanLlama(model, COLUMNS))[0] - before[0]).abs().max() > 0.01


@torch.no_grad()
def test_half_precision_rounds_as_the_library_does():
    model = llama().bfloat16()
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(2, 5, WIDTH, generator=generator).bfloat16()
    mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5)
    positions = torch.arange(5).expand(2, 5)
    ours, theirs = (
        decoder.read(embeds, mask, positions)
        for decoder in (LeanLlama(model, COLUMNS), library(model))
    )
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.04)  # a few of bfloat16's steps at 2


def test_other_models_are_left_to_the_library():
    sizes = {name: value for name, value in SIZES.items() if name != "rope_parameters"}
    assert not is_lean(PhiModel(PhiConfig(**sizes)))
    scaled = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    assert not is_lean(llama(rope_parameters=scaled))


def test_layers_that_somebody_listens_to_are_left_to_the_library():
    model = llama()
    handle = model.layers[1].register_forward_hook(lambda *given: None)
    assert not is_lean(model)
    handle.remove()
    assert is_lean(model)


def test_shards_are_left_to_the_library():
    model = llama()
    model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.empty(0))  # as ZeRO-3 leaves it
    assert not is_lean(model)


def test_plain_layers_are_packed_and_others_are_not(monkeypatch):
    def is_packed(model):
        return isinstance(LeanLlama(model, COLUMNS)._layers[0], PackedLayer)

    assert is_packed(llama())
    assert not is_packed(llama(hidden_act="gelu"))
    assert not is_packed(llama().bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_packed(llama())
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        assert not is_packed(llama())
    adapted = llama()
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=list(ADAPTED)), adapted)
    assert not is_packed(adapted)
    monkeypatch.setattr(lean_llama, "PACKED_BYTES", 0)
    assert not is_packed(llama())


@torch.no_grad()
def test_other_activations_and_scales_read_the_same():
    assert_alike(llama(hidden_act="gelu"))
    scaled = llama()
    for layer in scaled.layers:
        layer.self_attn.scaling *= 0.5
    assert_alike(scaled)


def test_what_it_reads_has_no_gradient():
    for fixed in (False, True):
        found = LeanLlama(llama(), COLUMNS, fixed).read(
            torch.randn(1, 1, WIDTH, requires_grad=True),
            torch.ones(1, 1, 1, 1, dtype=torch.bool),
            torch.zeros(1, 1, dtype=torch.long),
        )
        assert not found.requires_grad


def test_keys_that_a_blocked_kernel_takes_are_not_copied():
    kept = torch.zeros(2, 3, 8, 4)[:, :, :5]
    assert column_attention.as_blocked(kept) is kept


@pytest.mark.parametrize("packed", [True, False])
@torch.no_grad()
def test_several_columns_are_given_keys_that_a_blocked_kernel_takes(packed, monkeypatch):
    monkeypatch.setattr(lean_llama, "PACKED_BYTES", 2**31 if packed else 0)
    plain, strides = functional.scaled_dot_product_attention, []

    def watched(queries, keys, *rest, **settings):
        strides.append(keys.stride(-1))
        return plain(queries, keys, *rest, **settings)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    reads(LeanLlama(llama(), COLUMNS))
    assert strides and set(strides) == {1}
