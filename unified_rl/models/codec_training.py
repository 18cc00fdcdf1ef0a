"""What training an image codec takes in every family: terms, kinds of patches, locality."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

FOREGROUND_DISTANCE = 0.1
"""Least distance of one channel to the ground's that makes a pixel foreground; ink has > 1."""


class CodecTerms(NamedTuple):
    """The loss of a batch and its parts before their weights; only `loss` has a gradient.

    Attributes:
        loss: () to be minimised.
        reconstruction: () foreground-weighted mean of absolute plus squared error, per channel.
        commitment: () how far latents are from their codes, in the family's own measure.
        locality: () nats by which latents are mistaken for those of other patches.
        codes: (n, positions) or (n, positions, D), what the codec gives for these weights.
        decoded: (n, 3, H, W) in about [-1, 1], what it decodes from `codes`.
    """

    loss: Tensor
    reconstruction: Tensor
    commitment: Tensor
    locality: Tensor
    codes: Tensor
    decoded: Tensor


class PatchKinds(NamedTuple):
    """The distinct raw patches of a batch; `of` (m,) says which of the u kinds each patch is."""

    patches: Tensor
    of: Tensor
    sizes: Tensor

    @property
    def weights(self) -> Tensor:
        """(m,) summing to 1: half by patch, half by kind, so that the ground does not own all."""
        return 0.5 / len(self.of) + 0.5 / (self.sizes * len(self.sizes))[self.of]

    def unit_means(self, latents: Tensor) -> Tensor:
        """(m, d) latents -> (u, d): the direction of each kind's mean."""
        means = latents.new_zeros(len(self.sizes), latents.shape[1])
        return functional.normalize(means.index_add(0, self.of, latents), dim=-1)


def patch_kinds(pixels: Tensor, grid: int) -> PatchKinds:
    """Cuts (n, 3, H, W) into grid x grid patches and finds the identical ones."""
    patches = pixels.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # (n, 3, grid, p, grid, q)
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)  # (m, 3 * p * q)
    return PatchKinds(*patches.unique(dim=0, return_inverse=True, return_counts=True))


def locality(latents: Tensor, means: Tensor, kinds: PatchKinds, temperature: float) -> Tensor:
    """Cross-entropy of naming, among the kinds that recur, the one a latent comes from.

    A pull towards the own mean alone is met by shrinking all latents into one cone. Acts on patches
    that recur exactly in a batch, so it is for drawn worlds.

    Source: InfoNCE (arXiv 1807.03748, eq. 4).
    Departs: the positives are the means of identical patches.

    Args:
        latents: (m, d), rows of unit norm.
        means: (u, d), rows of unit norm.
        kinds: which latent is of which kind.
        temperature: of the cosines, above 0.
    """
    recurs = kinds.sizes > 1
    members = recurs[kinds.of]
    targets = (recurs.cumsum(0) - 1)[kinds.of[members]]
    logits = latents[members] @ means[recurs].T / temperature
    nats = functional.cross_entropy(logits, targets, reduction="none")
    return (kinds.weights[members] * nats).sum()


def is_foreground(values: Tensor, ground: float) -> Tensor:
    """Where values in [-1, 1] differ from the ground's."""
    return (values - ground).abs() > FOREGROUND_DISTANCE


def reconstruction_error(
    decoded: Tensor, pixels: Tensor, ground: float, foreground_weight: float, margin: int
) -> Tensor:
    """Mean of absolute plus squared error in which pixels on or near the foreground weigh more.

    Args:
        decoded: (n, 3, H, W).
        pixels: (n, 3, H, W) in [-1, 1].
        ground: value of all channels of the ground, in [-1, 1].
        foreground_weight: of pixels on or near the foreground; the ground weighs 1.
        margin: how far "near" reaches, px.
    """
    foreground = is_foreground(pixels, ground).any(1, keepdim=True).to(pixels.dtype)
    near = functional.max_pool2d(foreground, 2 * margin + 1, 1, margin)  # (n, 1, H, W)
    weights = 1 + (foreground_weight - 1) * near
    error = decoded - pixels
    return (weights * (error.abs() + error.square())).mean() / weights.mean()
