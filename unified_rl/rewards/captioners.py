"""Who describes pictures: BLIP, the policy itself, or the micro-world's own eyes."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Literal

import numpy as np
import torch
from PIL import Image as PillowImage

from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.decoding.modes import evaluation_mode
from unified_rl.microworld.language import NUMBERS, plural
from unified_rl.microworld.scene import RELATIONS, Placed, relation_holds
from unified_rl.microworld.verify import detect
from unified_rl.rewards.answers import split_reasoning
from unified_rl.rewards.grammar import words_of
from unified_rl.rewards.local_model import (
    load_judge,
    load_part,
    load_tokenizer,
    require_judge,
)
from unified_rl.rewards.own_policy import OwnPolicy
from unified_rl.rewards.pictures import resized


class BlipCaptioner:
    """Captions by a BLIP model, each word the most likely one.

    Source: CoRL 3.3.1; the released code has blip-image-captioning-base and 50 tokens.

    Args:
        checkpoint: folder of the published layout, weights as safetensors.
        max_new_tokens: limit of a caption.
        batch_size: pictures in one pass.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is missing, damaged or of another model.
        ConfigError: a setting out of its range.
    """

    sees_micro_world = False

    def __init__(
        self,
        checkpoint: str,
        max_new_tokens: int = 50,
        batch_size: int = 16,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import BlipForConditionalGeneration, BlipImageProcessorPil

        _require_positive(max_new_tokens=max_new_tokens, batch_size=batch_size)
        setting = "captioner.checkpoint"
        folder = require_judge(checkpoint, setting, "blip")
        self._processor = load_part(BlipImageProcessorPil, folder, setting)
        self._tokenizer = load_tokenizer(folder, setting)
        self._model = load_judge(BlipForConditionalGeneration, folder, setting, device, dtype)
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """One caption a picture, of any size."""
        captions: list[str] = []
        for some in _batches(pictures, self.batch_size):
            shown = [PillowImage.fromarray(picture) for picture in some]
            pixels = self._processor(images=shown, return_tensors="pt")["pixel_values"]
            ids = self._model.generate(
                pixel_values=pixels.to(self._model.device, self._model.dtype),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
            )
            # the first is the token that begins every caption, which not every tokenizer hides
            captions += self._tokenizer.batch_decode(ids[:, 1:], skip_special_tokens=True)
        return [caption.strip() for caption in captions]


class PolicyCaptioner:
    """The policy describes the pictures itself, greedily, as the answer to a question.

    Source: none; CoRL captions with BLIP. It is the self-reward that a unified model affords.

    Args:
        question: what each picture is shown with.
        judge: "live" or "frozen", see `OwnPolicy`.
        max_text_tokens: limit of a caption.
        batch_size: pictures in one pass.

    Raises:
        ConfigError: a setting out of its range.
    """

    sees_micro_world = False

    def __init__(
        self,
        question: str,
        judge: Literal["live", "frozen"] = "live",
        max_text_tokens: int = 32,
        batch_size: int = 64,
    ) -> None:
        _require_positive(batch_size=batch_size, max_text_tokens=max_text_tokens)
        if not question.strip():
            raise ConfigError("question is empty; ask for a description of the picture")
        self._own = OwnPolicy(judge)
        self.question = question
        self.behaviour = Behaviour(text=Sampling(temperature=0), max_text_tokens=max_text_tokens)
        self.batch_size = batch_size

    def bind(self, policy: Policy, start: Callable[[], Policy]) -> None:
        """See `OwnPolicy`."""
        self._own.bind(policy, start)

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """One caption a picture, of any size; of a reasoned answer, the answer.

        The policy is shown pictures of its own size: drawings have it, the golden ones of a
        self-test are those of the micro-world.

        Raises:
            RewardError: no policy is bound yet.
        """
        policy = self._own.policy
        with evaluation_mode(policy):
            return [
                _caption("".join(completion.texts))
                for some in _batches(pictures, self.batch_size)
                for completion in self._answers(policy, some)
            ]

    def _answers(self, policy: Policy, pictures: Sequence[np.ndarray]) -> tuple:
        shown = [resized(picture, policy.capabilities.image_size) for picture in pictures]
        samples = [
            Sample(f"caption {row}", Task.UNDERSTANDING, (Image(pixels), Text(self.question)))
            for row, pixels in enumerate(shown)
        ]
        generator = torch.Generator(next(policy.parameters()).device)
        return policy.sample(samples, self.behaviour, generator)[1]


class WorldCaptioner:
    """What the micro-world's verifier sees, in the micro-world's words.

    An oracle that stands in for BLIP: it reads pixels by rule and never errs on a picture that the
    verifier can read. Objects of one shape are said together, "three circles", with their colour
    if they share it. The relation of two shapes is said if it holds between all their objects.
    A picture in which nothing is recognised has an empty caption.
    """

    sees_micro_world = True

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """One caption a picture, such as "a red circle left of a blue square".

        Raises:
            RewardError: a picture of another size than the micro-world's.
        """
        try:
            return [_described(detect(picture)) for picture in pictures]
        except ValueError as error:
            raise RewardError(
                f"WorldCaptioner cannot read an {error}; it needs a policy that draws micro-world "
                "images, others need BlipCaptioner or PolicyCaptioner"
            ) from error


def _described(objects: tuple[Placed, ...]) -> str:
    groups: dict[str, list[Placed]] = {}
    for placed in objects:
        groups.setdefault(placed.shape, []).append(placed)
    nouns = [_noun(group) for group in groups.values()]
    if len(nouns) == 2:
        first, last = groups.values()
        for kind in RELATIONS:
            if all(relation_holds(a, kind, b) for a, b in product(first, last)):
                return f"{nouns[0]} {kind} {nouns[1]}"
    return " and ".join(nouns)


def _noun(group: list[Placed]) -> str:
    colors = {placed.color for placed in group}
    words = list(colors) if len(colors) == 1 else []
    count = len(group)
    if count == 1:
        return " ".join(["a", *words, group[0].shape])
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return " ".join([number, *words, plural(group[0].shape)])


def _caption(text: str) -> str:
    parts = split_reasoning(text)
    return words_of(text if parts is None else parts.answer)


def _batches(pictures: Sequence[np.ndarray], size: int) -> Iterator[Sequence[np.ndarray]]:
    return (pictures[start : start + size] for start in range(0, len(pictures), size))


def _require_positive(**counts: int) -> None:
    for setting, value in counts.items():
        if value < 1:
            raise ConfigError(f"{setting}={value} must be at least 1")
