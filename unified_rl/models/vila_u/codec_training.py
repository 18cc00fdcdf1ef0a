"""How the residual-quantised image tokenizer of a VILA-U policy is trained."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from unified_rl.models.codec_training import (
    CodecTerms,
    is_foreground,
    locality,
    patch_kinds,
    reconstruction_error,
)
from unified_rl.models.vila_u.codec import RqCodec


class RqObjective(nn.Module):
    """Trains a codec whose codes a language model can predict.

    Codebooks follow the latents by EMA, each depth what the depths before it left over. As in the
    codec of Janus, latents of identical patches are drawn together, and each *kind* of patch counts
    once a batch.

    Source: RQ-VAE (arXiv 2203.01941), section 3.1 and eq. 6 (commitment at every depth).
    Departs: no GAN, no perceptual and no text-alignment loss; see `codec_training.locality`.

    Args:
        codec: trained in place; its codebooks get no gradients.
        commitment_weight: 0 or more; at .25 a patch has two codes now and then, at 10 it has one.
        locality_weight: 0 or more. Acts on patches that recur exactly in a batch, so this term
            is for drawn worlds and stays 0 on photographs.
        locality_temperature: of the cosines in the locality term, above 0.
        foreground_weight: of pixels on or near the foreground; the ground weighs 1.
        foreground_margin: how far "near" reaches, px.
        ground: value of all channels of the ground, in [-1, 1].
        ema_decay: of the codebooks, in [0, 1).
        restart_after: steps without a use after which a code is dead.
        restart_distance: a dead code restarts only from a residual that is farther than this
            from all living codes, in units of the root mean square norm of the latents.
    """

    def __init__(
        self,
        codec: RqCodec,
        commitment_weight: float = 10.0,
        locality_weight: float = 1.0,
        locality_temperature: float = 0.1,
        foreground_weight: float = 5.0,
        foreground_margin: int = 1,
        ground: float = 1.0,
        ema_decay: float = 0.97,
        restart_after: int = 75,
        restart_distance: float = 0.05,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise ValueError(f"{ema_decay=} must be in [0, 1)")
        self.codec = codec.requires_grad_(True)
        codec.quantizer.requires_grad_(False)
        self.commitment_weight = commitment_weight
        self.locality_weight = locality_weight
        self.locality_temperature = locality_temperature
        self.foreground_weight = foreground_weight
        self.foreground_margin = foreground_margin
        self.ground = ground
        self.ema_decay = ema_decay
        self.restart_after = restart_after
        self.restart_distance = restart_distance
        books = codec.quantizer.codebooks
        shape = len(books), *books[0].weight[:-1].shape
        self.register_buffer("sums", torch.zeros(shape))  # EMA of the latents of each code
        self.register_buffer("sizes", torch.zeros(shape[:2]))  # EMA of their number
        self.register_buffer("idle_step_counts", torch.full(shape[:2], restart_after))

    def forward(self, pixels: Tensor) -> CodecTerms:
        """Scores (n, 3, H, W) in [-1, 1]; in training mode the codebooks take an EMA step first."""
        latents = self.codec.latents(pixels)  # (n, positions, C)
        grid = round(latents.shape[1] ** 0.5)
        kinds, flat = patch_kinds(pixels, grid), latents.flatten(0, 1)  # (m, C)
        if self.training:
            total = flat.new_zeros(len(kinds.sizes), flat.shape[1]).index_add(0, kinds.of, flat)
            foreground = is_foreground(kinds.patches, self.ground).any(-1)
            self._update(total.detach() / kinds.sizes[:, None], foreground)
        codes = self.codec.quantizer.codes(flat)  # (m, D)
        commitment = (kinds.weights * self.codec.quantizer.distances(flat, codes)).sum()
        unit = functional.normalize(flat, dim=-1)
        nats = locality(unit, kinds.unit_means(unit), kinds, self.locality_temperature)
        quantised = self.codec.quantizer.straight_through(flat)
        decoded = self.codec.decode_vectors(quantised.view(latents.shape))
        reconstruction = reconstruction_error(
            decoded, pixels, self.ground, self.foreground_weight, self.foreground_margin
        )
        loss = reconstruction + self.commitment_weight * commitment + self.locality_weight * nats
        parts = (reconstruction.detach(), commitment.detach(), nats.detach())
        return CodecTerms(loss, *parts, codes.view(*latents.shape[:2], -1), decoded.detach())

    @torch.no_grad()
    def _update(self, means: Tensor, is_foreground: Tensor) -> None:
        """One step of k-means a depth over (u, C) mean latents, then restarts."""
        quantizer, residual = self.codec.quantizer, means
        reach = self.restart_distance * means.square().sum(1).mean().sqrt()
        for depth in range(quantizer.depth):
            book = min(depth, len(quantizer.codebooks) - 1)
            rows = quantizer.codebooks[book].weight[:-1]
            if bool(self.sizes[book].any()):
                codes = quantizer.codebooks[book].nearest(residual)
                sums = torch.zeros_like(rows).index_add_(0, codes, residual)
                counts = torch.bincount(codes, minlength=len(rows))
                self.sums[book].lerp_(sums, 1 - self.ema_decay)
                self.sizes[book].lerp_(counts.float(), 1 - self.ema_decay)
                self.idle_step_counts[book].add_(1).masked_fill_(counts > 0, 0)
                living = self.idle_step_counts[book] < self.restart_after
                means_of = self.sums[book] / self.sizes[book].clamp_min(1e-6)[:, None]
                rows[living] = means_of[living]
            self._restart(book, residual[is_foreground], reach)
            residual = residual - rows[quantizer.codebooks[book].nearest(residual)]

    def _restart(self, book: int, residuals: Tensor, reach: Tensor) -> None:
        """Moves each dead code to the residual that is farthest from all living ones."""
        rows = self.codec.quantizer.codebooks[book].weight[:-1]
        is_dead = self.idle_step_counts[book] >= self.restart_after
        living = rows[~is_dead]
        nearest = residuals.new_full((len(residuals),), torch.inf)
        if len(living):
            nearest = torch.cdist(residuals, living).amin(1)
        for slot in is_dead.nonzero()[:, 0].tolist():
            if not len(residuals) or nearest.max() <= reach:
                rows[slot] = 1e4  # out of every search until it restarts
                continue
            chosen = residuals[nearest.argmax()]
            rows[slot] = chosen
            self.sums[book][slot] = (1 - self.ema_decay) * chosen
            self.sizes[book][slot] = 1 - self.ema_decay
            self.idle_step_counts[book][slot] = 0
            nearest = torch.minimum(nearest, (residuals - chosen).square().sum(1).sqrt())
