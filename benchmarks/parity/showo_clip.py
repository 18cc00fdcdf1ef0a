"""Who sees whom in the variant of Show-o that is shown images through CLIP.

Its projector has one size in the official code, so nothing else of it was recorded.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.parity.checks import Check, Golden, exact
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.models.showo.model import ShowoConfig, ShowoModel
from unified_rl.models.showo.policy import ShowoPolicy

SYSTEM_LENGTH = 28
"""Tokens before the image, which the official code writes as a number."""
EYE = {
    "image_size": 336,
    "patch_size": 14,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
}
"""As many patches as published, and hardly any weights, of which a mask has no need."""
OTHER_RULE = Check(None, note="UniRL's copy lets a system prompt see itself whole; not offered")


def mask_checks(policy: ShowoPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `mmu_vit.*` and `unirl.mmu_vit.*`: rows and columns of the mask, summed."""
    seen = _seen(policy, len(golden.io["mmu_vit.mask_row_sums"]))
    yield "mmu_vit.mask_row_sums", exact(seen.sum(1))
    yield "mmu_vit.mask_col_sums", exact(seen.sum(0))
    yield "unirl.mmu_vit.mask_row_sums", OTHER_RULE
    yield "unirl.mmu_vit.mask_col_sums", OTHER_RULE


def _seen(policy: ShowoPolicy, length: int) -> Tensor:
    """(length, length) bool of a question and its answer, system prompt and image in front."""
    sizes = policy.showo.config
    config = ShowoConfig(
        text_config=sizes.text_config,
        codec_config=sizes.codec_config,
        vision_config=EYE,
        attn_implementation="sdpa",
    )
    form = "<|mmu|>" + " 1" * SYSTEM_LENGTH + "{images}{text}"
    template = replace(policy.template, layouts={Task.UNDERSTANDING.value: form})
    variant = ShowoPolicy(ShowoModel(config), policy.tokenizer, template)
    picture = Image(np.zeros((variant.capabilities.image_size,) * 2 + (3,), np.uint8))
    # the task token, both borders of the image, and the end of the answer
    words = length - 1 - SYSTEM_LENGTH - 2 - variant.shown_positions - 1
    asked = Sample("", Task.UNDERSTANDING, (picture, Text("")), (Text("1 " * words),))
    tape = variant.encode([asked], torch.Generator()).tape
    return variant.visibility(tape["kind"], tape["segment"], 0)[0]
