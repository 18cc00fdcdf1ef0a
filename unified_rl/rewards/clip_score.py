"""CLIP score: how well a picture fits its prompt as a whole, by a CLIP model."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Sample
from unified_rl.rewards.local_model import (
    load_judge,
    load_part,
    load_tokenizer,
    require_judge,
)
from unified_rl.rewards.pictures import PictureReward, check_scores


class ClipScoreReward(PictureReward):
    """`scale` times the cosine of a drawing and its prompt, in [-scale, scale]; not clamped.

    Prompts longer than the model reads are cut. Other tasks: outcome 0, no step scores.

    Source: CoRL 3.2, the reward for image generation of the pilot study.
    Departs: the paper gives neither model nor scale. The released code has open_clip's ViT-H-14
    and twice the cosine (`scale=2`), and squeezes pictures to 224 x 224; here the folder's own
    processor prepares them, which crops what is not square.

    Args:
        checkpoint: folder of a CLIP model of the transformers layout, weights as safetensors.
        weight: factor in a hybrid reward.
        scale: factor of the cosine, above 0.
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
        batch_size: int = 32,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel

        super().__init__(weight)
        if not 0 < scale < float("inf"):
            raise ConfigError(f"scale={scale} must be finite and above 0")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        setting = "clip_score.checkpoint"
        folder = require_judge(checkpoint, setting, "clip")
        self._processor = load_part(CLIPImageProcessorPil, folder, setting)
        self._tokenizer = load_tokenizer(folder, setting)
        self._model = load_judge(CLIPModel, folder, setting, device, dtype)
        self.scale = scale
        self.batch_size = batch_size

    def judge(self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]) -> list[float]:
        """Scaled cosines.

        Raises:
            RewardError: one is not finite.
        """
        scores: list[float] = []
        for start in range(0, len(samples), self.batch_size):
            rows = slice(start, start + self.batch_size)
            cosines = self._cosines([s.prompt_text for s in samples[rows]], pictures[rows])
            scores += [self.scale * cosine for cosine in cosines]
        return check_scores(self, scores, samples)

    def self_test(self) -> None:
        """The right picture of two has the higher score, by however little.

        The cosines of a sound model lie close together: a few hundredths part right from wrong.

        Raises:
            RewardError: it has not, or a score is not finite.
        """
        ((sample, good, bad),) = self.golden()
        right, wrong = self.judge([sample, sample], [good.images[0], bad.images[0]])
        if right <= wrong:
            raise RewardError(
                f"ClipScoreReward cannot tell a right picture of {sample.prompt_text!r} from a "
                f"wrong one: {right:.4f} against {wrong:.4f}; check clip_score.checkpoint"
            )

    @torch.no_grad()
    def _cosines(self, prompts: list[str], pictures: Sequence[np.ndarray]) -> list[float]:
        shown = [PillowImage.fromarray(picture) for picture in pictures]
        pixels = self._processor(images=shown, return_tensors="pt")["pixel_values"]
        words = self._tokenizer(
            prompts,
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        device = self._model.device
        found = self._model(
            input_ids=words["input_ids"].to(device),
            attention_mask=words["attention_mask"].to(device),
            pixel_values=pixels.to(device, self._model.dtype),
        )
        # both are of unit length
        return (found.image_embeds.float() * found.text_embeds.float()).sum(-1).tolist()
