"""ImageReward: how much people would like a picture as an answer to its prompt."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.rewards.framing import CLIP_MEAN, CLIP_STD, cropped, normalised
from unified_rl.rewards.image_reward_model import MOST_TOKENS, load_image_reward
from unified_rl.rewards.local_model import load_tokenizer
from unified_rl.rewards.picture_fit import PictureFitReward, StoryText
from unified_rl.rewards.published_weights import read_tensors

FILES = ("ImageReward.safetensors", "ImageReward.pt")
"""Where a folder is given, the first of these in it is read."""


class ImageReward(PictureFitReward):
    """The published score of pictures and texts: unbounded, about N(0, 1) on its authors' data.

    Drawings and stories are judged; see `PictureFitReward`. Of a text 35 tokens are read. Pictures
    are cropped to their middle square.

    Source: UnifiedGRPO 3.3 and table 6, the visual reward r_v; Xu et al. 2023, ImageReward.
    Departs: special tokens that are written out in a text, such as [SEP], are read as plain words,
    so that a policy cannot place them.

    Args:
        checkpoint: `ImageReward.pt` of the repository THUDM/ImageReward, or the folder that holds
            it. Tensors of the same names in `ImageReward.safetensors` are taken as well.
        weight: factor in a hybrid reward.
        tokenizer: folder with the tokenizer of google-bert/bert-base-uncased; None: the
            checkpoint's folder.
        story_text: "thought", "prompt" or "both"; see `PictureFitReward`.
        undrawn: score of a picture that is not there. Scores of bad pictures lie below 0, so it
            must lie below them, or not drawing would pay.
        batch_size: pairs in one pass.
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
        tokenizer: str | None = None,
        story_text: StoryText = "thought",
        undrawn: float = -3.0,
        batch_size: int = 32,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import BertTokenizer

        setting = "image_reward.checkpoint"
        super().__init__(weight, story_text, "image_reward")
        if not -math.inf < undrawn < 0:
            raise ConfigError(f"undrawn={undrawn} must be finite and below 0, a middling score")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        path = _weight_file(Path(checkpoint), setting)
        words = "image_reward.tokenizer" if tokenizer else setting
        self._tokenizer = load_tokenizer(Path(tokenizer or path.parent), words, BertTokenizer)
        origin = f"{setting}={path}"
        self._model = load_image_reward(read_tensors(path, setting), origin, device, dtype)
        vocabulary = self._model.text.config.vocab_size
        if len(self._tokenizer) > vocabulary:
            raise CheckpointError(
                f"{words}: {len(self._tokenizer)} tokens are more than the {vocabulary} of "
                f"{path}; use the tokenizer of google-bert/bert-base-uncased"
            )
        self.undrawn = undrawn
        self.batch_size = batch_size

    @torch.no_grad()
    def fits(self, texts: Sequence[str], pictures: Sequence[np.ndarray]) -> list[float]:
        """The published scores."""
        size = self._model.vision.config.image_size
        device, dtype = self._model.vision.device, self._model.vision.dtype
        scores: list[float] = []
        for start in range(0, len(texts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            squares = [cropped(picture, size) for picture in pictures[rows]]
            pixels = normalised(squares, CLIP_MEAN, CLIP_STD).to(device, dtype)
            words = self._tokenizer(
                list(texts[rows]),
                padding="max_length",
                truncation=True,
                max_length=MOST_TOKENS,
                return_tensors="pt",
            ).to(device)
            scores += self._model(words["input_ids"], words["attention_mask"], pixels).tolist()
        return scores


def _weight_file(path: Path, setting: str) -> Path:
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"{setting}={path} holds no {FILES[-1]}; download it from the repository THUDM/ImageReward"
    )
