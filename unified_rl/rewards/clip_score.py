"""CLIP score: how well a picture fits its prompt as a whole, by a CLIP model."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from unified_rl.core.errors import ConfigError
from unified_rl.rewards.clip_model import Clip, Framing
from unified_rl.rewards.picture_fit import PictureFitReward, StoryText


class ClipScoreReward(PictureFitReward):
    """`scale` times the cosine of a picture and a text, in [-scale, scale]; not clamped.

    Drawings and stories are judged; see `PictureFitReward`. Texts longer than the model reads are
    cut.

    Source: CoRL 3.2, the reward for image generation of the pilot study; UnifiedGRPO table 6.
    Departs: the papers give neither model nor scale. The released code of CoRL has open_clip's
    ViT-H-14 and twice the cosine, and squeezes pictures to 224 x 224: `scale=2`,
    `framing="squeeze"` and its file `open_clip_pytorch_model.bin`. Special tokens that are written
    out in a text are read as plain words.

    Args:
        checkpoint: folder of a CLIP model of the transformers layout, weights as safetensors, or a
            file of open_clip's layout; see `Clip`.
        weight: factor in a hybrid reward.
        scale: factor of the cosine, above 0.
        processor: folder of tokenizer and image processor; None: the checkpoint's. See `Clip`.
        framing: "crop" or "squeeze"; see `Clip`.
        story_text: "thought", "prompt" or "both"; see `PictureFitReward`.
        batch_size: pictures in one pass.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is missing, damaged or of another model.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        checkpoint: str,
        weight: float = 1.0,
        scale: float = 1.0,
        processor: str | None = None,
        framing: Framing = "crop",
        story_text: StoryText = "thought",
        batch_size: int = 32,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        super().__init__(weight, story_text, "clip_score")
        if not 0 < scale < float("inf"):
            raise ConfigError(f"scale={scale} must be finite and above 0")
        self._clip = Clip(
            checkpoint, "clip_score.checkpoint", processor, framing, batch_size, device, dtype
        )
        self.scale = scale

    def fits(self, texts: Sequence[str], pictures: Sequence[np.ndarray]) -> list[float]:
        """Scaled cosines."""
        return [self.scale * cosine for cosine in self._clip.cosines(texts, pictures)]
