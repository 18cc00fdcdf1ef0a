"""The official plain forward of Janus, put together from the parts of our policy."""

import torch
from torch import Tensor

from unified_rl.decoding.tape import Kind
from unified_rl.models.janus.policy import JanusPolicy


def plain_embeds(policy: JanusPolicy, ids: Tensor, shown: Tensor, pixels: Tensor) -> Tensor:
    """(B, L, width) of (B, L) ids, those of padding included, and of shown images.

    Args:
        policy: embeds.
        ids: (B, L).
        shown: (B, L), 1 where a position of an image stands.
        pixels: (B, M, 3, H, W).
    """
    kind = torch.where(shown.bool(), int(Kind.PIXEL), int(Kind.TEXT))
    return policy.embed(ids[..., None], kind, policy.image_features(pixels))


def plain_forward(policy: JanusPolicy, embeds: Tensor, valid: Tensor) -> Tensor:
    """(B, L, width) hidden states of (B, L, width) embeddings, of which (B, L) `valid` are tokens.

    Positions count padding. Padding in front may look at nothing, by a finite number, and so looks
    at everything alike; it matters because the official loss lets it predict the first token.
    """
    columns = valid.shape[1]
    seen = torch.ones(columns, columns, dtype=torch.bool).tril() & valid[:, None]
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    positions = torch.arange(columns).expand(valid.shape)
    return policy.backbone(embeds, mask[:, None], positions, None)


def no_pixels(row_count: int) -> Tensor:
    """(B, 0, 3, 1, 1): what prompts without images show."""
    return torch.zeros(row_count, 0, 3, 1, 1)
