"""PickScore: which picture people would pick for a prompt, by a CLIP model trained for it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from unified_rl.rewards.clip_model import Clip
from unified_rl.rewards.picture_fit import PictureFitReward, StoryText


class PickScoreReward(PictureFitReward):
    """The model's logit of a text and a picture: exp(logit scale) times their cosine.

    With the published weights the factor is about 100 and scores lie about 20, a point or two
    apart. Drawings and stories are judged; see `PictureFitReward`.

    Source: Kirstain et al. 2023, PickScore. None of our papers uses it.
    Departs: special tokens that are written out in a text are read as plain words.

    Args:
        checkpoint: folder of yuvalkirstain/PickScore_v1, weights as safetensors.
        weight: factor in a hybrid reward.
        processor: folder of tokenizer and image processor of
            laion/CLIP-ViT-H-14-laion2B-s32B-b79K, which the published repository lacks; None: they
            lie in the checkpoint's folder.
        story_text: "thought", "prompt" or "both"; see `PictureFitReward`.
        batch_size: pictures in one pass.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: a file is missing, damaged or of another model.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        checkpoint: str,
        weight: float = 1.0,
        processor: str | None = None,
        story_text: StoryText = "thought",
        batch_size: int = 32,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        super().__init__(weight, story_text, "pick_score")
        setting = "pick_score.checkpoint"
        self._clip = Clip(checkpoint, setting, processor, "crop", batch_size, device, dtype)

    def fits(self, texts: Sequence[str], pictures: Sequence[np.ndarray]) -> list[float]:
        """Logits."""
        return [self._clip.logit_scale * cosine for cosine in self._clip.cosines(texts, pictures)]
