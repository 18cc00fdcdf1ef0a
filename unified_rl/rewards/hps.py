"""HPSv2: which picture people prefer for a prompt, by open_clip's ViT-H-14 trained for it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from unified_rl.core.errors import CheckpointError
from unified_rl.rewards.clip_model import Clip
from unified_rl.rewards.picture_fit import PictureFitReward, StoryText


class HpsReward(PictureFitReward):
    """The cosine of a text and a picture under HPSv2's weights, in [-1, 1].

    With the published weights scores lie about 0.2 to 0.35. Drawings and stories are judged; see
    `PictureFitReward`. open_clip need not be installed.

    Source: Wu et al. 2023, Human Preference Score v2. None of our papers uses it.
    Departs: the released code crops tensors, this one pictures, which rounds otherwise; it also
    lets the device choose its precision, where here `dtype` does. Special tokens that are written
    out in a text are read as plain words.

    Args:
        checkpoint: `HPS_v2_compressed.pt` or `HPS_v2.1_compressed.pt` of xswu/HPSv2.
        weight: factor in a hybrid reward.
        processor: folder of laion/CLIP-ViT-H-14-laion2B-s32B-b79K with its `config.json`,
            tokenizer and image processor; of its weights none is read. None: they lie in the
            checkpoint's folder.
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
        super().__init__(weight, story_text, "hps")
        setting = "hps.checkpoint"
        self._clip = Clip(checkpoint, setting, processor, "crop", batch_size, device, dtype)
        config = self._clip.model.config
        for part in (config.text_config, config.vision_config):
            if part.hidden_act != "gelu":  # of ViT-H-14; OpenAI's models have the other one
                raise CheckpointError(
                    f"hps.processor has a config.json with hidden_act={part.hidden_act!r}, where "
                    "HPSv2 needs 'gelu'; use that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
                )

    def fits(self, texts: Sequence[str], pictures: Sequence[np.ndarray]) -> list[float]:
        """Cosines."""
        return self._clip.cosines(texts, pictures)
