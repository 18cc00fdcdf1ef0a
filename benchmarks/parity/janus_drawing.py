"""Guided drawing of Janus, replayed with the recorded draws."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.parity.checks import REPLAYED, Check, Golden, exact
from benchmarks.parity.numbered import words
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.sample import Completion, Sample, Task, Text
from unified_rl.core.trajectory import Trajectory
from unified_rl.decoding.sampling import guide, log_distribution
from unified_rl.decoding.tape import Kind
from unified_rl.models.janus.policy import JanusPolicy

INFO = ".info"
"""Ends the names of the notes that describe a run."""


class ReplayedJanus(JanusPolicy):
    """Draws what was drawn before, and keeps what it could have drawn from.

    Attributes:
        script: (N, B) codes to draw, position by position; None to draw by itself.
        logits: (B, 2, K) of each position drawn, conditional before unconditional.
    """

    script: Tensor | None = None
    logits: list[Tensor]

    def replay(self, script: Tensor | None) -> None:
        """Starts over, with or without a script."""
        self.script, self.logits = script, []

    def draw_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draws one position; see `NextPositionPolicy`."""
        states = torch.stack([conditional, unconditional], dim=1)  # (B, 2, width)
        self.logits.append(self.janus.model.generation_head(states))
        if self.script is None:
            return super().draw_codes(conditional, unconditional, behaviour, generator)
        codes = self.script[len(self.logits) - 1][:, None]
        scores = self.score_codes(conditional, unconditional, codes, behaviour, None)
        return codes, scores, None

    def step_logits(self) -> Tensor:
        """(N, 2B, K): conditional and unconditional rows by turns, as the official code."""
        return torch.stack(self.logits).flatten(1, 2)

    def step_probabilities(self, guidance_scale: float, sampling: Sampling) -> Tensor:
        """(N, B, K): what each position is drawn from."""
        conditional, unconditional = torch.stack(self.logits).unbind(2)
        return log_distribution(guide(conditional, unconditional, guidance_scale), sampling).exp()


def run_checks(policy: ReplayedJanus, golden: Golden) -> Iterator[tuple[str, Check]]:
    """Every recorded run of `generate`, through the whole of `Policy.sample`."""
    prompt = golden.config["cfg"]["prompt"]  # from the first to the begin-of-image token
    notes = golden.config["notes"]
    runs = [name.removesuffix(INFO) for name in notes if name.endswith(INFO)]
    for index, run in enumerate(runs):
        info = notes[run + INFO]
        sampling = Sampling(temperature=info["temperature"])
        policy.replay(None if info["greedy"] else golden.io[f"{run}.step_samples"])
        behaviour = Behaviour(
            image=Sampling(temperature=0.0) if info["greedy"] else sampling,
            guidance_scale=info["cfg_weight"],
        )
        text = Text(words(policy.tokenizer, prompt[1:-1]))
        samples = [Sample(run, Task.TEXT_TO_IMAGE, (text,))] * info["parallel_size"]
        trajectory, completions = policy.sample(samples, behaviour, torch.Generator())
        if not index:
            pair = (trajectory.tape[name] for name in ("ids", "twin_ids"))
            pair = torch.stack([ids.flatten(1)[0] for ids in pair])[:, : len(prompt)]
            yield "t2i_gen.cond_uncond_ids", exact(pair)
        codes = drawn(policy, trajectory)
        probabilities = policy.step_probabilities(info["cfg_weight"], sampling)
        yield f"{run}.step_logits_before_cfg", Check(policy.step_logits())
        yield f"{run}.step_probs", Check(probabilities, 1e-5, 0.0)
        yield f"{run}.step_samples", exact(codes.T) if info["greedy"] else REPLAYED
        yield f"{run}.tokens", exact(codes)
        yield f"{run}.decoded", Check(policy.decode_images(codes[..., None]), 1e-4, 0.0)
        yield f"{run}.image_uint8", Check(pictures(completions), 1.0, 0.0)


def drawn(policy: ReplayedJanus, trajectory: Trajectory) -> Tensor:
    """(B, N): the codes of the only image of each row."""
    ids, kind = trajectory.tape["ids"], trajectory.tape["kind"]
    return ids[kind == Kind.CODE].view(-1, policy.image_positions)


def pictures(completions: Sequence[Completion]) -> Tensor:
    """(B, H, W, 3) uint8: the only image of each completion."""
    return torch.from_numpy(np.stack([completion.images[0] for completion in completions]))
