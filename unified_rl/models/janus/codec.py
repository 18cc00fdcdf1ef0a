"""How the VQ image tokenizer of a Janus policy is trained; the library can only run it."""

import torch
from torch import Tensor, distributed
from torch.nn import functional
from transformers import JanusVQVAE

from unified_rl.models.codec_training import (
    CodecTerms,
    is_foreground,
    locality,
    patch_kinds,
    reconstruction_error,
)


class CodecObjective(torch.nn.Module):
    """Trains a codec whose codes a language model can predict.

    A convolutional encoder sees the whole image, so one and the same white patch gets dozens of
    codes, by what lies around it, and a language model has to guess among them. The locality term
    makes the code a function of the patch. The codebook follows the latents by EMA and its rows
    keep unit norm, so the library's search equals one by cosine. Its statistics are buffers here,
    where they resume training, and not a part of the saved model.

    Source: VQ-VAE (arXiv 1711.00937), section 3.2 and appendix A.1; normalised codes of ViT-VQGAN
        (arXiv 2110.04627), section 3.2; the locality term is InfoNCE (arXiv 1807.03748, eq. 4).
    Departs: no GAN and no perceptual loss, which flat colours do not need. The positives of
        InfoNCE are the means of identical patches. In EMA each *kind* of patch counts once a
        batch, and in the terms on latents half of the weight goes by kind: else the ground, three
        quarters of all patches, owns the codebook. Dead codes restart from foreground only.

    Args:
        codec: trained in place; its parameters need gradients from here on, save the codebook.
        commitment_weight: 0 or more.
        locality_weight: 0 or more. Acts on patches that recur exactly in a batch, so this term
            is for drawn worlds and stays 0 on photographs.
        locality_temperature: of the cosines in the locality term, above 0.
        foreground_weight: of pixels on or near the foreground; the ground weighs 1.
        foreground_margin: how far "near" reaches, px.
        ground: value of all channels of the ground, in [-1, 1].
        ema_decay: of the codebook, in [0, 1).
        restart_after: steps without a use after which a code is dead.
        restart_cosine: a dead code restarts only from a latent that is less similar than this to
            all living ones; spare codes then stay unused instead of splitting a patch in two.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        codec: JanusVQVAE,
        commitment_weight: float = 0.25,
        locality_weight: float = 1.0,
        locality_temperature: float = 0.1,
        foreground_weight: float = 5.0,
        foreground_margin: int = 1,
        ground: float = 1.0,
        ema_decay: float = 0.97,
        restart_after: int = 75,
        restart_cosine: float = 0.95,
    ) -> None:
        super().__init__()
        for setting, is_valid, demand in (
            (f"{commitment_weight=}", commitment_weight >= 0, "0 or more"),
            (f"{locality_weight=}", locality_weight >= 0, "0 or more"),
            (f"{locality_temperature=}", locality_temperature > 0, "above 0"),
            (f"{foreground_weight=}", foreground_weight > 0, "above 0"),
            (f"{foreground_margin=}", foreground_margin >= 0, "0 or more"),
            (f"{ema_decay=}", 0 <= ema_decay < 1, "in [0, 1)"),
            (f"{restart_after=}", restart_after >= 1, "1 or more"),
        ):
            if not is_valid:
                raise ValueError(f"{setting} must be {demand}")
        self.codec = codec.requires_grad_(True)
        self.codebook.requires_grad_(False)
        self.commitment_weight = commitment_weight
        self.locality_weight = locality_weight
        self.locality_temperature = locality_temperature
        self.foreground_weight = foreground_weight
        self.foreground_margin = foreground_margin
        self.ground = ground
        self.ema_decay = ema_decay
        self.restart_after = restart_after
        self.restart_cosine = restart_cosine
        rows = self.codebook.shape[0]
        self.register_buffer("latent_sums", torch.zeros_like(self.codebook))  # EMA, (K, d)
        # All dead, so that the first step spreads the codebook over its latents.
        self.register_buffer("idle_step_counts", torch.full((rows,), restart_after))  # (K,)

    @property
    def codebook(self) -> Tensor:
        """(K, d), rows of unit norm."""
        return self.codec.quantize.embedding.weight

    def forward(self, pixels: Tensor) -> CodecTerms:
        """Scores (n, 3, H, W) in [-1, 1]; in training mode the codebook takes an EMA step first."""
        latents = self.codec.quant_conv(self.codec.encoder(pixels))  # (n, d, grid, grid)
        latents = functional.normalize(latents, dim=1).permute(0, 2, 3, 1)
        shape, latents = latents.shape, latents.flatten(0, 2)  # (m, d), m = n * positions
        kinds = patch_kinds(pixels, shape[1])
        means = kinds.unit_means(latents)  # (u, d)
        if self.training:
            self._update_codebook(means.detach(), is_foreground(kinds.patches, self.ground).any(-1))
        codes = (latents @ self.codebook.T).argmax(-1)  # (m,)
        rows = self.codebook[codes]
        commitment = (kinds.weights * (1 - (latents * rows).sum(-1))).sum()
        nats = locality(latents, means, kinds, self.locality_temperature)
        quantised = (latents + (rows - latents).detach()).view(shape).permute(0, 3, 1, 2)
        decoded = self.codec.decoder(self.codec.post_quant_conv(quantised))
        reconstruction = reconstruction_error(
            decoded, pixels, self.ground, self.foreground_weight, self.foreground_margin
        )
        loss = reconstruction + self.commitment_weight * commitment + self.locality_weight * nats
        parts = (reconstruction.detach(), commitment.detach(), nats.detach())
        return CodecTerms(loss, *parts, codes.view(len(pixels), -1), decoded.detach())

    @torch.no_grad()
    def _update_codebook(self, means: Tensor, is_foreground: Tensor) -> None:
        """One step of spherical k-means over (u, d) unit rows, then restarts; all ranks agree."""
        means = means.to(self.codebook.dtype)
        if self.latent_sums.any():
            codes = (means @ self.codebook.T).argmax(-1)
            sums = torch.zeros_like(self.latent_sums).index_add_(0, codes, means)
            use_counts = torch.bincount(codes, minlength=len(sums))
            if _is_distributed():
                distributed.all_reduce(sums)
                distributed.all_reduce(use_counts)
            self.latent_sums.lerp_(sums, 1 - self.ema_decay)
            self.idle_step_counts.add_(1).masked_fill_(use_counts > 0, 0)
            living = self.idle_step_counts < self.restart_after
            self.codebook[living] = functional.normalize(self.latent_sums[living], dim=-1)
            means = means[is_foreground]
        self._restart_dead_codes(means)
        if _is_distributed():
            for state in (self.codebook, self.latent_sums, self.idle_step_counts):
                distributed.broadcast(state, src=0)

    def _restart_dead_codes(self, latents: Tensor) -> None:
        """Moves each dead code to the latent that is farthest from all living ones."""
        is_dead = self.idle_step_counts >= self.restart_after
        cosines = latents @ self.codebook[~is_dead].T
        nearest = functional.pad(cosines, (1, 0), value=-1.0).amax(-1)  # also without living ones
        for slot in is_dead.nonzero()[:, 0].tolist():
            if not len(latents) or nearest.min() >= self.restart_cosine:
                break
            latent = latents[nearest.argmin()]
            self.codebook[slot] = latent
            self.latent_sums[slot] = (1 - self.ema_decay) * latent
            self.idle_step_counts[slot] = 0
            nearest = torch.maximum(nearest, latents @ latent)


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
