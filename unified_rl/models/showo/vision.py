"""The eye of Show-o's variant that is shown images through CLIP, not as its own codes."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPVisionEmbeddings


class ClipTower(nn.Module):
    """CLIP's image encoder without its last layer and last norm, which the variant skips.

    Source: models/clip_encoder.py of showlab/Show-o, which follows LLaVA (arXiv 2304.08485).
    Departs: the authors scale the original picture; here it has the size of the codec already, so
        what is finer than that is lost first.

    Args:
        config: sizes, the skipped layer counted.
    """

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # CLIP's
        shorter = CLIPVisionConfig(
            **{**config.to_dict(), "num_hidden_layers": config.num_hidden_layers - 1}
        )
        shorter._attn_implementation = "sdpa"
        self.encoder = CLIPEncoder(shorter)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, H) in [-1, 1] -> (n, positions, C), without the class token."""
        embeds = self.pre_layrnorm(self.embeddings(self.prepare(pixels)))
        return self.encoder(inputs_embeds=embeds).last_hidden_state[:, 1:]

    def prepare(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, H) in [-1, 1] -> pixels of CLIP's size and normalisation, float32."""
        size = (self.image_size, self.image_size)
        scaled = functional.interpolate(pixels.float(), size, mode="bicubic", antialias=True)
        mean, deviation = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        )
        return (scaled.clamp(-1, 1) / 2 + 0.5 - mean) / deviation
