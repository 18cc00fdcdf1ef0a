"""A step of GRPO on drawings as released trainers are taken to do it; none of them is run here."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cost import now
from benchmarks.rollout import of_one_length, plain, with_twins
from benchmarks.step import PARTS
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.sample import Completion, Image, Sample
from unified_rl.core.trajectory import Modality, Rollout, Trajectory, repeat_for_groups
from unified_rl.models.janus.policy import JanusPolicy
from unified_rl.models.pictures import to_uint8
from unified_rl.objectives.advantages import group_advantages
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.stages.optimisation import Optimisation


@dataclass(frozen=True)
class Lesson:
    """What a step learns from, and how.

    Attributes:
        policy: learns.
        samples: prompts of drawings, all of one length.
        group_size: G, drawings of each.
        behaviour: how they are drawn, at temperature 1 from all codes, and scored.
        reward: bound to the policy.
        optimisation: how weights move.
    """

    policy: JanusPolicy
    samples: Sequence[Sample]
    group_size: int
    behaviour: Behaviour
    reward: HybridReward
    optimisation: Optimisation


class PlainStep:
    """Draws, scores, and follows GRPO's loss without KL or clip.

    - Every row reads its own prompt, and guidance a twin of each; keys and values are concatenated,
      a softmax and a draw follow, code by code; all pictures are decoded at once.
    - Rewards are called once for all rows.
    - Log-probs of what was drawn are computed in a pass of their own without gradients. trl leaves
      this pass out where a rollout serves one update and transformers draws it.
    - A pass with gradients reads all rows at once and holds the logits of all positions, with their
      log-softmax in float32. Layers and attention are those of transformers.

    Args:
        lesson: what to learn from.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.lesson, self.policy = lesson, lesson.policy
        self.samples = repeat_for_groups(lesson.samples, lesson.group_size)
        _, ids = of_one_length(self.policy, self.samples)
        self.prompt = torch.tensor(ids, device=self.policy.device)
        generator = torch.Generator(device=self.policy.device).manual_seed(0)
        scale = lesson.behaviour.guidance_scale
        self.draw = plain(self.policy, self.prompt, scale, generator)

    def __call__(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """One step: seconds of its parts, and `old_logprobs_s`, which those of the update hold."""
        self.policy.eval()
        began = now()
        codes = self.draw()
        rollout = self.rollout(codes)
        drawn = now()
        outcome = self.lesson.reward(rollout).outcome
        scored = now()
        advantages = group_advantages(outcome, self.lesson.group_size).to(codes.device)
        with torch.no_grad():
            old = self.logprobs(codes)
        replayed = now()
        self.differentiate(codes, old, advantages, optimizer)
        optimizer.step()
        seconds = drawn - began, scored - drawn, now() - scored
        return dict(zip(PARTS, seconds, strict=True)) | {"old_logprobs_s": replayed - scored}

    def rollout(self, codes: Tensor) -> Rollout:
        """(R, P) codes with their pictures; what no reward reads is empty."""
        pictures = to_uint8(self.policy.decode_images(codes[..., None]))
        completions = tuple(Completion((Image(pixels),), finished=True) for pixels in pictures)
        chosen = torch.ones_like(codes, dtype=torch.bool)[..., None]
        trajectory = Trajectory(
            self.lesson.behaviour,
            torch.zeros_like(chosen, dtype=torch.float32),
            chosen,
            torch.full_like(codes, int(Modality.IMAGE)),
            torch.zeros_like(codes),
            {},
        )
        return Rollout(self.samples, completions, trajectory, self.lesson.group_size)

    def logprobs(self, codes: Tensor) -> Tensor:
        """(R, P) codes -> (R, P) float32, through the logits (R, P, K) of all at once."""
        model, behaviour = self.policy.janus.model, self.lesson.behaviour
        prompt, read = self.prompt, codes[:, :-1]
        if behaviour.replays_guided:
            prompt, read = with_twins(self.policy, prompt), read.repeat(2, 1)
        words, drawn = self.policy.embed_text(prompt), self.policy.embed_codes(read[..., None])
        hidden = model.language_model(
            inputs_embeds=torch.cat([words, drawn], dim=1), use_cache=False
        ).last_hidden_state[:, prompt.shape[1] - 1 :]
        logits = model.generation_head(hidden)
        if behaviour.replays_guided:
            given, free = logits.chunk(2)
            logits = free + behaviour.guidance_scale * (given - free)
        chances = logits.float().log_softmax(-1)
        return chances.gather(-1, codes[..., None])[..., 0]

    def differentiate(
        self, codes: Tensor, old: Tensor, advantages: Tensor, optimizer: torch.optim.Optimizer
    ) -> None:
        """Leaves the clipped gradient of the loss in the weights.

        Args:
            codes: (R, P).
            old: (R, P) log-probs.
            advantages: (R,).
            optimizer: of the weights.
        """
        optimizer.zero_grad(set_to_none=True)
        ratios = (self.logprobs(codes) - old).exp()
        loss = -(ratios * advantages[:, None]).mean(1).mean()
        loss.backward()
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, self.lesson.optimisation.gradient_clip)
