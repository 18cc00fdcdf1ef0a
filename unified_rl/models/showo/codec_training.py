"""How the image tokenizer of a Show-o policy is trained from nothing."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from unified_rl.models.codec_training import (
    CodecTerms,
    PatchKinds,
    locality,
    patch_kinds,
    reconstruction_error,
)
from unified_rl.models.showo.codec import LfqCodec


class LfqObjective(torch.nn.Module):
    """Trains a codec without a search, whose codes a language model can predict.

    The signs of a latent near 0 change with whatever lies around the patch. So all patches that
    are identical commit to one code, the signs of their mean, and the entropy term and the
    locality term keep the codes of different patches apart. On images in which no patch recurs
    the means are the latents, locality is 0, and the published terms remain.

    Source: MAGVIT-v2 (arXiv 2310.05737), section 3.1, for quantisation and the entropy penalty;
        commitment of VQ-VAE (arXiv 1711.00937), eq. 3; locality is InfoNCE (arXiv 1807.03748).
    Departs: no GAN and no perceptual loss, which flat colours do not need. Commitment is to the
        code of the kind of patch. The entropies are those of kinds, not of patches, or the ground,
        three quarters of all patches, would have to spread over many codes; and they are taken
        over the whole codebook, not bit by bit, since bits can be balanced while kinds share codes.

    Args:
        codec: trained in place; all its parameters need gradients from here on.
        commitment_weight: 0 or more. The less, the more codes one and the same patch gets.
        entropy_weight: 0 or more. At 0 some kinds share a code. Holds kinds x 2^bits numbers.
        locality_weight: 0 or more. Acts on patches that recur exactly in a batch.
        locality_temperature: of the cosines in the locality term, above 0.
        foreground_weight: of pixels on or near the foreground, above 0; the ground weighs 1.
        foreground_margin: how far "near" reaches, px.
        ground: value of all channels of the ground, in [-1, 1].

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        codec: LfqCodec,
        commitment_weight: float = 1.0,
        entropy_weight: float = 0.5,
        locality_weight: float = 1.0,
        locality_temperature: float = 0.1,
        foreground_weight: float = 5.0,
        foreground_margin: int = 1,
        ground: float = 1.0,
    ) -> None:
        super().__init__()
        for setting, is_valid, demand in (
            (f"{commitment_weight=}", commitment_weight >= 0, "0 or more"),
            (f"{entropy_weight=}", entropy_weight >= 0, "0 or more"),
            (f"{locality_weight=}", locality_weight >= 0, "0 or more"),
            (f"{locality_temperature=}", locality_temperature > 0, "above 0"),
            (f"{foreground_weight=}", foreground_weight > 0, "above 0"),
            (f"{foreground_margin=}", foreground_margin >= 0, "0 or more"),
        ):
            if not is_valid:
                raise ValueError(f"{setting} must be {demand}")
        self.codec = codec.requires_grad_(True)
        self.commitment_weight = commitment_weight
        self.entropy_weight = entropy_weight
        self.locality_weight = locality_weight
        self.locality_temperature = locality_temperature
        self.foreground_weight = foreground_weight
        self.foreground_margin = foreground_margin
        self.ground = ground

    def forward(self, pixels: Tensor) -> CodecTerms:
        """Scores (n, 3, H, W) in [-1, 1], square."""
        grid = self.codec.latents(pixels)  # (n, bits, h, w)
        latents = grid.permute(0, 2, 3, 1).flatten(0, 2)  # (m, bits), m = n * h * w
        kinds = patch_kinds(pixels, grid.shape[2])
        means = _kind_means(latents, kinds)  # (u, bits)
        commitment = self._commitment(latents, means, kinds)
        directions = functional.normalize(latents, dim=-1)
        nats = locality(directions, kinds.unit_means(directions), kinds, self.locality_temperature)
        decoded = self.codec.decode_vectors(self.codec.straight_through(grid))
        reconstruction = reconstruction_error(
            decoded, pixels, self.ground, self.foreground_weight, self.foreground_margin
        )
        loss = (
            reconstruction
            + self.commitment_weight * commitment
            + self.entropy_weight * entropy_penalty(means, self.codec.quantize.embedding)
            + self.locality_weight * nats
        )
        parts = (reconstruction.detach(), commitment.detach(), nats.detach())
        return CodecTerms(loss, *parts, self.codec.codes(grid), decoded.detach())

    def _commitment(self, latents: Tensor, means: Tensor, kinds: PatchKinds) -> Tensor:
        """Weighted mean square of the distance to the signs of the own kind, per channel."""
        signs = torch.where(means > 0, 1.0, -1.0)[kinds.of]  # (m, bits)
        return (kinds.weights * (latents - signs).square().mean(-1)).sum()


def entropy_penalty(latents: Tensor, table: Tensor) -> Tensor:
    """How unsure single codes are minus how varied all are; least when all are sure and differ.

    Source: MAGVIT-v2 (arXiv 2310.05737), entropy penalty, over the whole codebook.

    Args:
        latents: (u, bits).
        table: (K, bits), the vectors of the codes.

    Returns:
        () in [-log(min(u, K)), 0], nats.
    """
    # Squared distances at temperature 1: |latent - row|^2 = -2 latent . row + what all rows share.
    logs = (2 * latents @ table.T).log_softmax(-1)  # (u, K)
    mean_logs = logs.logsumexp(0) - math.log(len(latents))  # (K,) of the mean distribution
    return (mean_logs.exp() * mean_logs).sum() - (logs.exp() * logs).sum(-1).mean()


def _kind_means(latents: Tensor, kinds: PatchKinds) -> Tensor:
    """(m, bits) latents -> (u, bits): the mean of each kind."""
    sums = latents.new_zeros(len(kinds.sizes), latents.shape[1]).index_add(0, kinds.of, latents)
    return sums / kinds.sizes[:, None]
