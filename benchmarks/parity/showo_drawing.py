"""MaskGIT runs of Show-o, replayed with the recorded draws and noise."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.parity.checks import GIVEN, REPLAYED, Check, Golden, exact
from benchmarks.parity.showo_policy import prompt_tape, vocabulary_ids
from unified_rl.core.behaviour import Behaviour
from unified_rl.decoding.masked import masked_again, masked_counts, noise_temperatures
from unified_rl.decoding.session import Session
from unified_rl.models.showo.policy import ShowoPolicy

ARGUMENTS = ".args"
"""Ends the names of the notes that describe a run."""
SCHEDULES = {"linear": "linear", "pow2": "pow", "sigmoid": "sigmoid"}
"""Ours by the first word of the name of a run whose schedule is not cosine."""


def run_checks(policy: ShowoPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """Every recorded run of `t2i_generate`."""
    for name in golden.config["notes"]:
        if name.endswith(ARGUMENTS):
            yield from _run(policy, golden, name.removesuffix(ARGUMENTS))


def _run(policy: ShowoPolicy, golden: Golden, run: str) -> Iterator[tuple[str, Check]]:
    """One run, step by step: what a step sees, proposes, and masks again."""
    io, arguments = golden.io, golden.config["notes"][run + ARGUMENTS]
    scale, step_count = arguments["guidance_scale"], arguments["timesteps"]
    behaviour = Behaviour(guidance_scale=1 + scale, image_step_count=step_count)
    counts = masked_counts(schedule_of(run, arguments), policy.image_positions, step_count)
    temperatures = noise_temperatures(arguments["temperature"], step_count)
    steps = _Steps(policy, golden, behaviour)
    codes, seen, probabilities, masks = _start(policy, io, run), [], [], []
    for step in range(step_count):
        states = steps.peek(codes)
        seen.append(steps.ids())
        probabilities.append(policy.code_log_probs(*states, behaviour).exp())
        masked = codes == policy.mask_code
        proposal = torch.where(masked, io[f"{run}.step_sampled"][step], codes)
        chosen = probabilities[step].gather(-1, proposal[..., None]).squeeze(-1)
        noise = io[f"{run}.step_uniform"][step]
        masks.append(masked_again(chosen, masked, counts[step], temperatures[step], noise))
        codes = torch.where(masks[step], policy.mask_code, proposal)
    steps.peek(codes)  # the official code leaves a token masked behind its last step
    seen.append(steps.ids())

    rows, masking = len(codes), torch.stack(masks)
    is_greedy = arguments["multinomial"] == "argmax"
    most_likely = torch.stack(probabilities).argmax(-1)
    pixels = policy.decode_images(proposal.clamp_max(policy.mask_code - 1)[..., None])
    if f"{run}.known" in io:
        yield f"{run}.known", GIVEN
    yield f"{run}.input_ids", exact(seen[0][:rows])
    if behaviour.guided:
        yield f"{run}.uncond_input_ids", exact(seen[0][rows:])
    yield f"{run}.attention_mask_bool", exact(steps.visible())
    yield f"{run}.step_input_ids", exact(torch.stack(seen[:-1])[:, :rows])
    yield f"{run}.step_probs", Check(torch.stack(probabilities), 1e-5, 0.0)
    yield f"{run}.step_sampled", exact(most_likely) if is_greedy else REPLAYED
    yield f"{run}.step_uniform", GIVEN
    yield f"{run}.step_temperature", Check(torch.tensor(temperatures), 1e-6, 0.0)
    yield f"{run}.step_masking", exact(masking)
    yield f"{run}.step_mask_len", exact(masking.sum(-1, keepdim=True))
    yield f"{run}.tokens", exact(proposal)
    yield f"{run}.final_input_ids", exact(seen[-1][:rows])
    yield f"{run}.decoded_pixels", Check(pixels, 1e-4, 0.0)


def schedule_of(run: str, arguments: dict[str, str]) -> str:
    """Our name of a run's mask schedule."""
    if arguments["schedule"] == "cosine":
        return "cosine"
    return SCHEDULES[run.rpartition(".")[2].partition("_")[0]]


def _start(policy: ShowoPolicy, io: dict[str, Tensor], run: str) -> Tensor:
    """(B, N) codes before the first step: those of the pictures where some are known."""
    rows = io[f"{run}.step_sampled"].shape[1]
    codes = policy.encode_images(io["vq.pixel_values"][:rows])[..., 0]
    known = io.get(f"{run}.known", torch.zeros_like(codes)).bool()
    return torch.where(known, codes, policy.mask_code)


class _Steps:
    """A decoding session behind the prompts, padded to the official width."""

    def __init__(self, policy: ShowoPolicy, golden: Golden, behaviour: Behaviour) -> None:
        cfg = golden.config["cfg"]
        prompts = prompt_tape(policy, cfg["texts_t2i"], cfg["max_text_len"] + 1)
        image = policy.image_positions + 2  # with its borders
        self.policy = policy
        self.session = Session(policy, prompts, behaviour, torch.Generator(), image)

    def peek(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, N, width) states of the codes, and those of the unconditional twins."""
        rows = len(codes)
        everyone, segment = torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.long)
        return self.policy.image_states(self.session, codes, everyone, segment)

    def ids(self) -> Tensor:
        """(R, C): what the last step saw, twins behind, as official ids."""
        return vocabulary_ids(self.policy, self.session.ids, self.session.kind)

    def visible(self) -> Tensor:
        """(R, 1, C, C) bool: who saw whom."""
        kind = self.session.kind
        segment = self.session.segment.repeat(len(kind) // self.session.rows, 1)
        return self.policy.visibility(kind, segment, 0)[:, None]
