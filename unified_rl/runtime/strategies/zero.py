"""DeepSpeed ZeRO for stages whose ranks take different ways through the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from torch import Tensor, distributed, nn

from unified_rl.core.errors import ConfigError
from unified_rl.core.ranks import Ranks
from unified_rl.runtime.strategies import zero_states

_GIGA = 1e9
_BUCKET = 50_000_000
"""Elements that DeepSpeed reduces or gathers at once."""

_SHARED_MEMORY = "deepspeed_shm_comm"
"""DeepSpeed's kernels for exchange between processes of one machine; gloo does as well."""


class ZeroStrategy(DeepSpeedStrategy):
    """Shards optimizer states (stage 1), gradients (2) and weights (3) over all ranks.

    Rollouts are ragged: one rank draws an image where another writes on, so the ranks never call
    the same modules in the same order, as the hooks of ZeRO-2 and ZeRO-3 need. Here nothing is
    exchanged while a rank computes. Weights are whole on every rank for an iteration, gradients
    are kept by the rank until its part of the batch is done; then all ranks average them, clip
    them, and hand them to DeepSpeed in one fixed order. What ZeRO saves is therefore: optimizer
    states always; with stage 3 the weights between iterations and while the optimizer works.

    Checkpoints hold whole weights and optimizer states, in the form of a single process: a run may
    go on with other strategies and numbers of ranks.

    Departs: from Lightning's strategy in running on the CPU too, over gloo.

    Args:
        stage: of ZeRO, 1 to 3.
        offload_optimizer: keeps optimizer states, and the optimizer's work, on the CPU.
        offload_parameters: keeps sharded weights on the CPU between iterations; stage 3 only.
        timeout_s: seconds that ranks wait for each other; see `Ranks`.
        gather_limit_gb: largest size in GB (1e9 bytes) that whole weights may have on a rank,
            with stage 3; null sets no limit.

    Raises:
        ConfigError: there is no such stage, or weights would be offloaded that are not sharded.
    """

    def __init__(
        self,
        stage: int = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        timeout_s: float = 1800.0,
        gather_limit_gb: float | None = None,
    ) -> None:
        if stage not in (1, 2, 3):
            raise ConfigError(f"strategy.stage={stage} is none of 1, 2, 3")
        if offload_parameters and stage != 3:
            raise ConfigError(
                f"strategy.offload_parameters=true needs strategy.stage=3, not {stage}, which "
                "leaves weights whole"
            )
        super().__init__(
            stage=stage,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_parameters,
            reduce_bucket_size=_BUCKET,
            allgather_bucket_size=_BUCKET,
            timeout=timedelta(seconds=timeout_s),
        )
        self.config["zero_force_ds_cpu_optimizer"] = False  # DeepSpeed's needs a compiler
        self.timeout_s, self.gather_limit_gb = timeout_s, gather_limit_gb
        self.ranks = Ranks()
        self._gradients: list[Tensor | None] = []
        self._groups: list[list[nn.Parameter]] = []
        self._depth = 0

    # -- start ---------------------------------------------------------------------------------

    @property
    def _on_cpu(self) -> bool:
        return isinstance(self.accelerator, CPUAccelerator)

    def setup_environment(self) -> None:
        """Starts the processes, on the CPU too."""
        if self.precision_plugin.precision.startswith("16"):
            raise ConfigError(
                f"trainer.precision={self.precision_plugin.precision} scales losses, which "
                "gradients that are handed over would miss; use bf16-mixed or 32-true"
            )
        self.precision_plugin = _Precision(self.precision_plugin.precision)
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """Joins all ranks."""
        if not self._on_cpu:
            super().setup_distributed()
        else:
            import deepspeed

            # These would be compiled first, and who is killed meanwhile leaves a lock behind.
            deepspeed.ops.__compatible_ops__[_SHARED_MEMORY] = False
            self.set_world_ranks()
            self._init_deepspeed_distributed()
        self.ranks = Ranks(distributed.new_group(backend="gloo"), self.timeout_s)

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """The policy is built whole, as it is read from its files, and sharded afterwards."""
        yield

    def setup(self, trainer: Any) -> None:
        """Hands the policy and its optimizer to DeepSpeed."""
        super().setup(trainer)
        if self.zero_stage_3:
            # They would gather the weights of a module whenever one rank calls it.
            self.model.optimizer.parameter_offload._remove_module_hooks()
            self._announce_gathering()

    def _setup_model_and_optimizer(
        self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None
    ) -> tuple[Any, Any]:
        import deepspeed

        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        engine, sharded, _, _ = deepspeed.initialize(
            config=self.config,
            model=model,
            model_parameters=[p for group in self._groups for p in group],
            optimizer=optimizer,
            dist_init_required=False,
        )
        return engine, sharded

    def _announce_gathering(self) -> None:
        size = sum(p.ds_numel * p.element_size() for p in self.lightning_module.parameters())
        if self.gather_limit_gb is not None and size > self.gather_limit_gb * _GIGA:
            raise ConfigError(
                f"whole weights take {size / _GIGA:.3g} GB on every rank during an iteration, more "
                f"than strategy.gather_limit_gb={self.gather_limit_gb:g}; raise it, or train an "
                "adapter (adapter=lora)"
            )
        if self.is_global_zero:
            print(f"strategy: {size / _GIGA:.3g} GB of weights are gathered for each iteration")

    # -- an iteration --------------------------------------------------------------------------

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Weights are whole on every rank inside; all ranks enter and leave together."""
        if not self.zero_stage_3 or self._depth or not hasattr(self.model, "optimizer"):
            yield
            return
        self._gather()
        try:
            yield
        finally:
            self._release()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The stage's step, past the engine, whose own forward expects a plain network."""
        with self.precision_plugin.train_step_context(), self.whole_weights():
            return self.lightning_module.training_step(*args, **kwargs)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Adds to this rank's own gradients; nothing is exchanged."""
        trained = [p for p in self.lightning_module.parameters() if p.requires_grad]
        found = torch.autograd.grad(closure_loss, trained, allow_unused=True)
        if not self._gradients:
            self._gradients = [None] * len(trained)
        for index, gradient in enumerate(found):
            own = self._gradients[index]
            if own is None:
                self._gradients[index] = gradient
            elif gradient is not None:
                own += gradient
        return closure_loss

    def take_gradients(self) -> list[Tensor | None]:
        """Takes this rank's gradients away, by trained parameter."""
        found, self._gradients = self._gradients, []
        return found

    def hand_over(self, gradients: Sequence[Tensor | None]) -> None:
        """Gives averaged gradients to the engine, which shards them.

        They reach it as the gradient of a sum of products, in one order on all ranks.
        """
        trained = [p for p in self.lightning_module.parameters() if p.requires_grad]
        pairs = list(zip(trained, gradients, strict=True))

        def products() -> Tensor:
            given = [torch.zeros_like(p) if g is None else g for p, g in pairs]
            return torch.stack(
                [(p * g).sum().float() for (p, _), g in zip(pairs, given, strict=True)]
            ).sum()

        self.lightning_module.forward = products
        try:
            loss = self.model()
        finally:
            del self.lightning_module.forward
        self.model.backward(loss)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """One step of the sharded optimizer; weights are whole again behind it."""
        was_whole = self._depth
        if was_whole:
            self._release()
        found = super().optimizer_step(*args, **kwargs)
        if was_whole:
            self._gather()
        return found

    def _gather(self) -> None:
        self.ranks.meet("gather the weights")
        parameters = list(self.lightning_module.parameters())
        parameters[0].all_gather(parameters)
        self._depth = 1

    def _release(self) -> None:
        parameters = list(self.lightning_module.parameters())
        parameters[0].partition(parameters, has_been_updated=False)
        self._depth = 0

    # -- checkpoints ---------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights on rank 0; nothing elsewhere."""
        with self.whole_weights():
            state = self.lightning_module.state_dict()
            return {k: v.detach().cpu().clone() for k, v in state.items() if self.is_global_zero}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Whole states in the form of the plain optimizer; nothing but on rank 0."""
        state = zero_states.gathered(self.model.optimizer, self._groups)
        return state if self.is_global_zero else {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """One file, written by rank 0."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Maps the file, so that ranks on one machine share its memory."""
        return torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether `load_optimizer_state_dict` is asked."""
        return True

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Takes whole weights."""
        with self.whole_weights():
            self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)
            if self._depth:
                parameters = list(self.lightning_module.parameters())
                parameters[0].partition(parameters, has_been_updated=True)
                parameters[0].all_gather(parameters)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes whole states, each rank what is its own."""
        (state,) = checkpoint["optimizer_states"]
        with self.whole_weights():
            masters = [[p.detach().clone() for p in group] for group in self._groups]
        zero_states.scatter(self.model.optimizer, self._groups, state, masters)

    def on_train_end(self) -> None:
        """Leaves whole weights behind, which the end of a run writes."""
        if self.zero_stage_3:
            self._gather()
            for parameter in self.lightning_module.parameters():
                parameter.data = parameter.data.clone()


class _Precision(DeepSpeedPrecision):
    """DeepSpeed's, which leaves samples as they are."""

    def convert_input(self, data: Any) -> Any:
        return data
