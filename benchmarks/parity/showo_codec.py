"""Show-o's image tokenizer against the tensors that the official MAGVIT-v2 gave."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.parity.checks import GIVEN, Check, Golden, exact
from unified_rl.models.showo.codec import LfqCodec, LfqCodecConfig

PREFIX = "vq."
"""Of the codec's weights in the golden file."""


def golden_codec(golden: Golden) -> LfqCodec:
    """The codec with the golden weights.

    Raises:
        RuntimeError: names or shapes of the weights are not those of `LfqCodec`.
    """
    codec = LfqCodec(_config(golden.config["cfg"]))
    weights = golden.weights.items()
    codec.load_state_dict({k.removeprefix(PREFIX): v for k, v in weights if k.startswith(PREFIX)})
    return codec.eval().requires_grad_(False)


def codec_checks(golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `vq.*`, and the decoder of soft weights."""
    codec, io = golden_codec(golden), golden.io
    latents = codec.latents(io["vq.pixel_values"])
    codes = codec.encode(io["vq.pixel_values"])
    losses = codec.lfq_losses(latents)
    shape = tuple(golden.config["cfg"]["nonsq"])
    vectors = codec.codes_to_vectors(io["vq.decode_ids"])
    yield "vq.pixel_values", GIVEN
    yield "vq.decode_ids", GIVEN
    yield "vq.decode_nonsquare_ids", GIVEN
    yield "unirl.soft_weights", GIVEN
    yield "vq.encoder_out", Check(latents)
    yield "vq.quantized", Check(codec.straight_through(latents), 1e-6, 0.0)
    yield "vq.codes", exact(codes)
    yield "vq.decode_z", exact(vectors)
    yield "vq.entropy_loss", Check(losses.entropy, 1e-5, 0.0)
    yield "vq.quantizer_loss", Check(losses.quantizer, 1e-5, 0.0)
    yield "vq.decode_pixels", _pixels(codec.decode(io["vq.decode_ids"]))
    yield "vq.decode_nonsquare_pixels", _pixels(codec.decode(io["vq.decode_nonsquare_ids"], shape))
    yield "vq.roundtrip_pixels", _pixels(codec.decode(codes))
    yield "unirl.decode_code_gs", _pixels(codec.decode_soft(io["unirl.soft_weights"]))


def _config(cfg: dict[str, Any]) -> LfqCodecConfig:
    encoder, decoder = cfg["enc"], cfg["dec"]
    return LfqCodecConfig(
        bits=cfg["codebook_dim"],
        base_channels=encoder["ch"],
        encoder_channel_multiplier=encoder["ch_mult"],
        encoder_block_counts=encoder["num_res_blocks"],
        decoder_channel_multiplier=decoder["ch_mult"],
        decoder_block_counts=decoder["num_res_blocks"],
        image_size=cfg["image"],
    )


def _pixels(ours: torch.Tensor) -> Check:
    return Check(ours, 1e-4, 0.0)
