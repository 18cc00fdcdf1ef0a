"""Supervised fine-tuning on a mixture of tasks; also how the micro-world's base is pre-trained."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Sample, Task
from unified_rl.core.trajectory import Trajectory
from unified_rl.objectives.imitation import ActionCounts, action_counts, modality_nll
from unified_rl.stages.base import Stage
from unified_rl.stages.optimisation import Optimisation


class WarmupSFT(Stage):
    """Learns gold answers, text and images alike.

    Source: UnifiedGRPO 3.2, eq. 2.

    Args:
        policy, optimisation, iterations, seed: see `Stage`.
        text_weight: weight of the text term.
        image_weight: weight of the image term.
        normalisation: see `modality_nll`.
        condition_dropout: share of prompts of drawings and stories that are hidden, which trains
            the unconditional twin that guidance needs; 0 to 1. Only images are learnt from them.
        micro_batch_size: rows differentiated at once; 0 takes the whole batch. Changes no number.
    """

    progress_metrics = ("loss", "text_nll", "image_nll")

    def __init__(
        self,
        policy: Callable[[], Policy],
        optimisation: Optimisation,
        iterations: int,
        seed: int,
        text_weight: float = 1.0,
        image_weight: float = 1.0,
        normalisation: str = "modality",
        condition_dropout: float = 0.0,
        micro_batch_size: int = 0,
    ) -> None:
        super().__init__(policy, optimisation, iterations, seed)
        if not 0 <= condition_dropout <= 1:
            raise ConfigError(f"stage.condition_dropout={condition_dropout} is outside [0, 1]")
        if min(text_weight, image_weight) < 0 or text_weight == image_weight == 0:
            raise ConfigError(
                f"stage.text_weight={text_weight} and stage.image_weight={image_weight} must be 0 "
                "or more, and not both 0"
            )
        if normalisation not in ("modality", "token"):
            raise ConfigError(f"stage.normalisation={normalisation!r}: modality or token")
        if micro_batch_size < 0:
            raise ConfigError(f"stage.micro_batch_size={micro_batch_size} must be 0 or more")
        self.text_weight, self.image_weight = text_weight, image_weight
        self.normalisation = normalisation
        self.condition_dropout = condition_dropout
        self.micro_batch_size = micro_batch_size

    def training_step(self, batch: list[Sample], batch_idx: int) -> None:
        """Encode the gold answers, score them, follow the gradient."""
        self.policy.train()
        generator = self.generator()
        gold = self.policy.encode(batch, generator, self._hidden_prompts(batch, generator))
        totals = torch.zeros(3, device=self.device)
        norm = self.descend(self._losses(gold, totals))
        loss, text_nll, image_nll = totals.tolist()
        self.report(
            {
                "loss": loss,
                "text_nll": text_nll,
                "image_nll": image_nll,
                "gradient_norm": norm,
                "learning_rate": self.optimizers().param_groups[0]["lr"],
            }
        )

    def _losses(self, gold: Trajectory, totals: Tensor) -> Iterator[Tensor]:
        """The batch's loss in parts that add up; `totals` gathers their values."""
        own = action_counts(gold.action_mask, gold.modality)
        counts = ActionCounts(*(c.new_tensor(self.ranks.mean(c), dtype=torch.float) for c in own))
        size = self.micro_batch_size or gold.row_count
        for start in range(0, gold.row_count, size):
            part = gold.select(slice(start, start + size))
            terms = modality_nll(
                self.policy.logprobs(part),
                part.action_mask,
                part.modality,
                self.text_weight,
                self.image_weight,
                self.normalisation,
                counts,
            )
            totals += torch.stack([term.detach() for term in terms])
            yield terms.loss

    def _hidden_prompts(self, batch: list[Sample], generator: torch.Generator) -> Tensor:
        drawn = (Task.TEXT_TO_IMAGE, Task.INTERLEAVED)
        drawings = torch.tensor([sample.task in drawn for sample in batch])
        chance = torch.rand(len(batch), generator=generator, device=self.device)
        return drawings.to(self.device) & (chance < self.condition_dropout)
