"""Trains a policy's image tokenizer by reconstruction, which published models bring along."""

from collections.abc import Callable

import torch

from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Image, Sample
from unified_rl.stages.base import Stage
from unified_rl.stages.optimisation import Optimisation


class ImageCodec(Stage):
    """Learns to draw what it sees through the bottleneck of the policy's codes.

    Args:
        policy, optimisation, iterations, seed: see `Stage`. The policy offers
            `codec_objective() -> Module`, which turns pixels into terms with a `loss`, and
            `adopt_codec()`, called at the end.
    """

    progress_metrics = ("loss", "reconstruction")
    trains_codec = True

    def __init__(
        self,
        policy: Callable[[], Policy],
        optimisation: Optimisation,
        iterations: int,
        seed: int,
    ) -> None:
        super().__init__(policy, optimisation, iterations, seed)
        self.objective: torch.nn.Module | None = None

    def configure_model(self) -> None:
        """Builds the policy and its codec's objective.

        Raises:
            ConfigError: weights would be sharded, which a finished codec could not be copied from.
        """
        super().configure_model()
        if hasattr(self._strategy, "hand_over"):
            raise ConfigError(
                "stage=image_codec trains small networks, which need no sharding; use "
                "strategy=single or strategy=ddp"
            )
        if self.objective is None:
            self.policy.requires_grad_(False)
            self.objective = self.policy.codec_objective()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser of the codec alone."""
        return self.optimisation.optimizer(self.objective.parameters())

    def on_train_end(self) -> None:
        """Hands the finished codec to the rest of the policy."""
        self.policy.adopt_codec()

    def training_step(self, batch: list[Sample], batch_idx: int) -> None:
        """Encode, quantise, decode, follow the gradient."""
        self.objective.train()
        images = [s for sample in batch for s in sample.target if isinstance(s, Image)]
        terms = self.objective(self.policy.pixels(images))
        norm = self.descend([terms.loss])
        metrics = {name: v.detach() for name, v in terms._asdict().items() if v.ndim == 0}
        metrics["used_codes"] = terms.codes.unique().numel()
        self.report(metrics | {"gradient_norm": norm})
