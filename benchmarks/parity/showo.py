"""Show-o against the tensors that the official code gave."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.parity.checks import GIVEN, Check, Golden, exact
from benchmarks.parity.showo_answers import answer_checks
from benchmarks.parity.showo_clip import mask_checks
from benchmarks.parity.showo_codec import codec_checks
from benchmarks.parity.showo_drawing import run_checks
from benchmarks.parity.showo_edges import edge_checks
from benchmarks.parity.showo_policy import golden_policy
from benchmarks.parity.showo_training import IGNORED, training_checks
from unified_rl.decoding.masked import masked_share, training_mask


def checks(golden: Golden) -> Iterator[tuple[str, Check]]:
    """Every tensor of a Show-o folder."""
    policy = golden_policy(golden)
    with torch.no_grad():
        yield from codec_checks(golden)
        yield from _schedules(golden.io)
        yield from _masking(golden)
    yield from training_checks(policy, golden)
    with torch.no_grad():
        yield from run_checks(policy, golden)
        yield from answer_checks(policy, golden)
        yield from edge_checks(policy, golden)
        yield from mask_checks(policy, golden)


def _schedules(io: dict[str, Tensor]) -> Iterator[tuple[str, Check]]:
    yield "schedule.t", GIVEN
    for name, ours in (("cosine",) * 2, ("linear",) * 2, ("pow2", "pow"), ("sigmoid",) * 2):
        yield f"schedule.{name}", Check(masked_share(ours, io["schedule.t"]), 1e-6, 0.0)


def _masking(golden: Golden) -> Iterator[tuple[str, Check]]:
    """What a training step hides of its images."""
    inputs = [f"masking.{name}" for name in ("rand_timesteps", "rand_scores", "image_ids")]
    for name in inputs:
        yield name, GIVEN
    noise, scores, ids = (golden.io[name] for name in inputs)
    masked = training_mask("cosine", noise, scores)
    yield "masking.mask_prob", Check(masked_share("cosine", noise), 1e-6, 0.0)
    yield "masking.input_ids", exact(torch.where(masked, golden.config["mask_token_id"], ids))
    yield "masking.labels", exact(torch.where(masked, ids, IGNORED))
