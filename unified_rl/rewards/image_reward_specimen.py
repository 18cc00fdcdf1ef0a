"""A small random ImageReward under the names of the published file: for dry runs and tests."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from unified_rl.rewards.specimens import WORDS, bert_tokenizer

WIDTH, HIDDEN, PATCH, PATCHES, LAYERS = 128, 96, 16, 4, 2


def image_reward_state(seed: int = 0) -> dict[str, Tensor]:
    """Every name that ImageReward's published file has, of a model of two layers a tower."""
    shapes: dict[str, tuple[int, ...]] = {}
    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    shapes[vision + "cls_token"] = (1, 1, WIDTH)
    shapes[vision + "pos_embed"] = (1, PATCHES + 1, WIDTH)
    linear(shapes, vision + "patch_embed.proj", WIDTH, 3, PATCH, PATCH)
    for index in range(LAYERS):
        block = f"{vision}blocks.{index}."
        for name in ("norm1", "norm2"):
            linear(shapes, block + name, WIDTH)
        linear(shapes, block + "attn.qkv", 3 * WIDTH, WIDTH)
        linear(shapes, block + "attn.proj", WIDTH, WIDTH)
        linear(shapes, block + "mlp.fc1", HIDDEN, WIDTH)
        linear(shapes, block + "mlp.fc2", WIDTH, HIDDEN)
    linear(shapes, vision + "norm", WIDTH)
    shapes[text + "embeddings.word_embeddings.weight"] = (len(WORDS) + 2, WIDTH)
    shapes[text + "embeddings.position_embeddings.weight"] = (40, WIDTH)
    linear(shapes, text + "embeddings.LayerNorm", WIDTH)
    for index in range(LAYERS):
        layer = f"{text}encoder.layer.{index}."
        for attention in ("attention.", "crossattention."):
            for name in ("self.query", "self.key", "self.value", "output.dense"):
                linear(shapes, layer + attention + name, WIDTH, WIDTH)
            linear(shapes, layer + attention + "output.LayerNorm", WIDTH)
        linear(shapes, layer + "intermediate.dense", HIDDEN, WIDTH)
        linear(shapes, layer + "output.dense", WIDTH, HIDDEN)
        linear(shapes, layer + "output.LayerNorm", WIDTH)
    for name in ("vision_proj", "text_proj"):
        linear(shapes, f"blip.{name}", 8, WIDTH)
    widths = (WIDTH, 1024, 128, 64, 16, 1)
    for place, inputs, outputs in zip((0, 2, 4, 6, 7), widths[:-1], widths[1:], strict=True):
        linear(shapes, f"mlp.layers.{place}", outputs, inputs)
    state = random_state(shapes, seed)
    # What enters the first layers is so small that the norms' epsilon, 1e-6, makes a difference.
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
        state[vision + name] *= 0.005
    state[text + "embeddings.position_ids"] = torch.arange(40)[None]
    return state


def image_reward_folder(folder: Path, state: Mapping[str, Tensor] | None = None) -> Path:
    """A folder as a user fills it: the published file, and BERT's tokenizer beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(image_reward_state() if state is None else dict(state), folder / "ImageReward.pt")
    bert_tokenizer().save_pretrained(folder)
    return folder


def linear(shapes: dict[str, tuple[int, ...]], name: str, *shape: int) -> None:
    """Adds the shapes of a layer with weight and bias."""
    shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Tensors through which numbers keep their size."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        spread = 1.0 if "embed" in name else 1.5 / math.sqrt(max(1, math.prod(shape[1:])))
        value = torch.randn(shape, generator=generator) * (0.2 if len(shape) < 2 else spread)
        is_norm = len(shape) == 1 and name.endswith("weight")
        state[name] = value + 1 if is_norm else value
    return state
