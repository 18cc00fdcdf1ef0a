"""Small policies of random weights, one a family, for the shared suites.

A new family joins every suite by a line in `FAMILIES`.
"""

from collections.abc import Callable

import torch

from tests.toys.mask_predict import MaskPredictToy
from tests.toys.residual_depth import ResidualDepthToy
from unified_rl.microworld.words import vocabulary
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.janus.load import janus
from unified_rl.models.template import Template
from unified_rl.models.words import word_tokenizer

SPOKEN = ("circle", "red", "the")
"""The only words a random policy may sample, so that it often asks for an image and often ends."""
TEMPLATE = Template(
    forbidden=(*Template().forbidden, *(word for word in vocabulary() if word not in SPOKEN))
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


def micro_janus() -> UnifiedPolicy:
    """Janus of two layers, 3 x 3 positions and 16 codes."""
    return janus(None, MICRO_JANUS, words=vocabulary(), template=TEMPLATE)


def residual_depth() -> UnifiedPolicy:
    """Two codes a position."""
    return ResidualDepthToy(word_tokenizer(vocabulary(), TEMPLATE), TEMPLATE)


def mask_predict() -> UnifiedPolicy:
    """Steps within an image."""
    return MaskPredictToy(word_tokenizer(vocabulary(), TEMPLATE), TEMPLATE)


FAMILIES: dict[str, Callable[[], UnifiedPolicy]] = {
    "janus": micro_janus,
    "residual_depth": residual_depth,
    "mask_predict": mask_predict,
}


def build(family: str) -> UnifiedPolicy:
    """The same random policy each time; its weights are large enough for context to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = FAMILIES[family]().eval()
        for parameter in policy.parameters():
            if parameter.requires_grad and parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return policy
