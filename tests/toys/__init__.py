"""Small policies of every family, for the shared suites: random ones, and those we ship.

A new family joins every suite by a line in `FAMILIES`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from unified_rl.microworld.words import vocabulary
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.janus.load import janus
from unified_rl.models.showo.load import showo
from unified_rl.models.template import Template
from unified_rl.models.vila_u.load import vila_u

ASSETS = Path(__file__).parents[2] / "assets"
SPOKEN = ("circle", "red", "the")
"""The only words that a policy may sample here, so that it often asks for an image and ends."""

HESITATION = 0.05
"""Factor on the word logits of a trained policy."""


def sparing(template: Template) -> Template:
    """The template, with most words forbidden."""
    unspoken = (word for word in vocabulary() if word not in SPOKEN)
    return dataclasses.replace(template, forbidden=(*template.forbidden, *unspoken))


TEMPLATE = sparing(Template())
SHOWO_TEMPLATE = sparing(
    Template(
        layouts={
            "text_to_image": "<|t2i|>{start}{text}<eos>",
            "understanding": "<|mmu|>{images}{start}<user>{text}<assistant>",
        },
        unconditional="<|t2i|>{start}<eos>",
        forbidden=(*Template().forbidden, "<|t2i|>", "<|mmu|>"),
    )
)
MICRO_JANUS = {
    "text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "vision": {
        "image_size": 24,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_image_tokens": 9,
    },
    "codec": {
        "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 1],
        "latent_channels": 32,
        "num_res_blocks": 1,
        "num_embeddings": 16,
        "num_patches": 3,
    },
}


MICRO_SHOWO = {
    "text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "codec": {
        "bits": 4,
        "base_channels": 32,
        "encoder_channel_multiplier": [1, 1, 1, 1],
        "encoder_block_counts": [1, 1, 1, 1],
        "decoder_channel_multiplier": [1, 1, 1, 1],
        "decoder_block_counts": [1, 1, 1, 1],
        "image_size": 24,
    },
}
MICRO_VILA_U = {
    "text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "vision": {
        "image_size": 24,
        "patch_size": 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "codec": {
        "codebook_size": 16,
        "depth": 3,
        "latent_channels": 32,
        "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 1],
        "block_count": 1,
        "attention_resolutions": [],
        "resolution": 24,
    },
    "depth": {"width": 48, "layer_count": 2, "head_count": 4},
}


def random_janus() -> UnifiedPolicy:
    """Janus of two layers, 3 x 3 positions and 16 codes."""
    return janus(None, MICRO_JANUS, words=vocabulary(), template=TEMPLATE)


def random_showo() -> UnifiedPolicy:
    """Show-o of two layers, 3 x 3 positions and 16 codes."""
    return showo(None, MICRO_SHOWO, words=vocabulary(), template=SHOWO_TEMPLATE)


def random_vila_u() -> UnifiedPolicy:
    """VILA-U of two layers, 3 x 3 positions of three codes out of 16."""
    return vila_u(None, MICRO_VILA_U, words=vocabulary(), template=TEMPLATE)


def shipped(load: Callable[..., UnifiedPolicy], name: str) -> Callable[[], UnifiedPolicy]:
    """What loads a policy that comes with the code."""
    folder = ASSETS / name
    return lambda: load(str(folder), template=sparing(Template.load(folder)))


FAMILIES: dict[str, Callable[[], UnifiedPolicy]] = {
    "janus": random_janus,
    "showo": random_showo,
    "vila_u": random_vila_u,
}
SHIPPED: dict[str, Callable[[], UnifiedPolicy]] = {
    "micro_janus": shipped(janus, "micro_janus"),
    "micro_showo": shipped(showo, "micro_showo"),
    "micro_vila_u": shipped(vila_u, "micro_vila_u"),
}


def hesitant(policy: UnifiedPolicy) -> UnifiedPolicy:
    """Takes the certainty out of a trained policy's words, so that it asks for images at times."""
    rows = slice(policy.text_vocabulary_size)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lm_head" in name:
                parameter[rows] *= HESITATION
    return policy


def build(family: str) -> UnifiedPolicy:
    """The same policy each time.

    Random weights are large enough for context to matter. Trained ones are in float64: guidance
    multiplies their logits of tens, and float32 then rounds by 2e-5.
    """
    if family in SHIPPED:
        return hesitant(SHIPPED[family]().eval().double())
    with torch.random.fork_rng():
        torch.manual_seed(4)
        policy = FAMILIES[family]().eval()
        for parameter in policy.parameters():
            if parameter.requires_grad and parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return policy
