"""VILA-U's depth transformer, and guided drawing replayed with the recorded draws."""

import re
from collections.abc import Iterator

import torch

from benchmarks.parity.checks import DOCUMENTED, GIVEN, REPLAYED, Check, Golden, exact
from benchmarks.parity.numbered import words
from benchmarks.parity.vila_u_policy import ReplayedVilaU, prompts
from unified_rl.core.behaviour import TEACHER, Behaviour, Sampling
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.decoding.sampling import log_distribution
from unified_rl.decoding.tape import Kind
from unified_rl.models.vila_u.policy import VilaUPolicy

INFO = ".info"
"""Ends the names of the notes that describe a run."""
OFFICIAL_SAMPLING = Sampling(top_k=900, top_p=0.96)
"""Of image codes; fixed in the official code."""
OFFICIAL_GUIDANCE = 3.0
"""The default, by which `rqt.gen_body` is drawn."""
FILTERED = re.compile(r"rqt\.filter_probs(?:_t(\d+))?_topk(\d+)_topp(\d+)")
"""Temperature, k and p in a name; "08" is 0.8."""


def depth_checks(policy: VilaUPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `rqt.*`."""
    io = golden.io
    body, codes, drawn_from = io["rqt.body"], io["rqt.codes"], io["rqt.gen_body"]
    logits = policy.code_logits(body.flatten(0, 1), None, codes.flatten(0, 1)[:, :-1], TEACHER)
    for name in ("body", "codes", "filter_logits", "gen_body"):
        yield f"rqt.{name}", GIVEN
    yield "rqt.logits", Check(logits.unflatten(0, body.shape[:2]))
    for name in list(io):
        match = FILTERED.fullmatch(name)
        if match is not None:
            probabilities = log_distribution(io["rqt.filter_logits"], _sampling(match)).exp()
            yield name, Check(probabilities, 1e-6, 0.0)
    greedy = Behaviour(image=Sampling(temperature=0.0), guidance_scale=OFFICIAL_GUIDANCE)
    states = drawn_from.flatten(0, 1).chunk(2)  # conditional, unconditional
    chosen, _, _ = policy.draw_codes(*states, greedy, torch.Generator())
    chosen = torch.cat([chosen, chosen]).unflatten(0, drawn_from.shape[:2])
    yield "rqt.gen_codes_greedy", exact(chosen)
    yield "rqt.gen_features_greedy", Check(policy.codec.quantizer.vectors(chosen).sum(-2))


def _sampling(match: re.Match[str]) -> Sampling:
    temperature, top_k, top_p = match.groups()
    temperature = 1.0 if temperature is None else _decimal(temperature)
    return Sampling(temperature, int(top_k), _decimal(top_p))


def _decimal(digits: str) -> float:
    return float(f"{digits[0]}.{digits[1:]}")


def run_checks(policy: ReplayedVilaU, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `gen.*`: every recorded run of `generate`, through the whole of `Policy.sample`."""
    io, notes = golden.io, golden.config["notes"]
    yield "gen.input_ids", GIVEN
    yield "gen.attention_mask", GIVEN
    for run in (name.removesuffix(INFO) for name in notes if name.endswith(INFO)):
        info, first_logits = notes[run + INFO], f"{run}.depth_logits_after_cfg_first3steps"
        is_greedy = info["greedy"]
        policy.replay(None if is_greedy else io[f"{run}.depth_samples"])
        behaviour = official_behaviour(info)
        trajectory, _ = policy.sample(image_samples(policy, golden), behaviour, torch.Generator())
        codes = trajectory.tape["ids"][trajectory.tape["kind"] == Kind.CODE]
        codes = codes.view(trajectory.row_count, policy.image_positions, -1)
        logits = torch.stack(policy.logits).transpose(1, 2)[: len(io[first_logits])]
        pixels = policy.decode_images(codes)
        yield first_logits, Check(logits, 3e-5, 0.0)
        yield f"{run}.depth_samples", exact(codes) if is_greedy else REPLAYED
        yield f"{run}.text_token_samples", DOCUMENTED
        yield f"{run}.codes", exact(torch.cat([codes, codes]))
        yield f"{run}.decoded_pixels_fp32", Check(pixels, 1e-4, 0.0)
        response = ((pixels + 1) * 127.5).clamp(0, 255)
        yield f"{run}.response_0_255_fp32", Check(response, 2e-2, 0.0)


def official_behaviour(info: dict[str, float]) -> Behaviour:
    """How a recorded run drew."""
    greedy = Sampling(temperature=0.0)
    image = greedy if info["greedy"] else OFFICIAL_SAMPLING
    return Behaviour(image=image, guidance_scale=info["cfg"])


def image_samples(policy: VilaUPolicy, golden: Golden) -> list[Sample]:
    """The recorded prompts of images."""
    rows = prompts(golden)
    texts = (words(policy.tokenizer, ids) for ids in rows[: len(rows) // 2])
    return [Sample(text, Task.TEXT_TO_IMAGE, (Text(text),)) for text in texts]
