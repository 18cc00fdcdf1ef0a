"""Training of the VQ image tokenizer of a Janus policy; the library can only run it."""

from typing import NamedTuple

import torch
from torch import Tensor, distributed
from torch.nn import functional
from transformers import JanusVQVAE


class CodecTerms(NamedTuple):
    """The loss of a batch and its parts, before their weights.

    Attributes:
        loss: () to be minimised; the only one with a gradient.
        reconstruction: () foreground-weighted absolute plus squared error, pixels in [-1, 1].
        commitment: () one minus the cosine between latents and their codes.
        locality: () one minus the cosine between latents and the mean of their identical patches.
        used_count: () codes that the batch uses.
    """

    loss: Tensor
    reconstruction: Tensor
    commitment: Tensor
    locality: Tensor
    used_count: Tensor


class CodecObjective(torch.nn.Module):
    def __init__(
        self,
        codec: JanusVQVAE,
        commitment_weight: float = 0.25,
        locality_weight: float = 1.0,
        foreground_weight: float = 5.0,
        ground: float = 1.0,
        ema_decay: float = 0.97,
        shared: bool = True,
        balanced: bool = True,
        dead_below: float = 0.1,
        nearness: float = 0.99,
        push: float = 0.0,
        push_margin: float = 0.5,
        nce: float = 0.0,
        tau: float = 0.1,
    ) -> None:
        super().__init__()
        self.__dict__.update(
            commitment_weight=commitment_weight, locality_weight=locality_weight,
            foreground_weight=foreground_weight, ground=ground, ema_decay=ema_decay,
            shared=shared, balanced=balanced, dead_below=dead_below, nearness=nearness,
            push=push, nce=nce, tau=tau, push_margin=push_margin,
        )
        self.codec = codec.requires_grad_(True)
        self.codebook.requires_grad_(False)
        self.register_buffer("counts", torch.zeros(self.codebook.shape[0]))
        self.register_buffer("sums", torch.zeros_like(self.codebook))
        self.restarts = 0

    @property
    def codebook(self) -> Tensor:
        return self.codec.quantize.embedding.weight

    def forward(self, pixels: Tensor) -> CodecTerms:
        hidden = self.codec.quant_conv(self.codec.encoder(pixels))
        latents = functional.normalize(hidden, dim=1)
        n, d, g, _ = latents.shape
        flat = latents.permute(0, 2, 3, 1).reshape(-1, d)
        patches, groups, sizes = self.group(pixels, g)
        u = len(sizes)
        means = functional.normalize(
            torch.zeros(u, d).index_add(0, groups, flat), dim=-1
        )
        is_fg = (patches != self.ground).any(-1)
        if self.training:
            with torch.no_grad():
                if self.balanced:
                    self.update(means, is_fg)
                else:
                    self.update(flat, is_fg[groups])
        if self.shared:
            codes = (means @ self.codebook.T).argmax(-1)[groups]
        else:
            codes = (flat @ self.codebook.T).argmax(-1)
        chosen = self.codebook[codes]
        w = 1.0 / sizes[groups] / u if self.balanced else torch.full((len(flat),), 1 / len(flat))
        commitment = (w * (1 - (flat * chosen).sum(-1))).sum()
        locality = (w * (1 - (flat * means.detach()[groups]).sum(-1))).sum()
        quantised = flat + (chosen - flat).detach()
        recon = self.codec.decoder(
            self.codec.post_quant_conv(quantised.view(n, g, g, d).permute(0, 3, 1, 2))
        )
        fg = ((pixels - self.ground).abs().amax(1, keepdim=True) > 0.1).float()
        fg = functional.max_pool2d(fg, 3, 1, 1)
        weight = 1 + (self.foreground_weight - 1) * fg
        err = recon - pixels
        reconstruction = (weight * (err.abs() + err.square())).mean() / weight.mean()
        loss = (
            reconstruction
            + self.commitment_weight * commitment
            + self.locality_weight * locality
        )
        if self.push:
            sim = means @ means.T
            sim = sim - 2 * torch.eye(u)
            loss = loss + self.push * (sim - self.push_margin).clamp(min=0).sum() / u
        if self.nce:
            ce = functional.cross_entropy(flat @ means.T / self.tau, groups, reduction="none")
            locality = (w * ce).sum()
            loss = loss + self.nce * locality
        return CodecTerms(loss, reconstruction.detach(), commitment.detach(), locality.detach(), codes.unique().numel())

    def group(self, pixels, g):
        n, c, h, w = pixels.shape
        p = h // g
        raw = pixels.view(n, c, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(n * g * g, -1)
        patches, groups, sizes = raw.unique(dim=0, return_inverse=True, return_counts=True)
        return patches, groups, sizes

    def update(self, latents, candidates):
        K = len(self.counts)
        codes = (latents @ self.codebook.T).argmax(-1)
        counts = torch.bincount(codes, minlength=K).float()
        sums = torch.zeros_like(self.sums).index_add_(0, codes, latents)
        if self.counts.sum() == 0:
            counts.zero_(); sums.zero_()
        self.counts.lerp_(counts, 1 - self.ema_decay)
        self.sums.lerp_(sums, 1 - self.ema_decay)
        dead = self.counts < self.dead_below * (1 - self.ema_decay)
        alive = ~dead
        self.codebook[alive] = functional.normalize(self.sums[alive], dim=-1)
        pool = latents if not alive.any() else latents[candidates]
        near = (pool @ self.codebook[alive].T).amax(-1) if alive.any() else pool @ pool.mean(0)
        for slot in dead.nonzero()[:, 0].tolist():
            far = near.argmin()
            if near[far] > self.nearness:
                break
            self.restarts += 1
            self.codebook[slot] = pool[far]
            self.counts[slot] = 1 - self.ema_decay
            self.sums[slot] = pool[far] * (1 - self.ema_decay)
            near = torch.maximum(near, pool @ pool[far])
