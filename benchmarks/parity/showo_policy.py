"""Show-o with recorded weights, and its sequences as the official code pads them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PhiConfig

from benchmarks.parity.checks import Golden
from benchmarks.parity.numbered import numbered_tokenizer
from benchmarks.parity.showo_codec import PREFIX, golden_codec
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.decoding.tape import Columns, Kind, Tape, stack
from unified_rl.models.showo.model import ShowoConfig
from unified_rl.models.showo.official import build
from unified_rl.models.showo.official_prompt import PAD, START, official_template
from unified_rl.models.showo.policy import ShowoPolicy
from unified_rl.models.weights import StateWeights

MODEL_PREFIX = "model."
"""Of the language model's weights in the golden file."""


def golden_policy(golden: Golden) -> ShowoPolicy:
    """The policy with the golden weights, read as an official checkpoint is."""
    config, cfg = golden.config, golden.config["cfg"]
    phi = {**cfg["phi"], "vocab_size": config["vocab_size"], "qk_layernorm": True}
    codec = golden_codec(golden).config
    sizes = ShowoConfig(
        text_config=PhiConfig(**phi),
        codec_config=vars(codec),
        text_limit=cfg["max_text_len"],
        attn_implementation="sdpa",
    )
    halves = ({}, {})
    for name, weight in golden.weights.items():
        of_codec = name.startswith(PREFIX)
        halves[of_codec][name.removeprefix(PREFIX if of_codec else MODEL_PREFIX)] = weight
    model = build(sizes, *map(StateWeights, halves), torch.float32)
    official = official_template()
    special = config["special_token_ids"]
    names = {special[token]: token for token in special if token not in RENAMED}
    names |= {special["<|pad|>"]: PAD, cfg["bos"]: START}
    template = replace(
        official,
        layout="{start}{prompt}",  # without the words around a prompt, which have no numbers here
        layouts={**official.layouts, Task.UNDERSTANDING.value: "<|mmu|>{images}{start}{text}"},
        image_trigger=PAD,  # the official model asks for no images
        forbidden=(),
    )
    tokenizer = numbered_tokenizer(config["image_token_offset"], names)
    return ShowoPolicy(model, tokenizer, template)


RENAMED = ("<|pad|>", "<|sot|>", "<|eot|>")
"""Names that the official code has for tokens of other names."""


def prompt_ids(policy: ShowoPolicy, text: str) -> list[int]:
    """The prompt of an image, up to its begin token."""
    return policy.prompt_ids(Sample("", Task.TEXT_TO_IMAGE, (Text(text),)))


def prompt_tape(policy: ShowoPolicy, texts: Sequence[str], width: int) -> Tape:
    """Prompts of images and their twins, padded on the left to `width` as the official ones are."""
    rows = []
    for text in texts:
        row, twin = (Columns(1).text(prompt_ids(policy, t)) for t in (text, ""))
        rows.append(row.twin(twin))
    return padded(rows, width)


def drawing(policy: ShowoPolicy, text: str, codes: Tensor) -> Columns:
    """A prompt and its image of (N,) codes, between its borders."""
    columns = Columns(1).text(prompt_ids(policy, text)).text([policy.begin_of_image_id], 0)
    return columns.codes(codes[:, None].tolist(), 0).text([policy.end_of_image_id], 0)


def padded(rows: list[Columns], width: int) -> Tape:
    """Rows on the right of `width` columns."""
    tape = stack([*rows, Columns(1).text([0] * width)], no_pixels(len(rows) + 1), left=True)
    return Tape(*(field[:-1] for field in tape))


def no_pixels(row_count: int) -> Tensor:
    """(B, 0, 3, 1, 1): what prompts without images show."""
    return torch.zeros(row_count, 0, 3, 1, 1)


def vocabulary_ids(policy: ShowoPolicy, ids: Tensor, kind: Tensor) -> Tensor:
    """(B, C): the official ids of (B, C, 1) ids of ours; codes and words have one vocabulary."""
    ids = ids[..., 0]
    ids = torch.where(kind == Kind.CODE, ids + policy.code_offset, ids)
    return torch.where(kind == Kind.PAD, policy.pad_id, ids)


def float_mask(seen: Tensor) -> Tensor:
    """(B, 1, C, C): 0 and the least int64, which the official code adds to the scores."""
    return torch.zeros(seen.shape).masked_fill(~seen, torch.iinfo(torch.int64).min)[:, None]
