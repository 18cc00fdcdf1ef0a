"""What all stages share: building the policy, one optimiser step, seeded randomness, logging."""

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from unified_rl.core.errors import ConfigError, TrainingError
from unified_rl.core.preference import Preference
from unified_rl.core.protocols import Policy
from unified_rl.core.ranks import Ranks
from unified_rl.core.sample import Pair, Sample, Task
from unified_rl.core.trajectory import Trajectory
from unified_rl.models.adapter import frozen_base
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.stages.optimisation import Optimisation

SKIP_LIMIT = 5
"""So many steps in a row without a finite loss and gradient end the run."""
_NEEDS = {
    Sample: ("single samples", "set unit=drawing of its source"),
    Pair: ("pairs", "set unit=pair of its source"),
    Preference: ("preferences", "make some with python -m unified_rl.prefer"),
}
"""What to call what a stage takes, and how to get it."""


class Stage(lightning.LightningModule):
    """Base of all training stages; a stage is one `training_step` on a batch of samples.

    Args:
        policy: makes the policy; called once, when the strategy is ready for it.
        optimisation: how weights move.
        iterations: batches that the whole run takes; the schedule spans them.
        seed: of all randomness of the stage, together with the iteration and the rank.
    """

    progress_metrics: tuple[str, ...] = ("loss",)
    takes: type = Sample
    """What its batches hold: `Sample`, `Pair` or `Preference`."""
    tasks: tuple[Task, ...] = ()
    """Of the completions that it draws, each task by itself; () leaves them to the data."""
    trains_codec = False
    """Whether the policy's image tokenizer may be trainable."""
    reward: HybridReward | None = None
    """What scores its rollouts, where it has any; its counters are saved with the run."""
    reference_device: str | None = None
    """Where the frozen start of the policy lives; None keeps it beside the policy."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        optimisation: Optimisation,
        iterations: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self._make_policy = policy
        self.policy: Policy | None = None
        self.optimisation, self.iterations, self.seed = optimisation, iterations, seed
        self.iteration = 0
        self.reported: Mapping[str, float] = {}  # by the latest iteration
        self._skipped = 0
        self._start: tuple[Policy, ...] = ()  # a tuple, so that it is no submodule

    # -- Lightning's hooks ---------------------------------------------------------------------

    def configure_model(self) -> None:
        """Builds the policy inside the strategy's context, as sharded strategies need.

        Raises:
            ConfigError: the image tokenizer would train, which this stage gives no gradient.
        """
        if self.policy is None:
            self.policy = self._make_policy()
        codec = [p for part in self.policy.parameter_groups()["codec"] for p in part.parameters()]
        if not self.trains_codec and any(parameter.requires_grad for parameter in codec):
            raise ConfigError(
                "adapter.trainable names codec, which only stage=image_codec trains; leave it out"
            )

    def on_fit_start(self) -> None:
        """Refuses data whose pictures do not fit the policy, before the first step."""
        for copied in self._start:
            copied.to(self.reference_device or self.device)
        size = self.policy.capabilities.image_size
        for name, source in getattr(self.trainer.datamodule, "sources", {}).items():
            if source.image_size not in (None, size):
                raise ConfigError(
                    f"data.sources.{name} has images of {source.image_size} px, but the policy's "
                    f"image tokenizer takes {size} px; set its image_size to {size} or take "
                    "another model"
                )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; its learning rate follows `self.iteration`."""
        return self.optimisation.optimizer(self.policy.parameters())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Refuses data of another kind than the stage takes, and waits for the other ranks.

        Raises:
            ConfigError: the data does not suit the stage.
            TrainingError: a rank is lost or hangs.
        """
        self.ranks.meet(f"begin iteration {self.iteration}")
        wanted = self.takes
        for item in batch:
            if not isinstance(item, wanted):
                needs, mend = _NEEDS[wanted]
                raise ConfigError(
                    f"{type(self).__name__} learns from {needs}, but the data gave {item.id!r}; "
                    f"{mend}, or choose other data"
                )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts iterations."""
        self.iteration += 1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the place in the run, but not what an adapter leaves as it is in its base."""
        checkpoint["iteration"], checkpoint["skipped"] = self.iteration, self._skipped
        if self.reward is not None:
            checkpoint["reward"] = self.reward.state_dict()
        frozen = {f"policy.{name}" for name in frozen_base(self.policy)}
        checkpoint["state_dict"] = {
            name: value
            for name, value in checkpoint["state_dict"].items()
            # how a 4-bit weight was quantised stands under names that go on from its own
            if name not in frozen and f"{name.partition('.weight.')[0]}.weight" not in frozen
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from the place in the run."""
        self.iteration, self._skipped = checkpoint["iteration"], checkpoint["skipped"]
        if self.reward is not None:
            self.reward.load_state_dict(checkpoint["reward"])
        frozen = frozen_base(self.policy)
        own = {f"policy.{n}": p for n, p in self.policy.named_parameters() if n in frozen}
        checkpoint["state_dict"] = own | checkpoint["state_dict"]

    # -- for stages ----------------------------------------------------------------------------

    @property
    def ranks(self) -> Ranks:
        """The processes of this run."""
        return getattr(self._strategy, "ranks", None) or Ranks()

    def whole_weights(self) -> AbstractContextManager[None]:
        """Where the policy can compute; every training step is in it, on all ranks at once."""
        return getattr(self._strategy, "whole_weights", nullcontext)()

    def plain_weights(self) -> AbstractContextManager[None]:
        """Where the policy can be written, by rank 0; all ranks enter and leave together."""
        return getattr(self._strategy, "plain_weights", self.whole_weights)()

    def generator(self, purpose: int = 0, place: int | None = None) -> torch.Generator:
        """Randomness of this iteration, the same however often a run is resumed.

        Args:
            purpose: what it is for.
            place: in the batch of all ranks; None takes the rank.
        """
        place = self.global_rank if place is None else place
        entropy = [self.seed, self.iteration, place, purpose]
        state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(device=self.device).manual_seed(state)

    def generator_of_part(self, purpose: int, index: int, count: int) -> torch.Generator:
        """Randomness of part `index` of the `count` in which a rank draws, each of its own.

        Ranks that share the parts of a single process so draw the same.
        """
        return self.generator(purpose, self.global_rank * count + index)

    def start(self) -> Policy:
        """The frozen copy of the policy as this stage found it, made when first asked for.

        A stage that compares with it asks in `configure_model`, before a resumed run loads weights.
        """
        if not self._start:
            self._start = (copy.deepcopy(self.policy).eval().requires_grad_(False),)
        return self._start[0]

    def start_logprobs(self, trajectory: Trajectory) -> Tensor:
        """(B, L, D) of a trajectory under the frozen start."""
        device = self.reference_device or self.device
        with torch.no_grad():
            return self.start().logprobs(trajectory.to(device)).to(self.device)

    def descend(self, losses: Iterable[Tensor]) -> float:
        """One optimiser step down the mean over ranks of a loss in parts which add up.

        Args:
            losses: yields the parts; each is differentiated before the next is asked for. Ranks
                may have different numbers of them, and none.

        Returns:
            The norm of the averaged gradient before clipping, the same on all ranks. A step without
            a finite loss and gradient is skipped, by every rank.

        Raises:
            TrainingError: too many steps in a row were skipped, or a rank is lost.
        """
        optimizer = self.optimizers()
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for loss in losses:
            self.manual_backward(loss)
            total = total + loss.detach()
        mean_loss = self.ranks.mean(total)
        gradients = self._averaged_gradients()
        norm = _clip(gradients, self.optimisation.gradient_clip or float("inf"))
        if not np.isfinite([mean_loss, norm]).all():
            self._skipped += 1
            optimizer.zero_grad(set_to_none=True)
            if self._skipped >= SKIP_LIMIT:
                raise TrainingError(
                    f"no step of {SKIP_LIMIT} in a row was finite, the last with a loss of "
                    f"{mean_loss} and a gradient of {norm} at iteration {self.iteration}; lower "
                    f"optimisation.learning_rate={self.optimisation.learning_rate}"
                )
            return norm
        self._skipped = 0
        factor = self.optimisation.factor(self.iteration, self.iterations)
        for group in optimizer.param_groups:
            group["lr"] = self.optimisation.learning_rate * factor
        if hasattr(self._strategy, "hand_over"):
            self._strategy.hand_over(gradients)
        optimizer.step()
        return norm

    @property
    def _strategy(self) -> Any:
        return None if self._trainer is None else self._trainer.strategy

    def _averaged_gradients(self) -> list[Tensor | None]:
        """Of each trained parameter, the mean over ranks; None where none has any."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if hasattr(self._strategy, "take_gradients"):
            own = self._strategy.take_gradients() or [None] * len(trained)
            return self.ranks.average(own, trained)
        found = self.ranks.average([parameter.grad for parameter in trained], trained)
        for parameter, gradient in zip(trained, found, strict=True):
            parameter.grad = gradient
        return found

    def report(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Logs metrics of this iteration, means over ranks.

        Those in `progress_metrics` show in the progress bar. The loggers have them before the
        iteration is over. They are not told by Lightning, which repeats the last value of what this
        iteration does not report.
        """
        values = self.ranks.means({name: float(value) for name, value in metrics.items()})
        values["skipped_steps"] = float(self._skipped)
        values["iteration"] = float(self.iteration)
        self.reported = values
        if (self.iteration + 1) % (self.trainer.log_every_n_steps or 1) == 0:
            for logger in self.trainer.loggers:
                logger.log_metrics(values, step=self.iteration)
        for name, value in values.items():
            is_shown = name in self.progress_metrics
            self.log(name, value, on_step=True, prog_bar=is_shown, logger=False, batch_size=1)


def _clip(gradients: Iterable[Tensor | None], limit: float) -> float:
    """Shrinks gradients in place until their norm is `limit` at most; the norm before."""
    given = [gradient for gradient in gradients if gradient is not None]
    norm = torch.nn.utils.get_total_norm(given)
    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
    for gradient in given:
        gradient.mul_(factor)
    return float(norm)
