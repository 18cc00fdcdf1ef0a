"""VILA-U's image tokenizer against the tensors that the official tower gave."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.parity.checks import GIVEN, Check, Golden, exact
from unified_rl.models.vila_u.policy import VilaUPolicy


def codec_checks(policy: VilaUPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `rqvae.*`, `tower.*` and `proj.*`."""
    codec, io = policy.codec, golden.io
    pixels, given = io["rqvae.pixel_values"], io["rqvae.decode_codes"]
    grid = given.shape[1:3]
    latents = codec.latents(pixels)
    codes = codec.encode(pixels)
    quantised = codec.quantizer.straight_through(latents)
    vectors = codec.quantizer.vectors(codes)
    decoded = codec.quantizer.vectors(given).sum(-2)
    flat = given.flatten(1, 2)

    def by_row(ours: Tensor) -> Tensor:
        return ours.unflatten(1, grid)

    yield "rqvae.pixel_values", GIVEN
    yield "rqvae.decode_codes", GIVEN
    yield "rqvae.features_before_quant", Check(by_row(latents))
    yield "rqvae.codes", exact(by_row(codes))
    yield "rqvae.code_emb_with_depth", Check(by_row(vectors))
    yield "rqvae.quant_cumulative", Check(by_row(vectors).cumsum(-2).movedim(-2, 0))
    yield "rqvae.z_q", Check(by_row(quantised))
    commitment = codec.quantizer.distances(latents, codes).mean()
    yield "rqvae.commitment_loss", Check(commitment, 1e-5, 0.0)
    yield "rqvae.decode_z", Check(decoded)
    yield "rqvae.decode_pixels_fp32", _pixels(codec.decode(flat))
    yield "rqvae.roundtrip_pixels_fp32", _pixels(codec.decode(codes))
    shape = golden.config["cfg"]["decoder_latent_shape"]
    resized = "rqvae.decode_latent_shape_pixels_fp32"
    if shape is not None or resized in io:
        variant = deepcopy(codec)
        variant.config = replace(codec.config, decoder_grid=shape)
        yield resized, _pixels(variant.decode(flat))
    vectors_given = io["rqvae.decode_z"].flatten(1, 2).bfloat16()
    half_pixels = deepcopy(codec).bfloat16().decode_vectors(vectors_given)
    yield "rqvae.decode_pixels_bf16_as_fp32", Check(half_pixels.float(), 5e-2, 0.0)
    yield "tower.features", Check(quantised)
    yield "tower.tokens", exact(codes + policy.text_vocabulary_size)
    yield "proj.features", Check(policy.embed_pixels(pixels))


def _pixels(ours: torch.Tensor) -> Check:
    return Check(ours, 1e-4, 0.0)
