"""ImageReward's network on transformers' BLIP, out of its published weights."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from unified_rl.core.errors import CheckpointError
from unified_rl.rewards.published_weights import Rename, load_renamed

HEAD_WIDTH = 64
"""Of the attention of both towers, in the published model and in smaller ones of its kind."""
HEAD_LAYERS = (1024, 128, 64, 16, 1)
"""Outputs of the linear layers that turn the text's first state into a score."""
HEAD_DROPOUT = (0.2, 0.2, 0.1)
"""After the first three of them, of no effect here; the published names count these layers too."""
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the raw scores on the authors' data; they make the published scores about N(0, 1)."""
MOST_TOKENS = 35
"""That a prompt is padded or cut to."""

_BLOCK = r"blip\.visual_encoder\.blocks\.(\d+)\."
RENAMES = (
    Rename(r"blip\.visual_encoder\.cls_token", ("vision.embeddings.class_embedding",)),
    Rename(r"blip\.visual_encoder\.pos_embed", ("vision.embeddings.position_embedding",)),
    Rename(
        r"blip\.visual_encoder\.patch_embed\.proj\.(weight|bias)",
        (r"vision.embeddings.patch_embedding.\1",),
    ),
    Rename(_BLOCK + r"attn\.(qkv\.\w+)", (r"vision.encoder.layers.\1.self_attn.\2",)),
    Rename(_BLOCK + r"attn\.proj\.(\w+)", (r"vision.encoder.layers.\1.self_attn.projection.\2",)),
    Rename(_BLOCK + r"norm([12]\.\w+)", (r"vision.encoder.layers.\1.layer_norm\2",)),
    Rename(_BLOCK + r"(mlp\.fc[12]\.\w+)", (r"vision.encoder.layers.\1.\2",)),
    Rename(r"blip\.visual_encoder\.norm\.(\w+)", (r"vision.post_layernorm.\1",)),
    Rename(r"blip\.text_encoder\.embeddings\.position_ids", ()),
    Rename(r"blip\.text_encoder\.((?:embeddings|encoder)\..+)", (r"text.\1",)),
    Rename(r"blip\.(?:vision|text)_proj\.(?:weight|bias)", ()),  # of BLIP's contrastive loss
    Rename(r"mlp\.layers\.(\d+\.\w+)", (r"head.\1",)),
)


@dataclass(frozen=True)
class ImageRewardSizes:
    """What the shapes of the published tensors say of the network; the published model's in order.

    Attributes:
        image_size: side of a picture, px: 224.
        patch_size: side of a patch, px: 16.
        vision_width: 1024.
        vision_layers: 24.
        vision_hidden: of the layers' perceptrons, 4096.
        text_width: 768.
        text_layers: 12.
        text_hidden: 3072.
        vocabulary: 30524, BERT's tokens and two of BLIP's.
        positions: most tokens of a text, 512.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_hidden: int
    text_width: int
    text_layers: int
    text_hidden: int
    vocabulary: int
    positions: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], origin: str) -> "ImageRewardSizes":
        """Reads them off.

        Raises:
            CheckpointError: a tensor that would tell is missing or of another kind.
        """
        vision, text = "blip.visual_encoder.", "blip.text_encoder."
        try:
            vocabulary, text_width = tensors[text + "embeddings.word_embeddings.weight"].shape
            positions, _ = tensors[text + "embeddings.position_embeddings.weight"].shape
            text_hidden, _ = tensors[text + "encoder.layer.0.intermediate.dense.weight"].shape
            vision_width, _, patch_size, _ = tensors[vision + "patch_embed.proj.weight"].shape
            vision_hidden, _ = tensors[vision + "blocks.0.mlp.fc1.weight"].shape
            _, patches, _ = tensors[vision + "pos_embed"].shape
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{origin} does not hold ImageReward's weights ({error}); download ImageReward.pt "
                "of the repository THUDM/ImageReward"
            ) from error
        side = math.isqrt(max(patches - 1, 0))
        for name, width in (("vision", vision_width), ("text", text_width)):
            if not width or width % HEAD_WIDTH:
                raise CheckpointError(
                    f"{origin}: a {name} tower of width {width} has no heads of {HEAD_WIDTH}"
                )
        if not patch_size or not side or side * side != patches - 1:
            raise CheckpointError(f"{origin}: {patches} positions of an image are no square and 1")
        return cls(
            image_size=side * patch_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=_layer_count(tensors, vision + "blocks."),
            vision_hidden=vision_hidden,
            text_width=text_width,
            text_layers=_layer_count(tensors, text + "encoder.layer."),
            text_hidden=text_hidden,
            vocabulary=vocabulary,
            positions=positions,
        )


class ImageRewardModel(nn.Module):
    """A picture's patches, a text that attends to them, and a score of the text's first state.

    Source: Xu et al. 2023, ImageReward, and its released code.

    Args:
        sizes: of the two towers.
    """

    def __init__(self, sizes: ImageRewardSizes) -> None:
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        super().__init__()
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=sizes.vision_width,
                intermediate_size=sizes.vision_hidden,
                num_hidden_layers=sizes.vision_layers,
                num_attention_heads=sizes.vision_width // HEAD_WIDTH,
                image_size=sizes.image_size,
                patch_size=sizes.patch_size,
                hidden_act="gelu",
                layer_norm_eps=1e-6,  # transformers' default, 1e-5, is not BLIP's
            )
        )
        self.text = BlipTextModel(
            BlipTextConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=sizes.text_width,
                encoder_hidden_size=sizes.vision_width,
                intermediate_size=sizes.text_hidden,
                num_hidden_layers=sizes.text_layers,
                num_attention_heads=sizes.text_width // HEAD_WIDTH,  # not transformers' default
                max_position_embeddings=sizes.positions,
                hidden_act="gelu",
                layer_norm_eps=1e-12,
                is_decoder=True,  # makes the attention to the picture
                bos_token_id=None,  # nothing is generated
                sep_token_id=None,
            ),
            add_pooling_layer=False,
        )
        widths = (sizes.text_width, *HEAD_LAYERS)
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            layers.append(nn.Linear(inputs, outputs))  # no activation follows
            layers += [nn.Dropout(rate) for rate in HEAD_DROPOUT[index : index + 1]]
        self.head = nn.Sequential(*layers)

    def forward(self, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
        """The published scores, (n,) float32.

        Args:
            ids: (n, t) tokens.
            mask: (n, t), 1 where there is a token.
            pixels: (n, 3, image_size, image_size), normalised.
        """
        patches = self.vision(pixel_values=pixels).last_hidden_state
        states = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], device=patches.device).long(),
            is_decoder=False,  # every token sees all others
        ).last_hidden_state
        return (self.head(states[:, 0].float()).squeeze(-1) - MEAN) / STD


def load_image_reward(
    tensors: Mapping[str, Tensor], origin: str, device: str, dtype: str
) -> ImageRewardModel:
    """The network with published weights; its head stays in float32. See `load_renamed`."""
    sizes = ImageRewardSizes.of(tensors, origin)

    def build() -> ImageRewardModel:
        return ImageRewardModel(sizes)

    return load_renamed(build, tensors, RENAMES, origin, device, dtype, exact="head.")


def _layer_count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for match in map(pattern.match, tensors) if match})
