"""Sequences, masks, losses and gradients of Show-o's training on images, texts and questions."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.parity.checks import DOCUMENTED, GIVEN, Check, Golden, exact
from benchmarks.parity.showo_policy import drawing, float_mask, padded, vocabulary_ids
from unified_rl.core.behaviour import TEACHER
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.core.trajectory import Modality
from unified_rl.decoding.tape import Kind
from unified_rl.models.showo.official import KEY_MAP
from unified_rl.models.showo.policy import ShowoPolicy
from unified_rl.objectives.imitation import modality_nll

IGNORED = -100
"""Label of what is not learnt."""
TEXT_SHARE = 0.1
"""Weight of each text loss in the recorded gradients; that of images is 1."""
GRADIENTS = (
    "showo.model.embed_tokens.weight",
    "showo.model.layers.0.self_attn.q_proj.weight",
    "showo.model.layers.1.self_attn.k_layernorm.weight",
)
"""Parameters whose gradients are recorded whole."""


class Batch(NamedTuple):
    """Sequences of one kind, as the official code pads them.

    Attributes:
        ids: (B, L) official ids.
        labels: (B, L), each for its own position.
        seen: (B, L, L) bool, who sees whom.
    """

    ids: Tensor
    labels: Tensor
    seen: Tensor


def training_checks(policy: ShowoPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `t2i.*`, `lm.*`, `mmu.*` and `train.*`."""
    cfg = golden.config["cfg"]
    image, seen_with_padding = _images(policy, golden)
    width = image.ids.shape[1]
    shown = golden.io["vq.pixel_values"][: len(cfg["texts_mmu"])]
    text = answers(policy, Task.TEXT, cfg["texts_lm"], shown, width)
    answer = answers(policy, Task.UNDERSTANDING, cfg["texts_mmu"], shown, width)
    batches = {"t2i": image, "lm": text, "mmu": answer}
    hidden = {
        name: _hidden(policy, batch.ids, batch.seen[:, None]) for name, batch in batches.items()
    }
    yield "t2i.image_input_ids", GIVEN
    yield "t2i.image_labels", GIVEN
    yield "t2i.attention_mask_bool", exact(image.seen[:, None])
    yield "t2i.attention_mask_bool_keep_pad", exact(seen_with_padding[:, None])
    yield "mmu.attention_mask_bool", exact(answer.seen[:, None])
    for name, batch in batches.items():
        yield f"{name}.input_ids", exact(batch.ids)
        yield f"{name}.labels", exact(batch.labels)
        yield f"{name}.returned_mask_1d", DOCUMENTED
        yield f"{name}.attention_mask", exact(float_mask(batch.seen))
        yield f"{name}.logits", Check(policy.text_logits(hidden[name]))
    unmasked = _hidden(policy, text.ids, None)
    yield "lm.logits_mask_none", Check(policy.text_logits(unmasked))
    yield "train.input_ids", exact(torch.cat([batch.ids for batch in batches.values()]))
    yield "train.labels", exact(torch.cat([batch.labels for batch in batches.values()]))

    # An image token is predicted at its own position, its borders with it; a word one before.
    start = cfg["max_text_len"] + 1
    losses = {
        "t2i": _loss(policy, hidden["t2i"][:, start:], image.labels[:, start:]),
        "lm": _loss(policy, hidden["lm"][:, :-1], text.labels[:, 1:]),
        "mmu": _loss(policy, hidden["mmu"][:, :-1], answer.labels[:, 1:]),
    }
    for name, loss in losses.items():
        yield f"train.loss_{name}", Check(loss, 1e-5, 0.0)
    (losses["t2i"] + TEXT_SHARE * (losses["lm"] + losses["mmu"])).backward()
    keys = golden.config["notes"]["train.grad_l2_norms_keys"]
    gradients = {key: _gradient(policy, key) for key in keys}
    policy.zero_grad()
    norms = torch.stack([gradient.norm() for gradient in gradients.values()])
    yield "train.grad_l2_norms", Check(norms, 0.0, 1e-3)
    for key in gradients.keys() & set(GRADIENTS):
        yield f"train.grad.{key}", Check(gradients[key], 1e-5, 1e-3)


def _images(policy: ShowoPolicy, golden: Golden) -> tuple[Batch, Tensor]:
    """Prompts and half masked images; who sees whom if padding counts."""
    io, cfg = golden.io, golden.config["cfg"]
    codes = io["t2i.image_input_ids"] - policy.code_offset
    rows = [drawing(policy, *pair) for pair in zip(cfg["texts_t2i"], codes, strict=True)]
    tape = padded(rows, cfg["max_text_len"] + 1 + codes.shape[1] + 2)
    ids = vocabulary_ids(policy, tape.ids, tape.kind)
    labels = torch.where(tape.kind == Kind.TEXT, ids, IGNORED)
    labels[tape.kind == Kind.CODE] = io["t2i.image_labels"].flatten()
    kind = tape.kind.clamp_min(int(Kind.TEXT))
    seen, all_seen = (policy.visibility(k, tape.segment, 0) for k in (tape.kind, kind))
    return Batch(ids, labels, seen), all_seen


def answers(
    policy: ShowoPolicy, task: Task, texts: Sequence[str], pixels: Tensor, width: int
) -> Batch:
    """Texts, or answers to (B, 3, H, W) pictures, padded on the right to `width`.

    The official code learns their start, too.
    """
    blank = Image(np.zeros((policy.capabilities.image_size,) * 2 + (3,), dtype=np.uint8))
    prompt = (blank,) if task == Task.UNDERSTANDING else (Text(""),)
    samples = [Sample("", task, prompt, (Text(text),)) for text in texts]
    gold = policy.encode(samples, torch.Generator())
    # Prompts shorter than their unconditional twin stand behind some padding.
    order = (gold.tape["kind"] == Kind.PAD).long().argsort(dim=1, stable=True)
    kind = gold.tape["kind"].gather(1, order)
    ids = vocabulary_ids(policy, gold.tape["ids"].gather(1, order[..., None]), kind)
    learnt = gold.action_mask[..., 0].gather(1, order)
    learnt |= functional.pad(learnt, (0, 1))[:, 1:]
    if task == Task.UNDERSTANDING:
        codes = policy.encode_images(pixels)
        ids[kind == Kind.PIXEL] = codes.flatten() + policy.code_offset
    labels = torch.where(learnt, ids, IGNORED)
    beyond = (0, width - ids.shape[1])
    kind = functional.pad(kind, beyond).clamp_min(int(Kind.TEXT))  # padding is read as words are
    return Batch(
        functional.pad(ids, beyond, value=policy.pad_id),
        functional.pad(labels, beyond, value=IGNORED),
        policy.visibility(kind, torch.full_like(kind, -1), 0),
    )


def _hidden(policy: ShowoPolicy, ids: Tensor, mask: Tensor | None) -> Tensor:
    """(B, L, width); positions count padding."""
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    return policy.backbone(policy.embed_text(ids), mask, positions, None)


def _loss(policy: ShowoPolicy, hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood, over words, codes and all, of labels by the states given."""
    scores = policy.text_log_distribution(hidden, TEACHER)
    logprobs = scores.gather(-1, labels.clamp_min(0)[..., None])
    words = torch.full(labels.shape, int(Modality.TEXT))
    return modality_nll(logprobs, (labels != IGNORED)[..., None], words).loss


def _gradient(policy: ShowoPolicy, name: str) -> Tensor:
    """The gradient of a parameter under its official name."""
    rule, targets = KEY_MAP.find(name)
    return rule.transform.join([policy.showo.get_parameter(target).grad for target in targets])
