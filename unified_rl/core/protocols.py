"""The two contracts of the house: what a policy and what a reward must do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.sample import Completion, DrawnImage, Image, Sample
from unified_rl.core.trajectory import RewardScores, Rollout, Trajectory


@dataclass(frozen=True)
class Capabilities:
    """What a family declares of itself, so that no stage has to know which family it serves.

    Attributes:
        likelihood: how an image's probability comes about.
        shared_image_tokens: understanding sees the very tokens that generation emits, so that
            gradients from an answer can reach the drawing.
        image_size: side of the square images, in pixels.
        image_positions: positions one image takes in a trajectory; always exactly this many.
        code_depth: D, codes a position.
        codebook_size: number of codes.
        image_fit: how the authors make an image of another shape square: cut ("crop"), filled up
            with grey ("pad") or squeezed ("stretch").
    """

    likelihood: Literal["next_token", "residual_depth", "mask_predict"]
    shared_image_tokens: bool
    image_size: int
    image_positions: int
    code_depth: int
    codebook_size: int
    image_fit: Literal["crop", "pad", "stretch"] = "crop"


@runtime_checkable
class Policy(Protocol):
    """A unified model: draws interleaved completions and scores them again, exactly.

    Implementations are `torch.nn.Module`s. Two invariants bind `sample` and `logprobs`: replaying a
    trajectory with unchanged weights gives the recorded log-probabilities, and a row's values do
    not depend on the other rows of its batch.
    """

    capabilities: Capabilities

    def sample(
        self, samples: Sequence[Sample], behaviour: Behaviour, generator: torch.Generator
    ) -> tuple[Trajectory, tuple[Completion, ...]]:
        """Draws one completion for each sample."""
        ...

    def encode(
        self,
        samples: Sequence[Sample],
        generator: torch.Generator,
        unconditional: Tensor | None = None,
    ) -> Trajectory:
        """The gold targets as a trajectory; its recorded log-probs are zero.

        Args:
            samples: each with a non-empty target.
            generator: for families that draw masks.
            unconditional: (B,) bool, True where the prompt is hidden from the policy, which is
                how the unconditional twin of guidance learns.
        """
        ...

    def drawn_images(self, trajectory: Trajectory) -> tuple[DrawnImage, ...]:
        """The one image of each text-to-image row, as the codes it was drawn with."""
        ...

    def own_pictures(
        self, trajectory: Trajectory, completions: Sequence[Completion]
    ) -> tuple[Image | DrawnImage, ...]:
        """What a question about the policy's own drawings shows, one a text-to-image row.

        The codes where the family sees the very codes that it draws with, so that nothing is
        encoded again; else the pixels.
        """
        ...

    def logprobs(self, trajectory: Trajectory) -> Tensor:
        """(B, L, D) float32 log-probability of each action under the trajectory's behaviour.

        Differentiable; 0 where `action_mask` is False.
        """
        ...

    def save(self, folder: Path) -> None:
        """Writes weights, configuration and tokenizer into an existing folder."""
        ...


class TokenStates(NamedTuple):
    """Hidden states of one prompt that shows an image, without any padding.

    Attributes:
        text: (L_t, width), the tokens of the prompt's own words; one that a word shares with the
            layout is its own.
        image: (L_i, width), the positions of the image, without its borders.
        behind: (n, width), all behind the image up to the end of the prompt: its border, the
            prompt's words where they follow the image, and the layout's.
    """

    text: Tensor
    image: Tensor
    behind: Tensor


@runtime_checkable
class Represents(Protocol):
    """What a policy may offer besides: how it represents the words and the image of a prompt."""

    def states(
        self, samples: Sequence[Sample], layer: int | Literal["embeddings"]
    ) -> tuple[TokenStates, ...]:
        """Hidden states of each sample's prompt; those of one sample owe nothing to the others.

        Args:
            samples: questions about an image, each prompt an image and a text.
            layer: -1 the last states, behind the final norm; k from 1 the output of the k-th
                block; "embeddings" what the language model is given.

        Raises:
            ConfigError: there is no such layer, or a prompt is longer than the context.
        """
        ...


@runtime_checkable
class DrawsSoftly(Protocol):
    """What a policy may offer besides: a way for gradients through the images that it draws."""

    def soft_images(
        self, drawn: Trajectory, temperature: float, seeds: Tensor, codes: Tensor | None = None
    ) -> Tensor:
        """The one image of each row, straight through: hard in value, soft in gradient.

        The drawn tokens are read again as in training (teacher forcing, or a random mask over
        them), and the logits found there are relaxed by Gumbel-softmax.

        Source: UniRL 3.3 and A.2.

        Args:
            drawn: text-to-image rows.
            temperature: of the softmax, above 0.
            seeds: (B,) int64, on the CPU; a row's randomness depends on its seed alone.
            codes: (B, N, D) that the image is to have in value, as of `redraw`; None keeps those
                that were drawn.

        Returns:
            (B, P, width), what stands at the P positions of a shown image.
        """
        ...

    def redraw(self, drawn: Trajectory, seeds: Tensor) -> tuple[Tensor, tuple[Completion, ...]]:
        """Other codes from the very logits that `soft_images` relaxes, (B, N, D), and the images.

        Args:
            drawn: text-to-image rows.
            seeds: as of `soft_images`, whose masks these are too.
        """
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores a rollout; higher is better. One file, one class, one YAML."""

    weight: float

    def __call__(self, rollout: Rollout) -> RewardScores:
        """One score a completion and, where it can, one a modality step."""
        ...

    def self_test(self) -> None:
        """Tells a golden good answer from a bad one.

        Raises:
            RewardError: it cannot.
        """
        ...
