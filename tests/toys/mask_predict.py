"""A toy of the mask-predict family: an image appears over a few steps, anywhere in its block."""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tests.toys.base import WIDTH, ToyPolicy
from tests.toys.codec import CODE_COUNT, POSITIONS
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.trajectory import Trajectory
from unified_rl.decoding.sampling import draw, guide, log_distribution
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Kind, Tape
from unified_rl.models.template import Template

MASK = CODE_COUNT
GIVEN = -1
"""Reveal step of a code that was there from the start."""


def reveal_counts(steps: int) -> list[int]:
    """Codes revealed at each step; a cosine tells how many stay masked behind it."""
    masked = [math.floor(POSITIONS * math.cos(math.pi / 2 * s / steps)) for s in range(steps + 1)]
    return [before - after for before, after in zip(masked, masked[1:], strict=False)]


class MaskPredictToy(ToyPolicy):
    """Each step proposes all masked codes and keeps the most confident, as MaskGIT does.

    A code's log-prob is the one at the step that revealed it, given what was revealed before. Which
    positions a step reveals follows from its proposals and is replayed, not scored.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
        super().__init__(tokenizer, template, "mask_predict", extra_codes=1)
        self.head = nn.Linear(WIDTH, CODE_COUNT)

    def attention_mask(self, tape: Tape) -> Tensor:
        return tape.causal_mask() | tape.image_blocks()[:, None]

    # -- drawing ---------------------------------------------------------------------------------

    def draw_image(self, session: Session, rows: Tensor, segment: Tensor) -> None:
        behaviour, batch = session.behaviour, (session.rows, POSITIONS)
        codes, reveal = torch.full(batch, MASK), torch.full(batch, GIVEN)
        logprobs = torch.zeros(batch)
        supports = torch.zeros(*batch, CODE_COUNT, dtype=torch.bool)
        for step, count in enumerate(reveal_counts(behaviour.image_step_count)):
            embeds = self.embed_codes(codes[..., None])
            hidden = session.peek(embeds.repeat(2 if behaviour.guided else 1, 1, 1), rows)
            logits = self.head(hidden)
            conditional, twin = logits[: session.rows], logits[session.rows :]
            if behaviour.guided:
                logits = guide(conditional, twin, behaviour.guidance_scale)
            log_probs = log_distribution(logits, behaviour.image)
            proposal, drawn = draw(log_probs.flatten(0, 1), session.generator)
            proposal = proposal.view(batch)
            chosen = logits.log_softmax(-1).gather(-1, proposal[..., None]).squeeze(-1)
            confidence = chosen.masked_fill(codes != MASK, -torch.inf)
            new = torch.zeros(batch, dtype=torch.bool)
            new.scatter_(1, confidence.topk(count, dim=1).indices, True)
            support = torch.isfinite(log_probs)
            if behaviour.guided and not behaviour.replays_guided:
                kept = support if behaviour.image.truncates else None
                scores = log_distribution(conditional, behaviour.image, support=kept)
                drawn = scores.gather(-1, proposal[..., None])
            codes = torch.where(new, proposal, codes)
            reveal = torch.where(new, step, reveal)
            logprobs = torch.where(new, drawn.view(batch), logprobs)
            supports |= support & new[..., None]
        session.record("reveal", reveal)
        if behaviour.image.truncates:
            session.record("image_support", supports)
        session.push(
            codes[..., None], Kind.CODE, rows, segment, logprobs[..., None], bidirectional=True
        )

    # -- scoring ---------------------------------------------------------------------------------

    def choose_targets(
        self, tape: Tape, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Masks a random share of each image; what is masked is to be predicted, in one step."""
        is_code = tape.kind == Kind.CODE
        segments = len(is_code), int(tape.segment.max()) + 1
        share = torch.cos(math.pi / 2 * torch.rand(segments, generator=generator))
        share = share.gather(1, tape.segment.clamp_min(0))  # one share an image
        masked = is_code & (torch.rand(is_code.shape, generator=generator) < share)
        action_mask = tape.action_mask & (~is_code | masked)[..., None]
        return action_mask, {"reveal": torch.where(masked, 0, GIVEN)}

    def image_logprobs(self, trajectory: Trajectory, tape: Tape, hidden: Tensor) -> Tensor:
        """One pass for each image of a row and each step: what came later is masked again."""
        result, is_code = torch.zeros_like(trajectory.logprobs), tape.kind == Kind.CODE
        if not bool(is_code.any()):
            return result  # then sampling recorded no steps either
        reveal, behaviour = trajectory.tape["reveal"], trajectory.behaviour
        actions = trajectory.action_mask[..., 0]
        starts = is_code & ~is_code.roll(1, 1)
        image = torch.where(is_code, starts.cumsum(1) - 1, -1)  # (B, L) index within the row
        for index in range(int(image.max()) + 1):
            for step in range(int(reveal.max()) + 1):
                chosen = (image == index) & (reveal == step) & actions
                if not bool(chosen.any()):
                    continue
                later = (image == index) & (reveal >= step)
                masked = tape._replace(ids=torch.where(later[..., None], MASK, tape.ids))
                scores = self._scores(masked, chosen, trajectory.tape, behaviour)
                codes = tape.ids[chosen]
                result = result.index_put(chosen.nonzero(as_tuple=True), scores.gather(-1, codes))
        return result

    def _scores(
        self, tape: Tape, chosen: Tensor, records: dict[str, Tensor], behaviour: Behaviour
    ) -> Tensor:
        """(n, K) log-probabilities at the `chosen` positions."""
        logits = self.head(self.read(tape)[chosen])
        if behaviour.replays_guided:
            ids, kind = self.nullify(tape.ids, tape.kind)
            twin = self.head(self.read(tape._replace(ids=ids, kind=kind))[chosen])
            logits = guide(logits, twin, behaviour.guidance_scale)
        support = records.get("image_support")
        kept = None if support is None else support[chosen]
        return log_distribution(logits, behaviour.image, support=kept)
