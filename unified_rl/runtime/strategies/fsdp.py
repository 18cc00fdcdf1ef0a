"""PyTorch's FSDP2 for stages whose ranks take different ways through the model."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.strategies.replicated import ReplicatedStrategy


class ShardedStrategy(ReplicatedStrategy):
    """Shards weights and optimizer states over all ranks, with nothing but PyTorch.

    As with `ZeroStrategy`, weights are whole on every rank for an iteration, gradients are averaged
    once a step, and checkpoints hold whole tensors. A weight that no rank has a gradient of stands
    still, as in one process.

    Args:
        offload: keeps shards on the CPU between iterations; the optimizer works there.
        timeout_s: seconds that ranks wait for each other; see `Ranks`.
    """

    def __init__(self, offload: bool = False, timeout_s: float = 1800.0) -> None:
        super().__init__(timeout_s)
        self.offload = offload
        self._gradients: list[Tensor | None] = []
        self._plain_class: type[nn.Module] | None = None
        self._is_whole = False

    def configure_ddp(self) -> None:
        """Shards the policy, once all ranks have the weights of the first.

        Raises:
            ConfigError: the stage trains more than the policy.
        """
        super().configure_ddp()
        policy = self.lightning_module.policy
        own = {id(parameter) for parameter in policy.parameters()}
        if any(id(parameter) not in own for parameter in self.lightning_module.parameters()):
            raise ConfigError("this stage trains more than the policy; use strategy=ddp")
        dtypes = Counter(parameter.dtype for parameter in policy.parameters())
        (common, _), *_ = dtypes.most_common(1)
        self._plain_class = type(policy)
        device = self.root_device.type
        fully_shard(
            policy,
            mesh=init_device_mesh(device, (self.world_size,)),
            reshard_after_forward=False,
            offload_policy=CPUOffloadPolicy(pin_memory=False) if self.offload else OffloadPolicy(),
            # a group of shards has one type; LoRA's few weights may be of another
            ignored_params={p for p in policy.parameters() if p.dtype != common},
        )

    # -- an iteration --------------------------------------------------------------------------

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Weights are whole on every rank inside; all ranks enter and leave together."""
        if self._is_whole or self._plain_class is None:
            yield
            return
        self._gather()
        try:
            yield
        finally:
            self._release()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The stage's step, on whole weights."""
        with self.whole_weights():
            return super().training_step(*args, **kwargs)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Adds to this rank's own gradients; nothing is exchanged."""
        closure_loss.backward()
        return closure_loss

    def take_gradients(self) -> list[Tensor | None]:
        """Takes this rank's gradients away, by trained parameter."""
        trained = self._trained()
        found = [parameter.grad for parameter in trained]
        for parameter in trained:
            parameter.grad = None
        return found

    def hand_over(self, gradients: Sequence[Tensor | None]) -> None:
        """Gives each rank its part of averaged gradients, for the step that follows."""
        self._release()
        for parameter, gradient in zip(self._trained(), gradients, strict=True):
            parameter.grad = None if gradient is None else _part(gradient, parameter)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """One step of the sharded weights, which are whole again behind it."""
        found = super().optimizer_step(*args, **kwargs)
        for parameter in self._trained():
            parameter.grad = None
        self._gather()
        return found

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.lightning_module.parameters() if p.requires_grad]

    def _gather(self) -> None:
        self.ranks.meet("gather the weights")
        self.lightning_module.policy.unshard()
        self._is_whole = True

    def _release(self) -> None:
        self.lightning_module.policy.reshard()
        self._is_whole = False

    # -- checkpoints ---------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights on rank 0; nothing elsewhere."""
        return self._first_only(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Whole states in the form of the plain optimizer; no states but on rank 0."""
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        saved = inner.state_dict()
        state = {index: self._first_only(own) for index, own in saved["state"].items()}
        return {**saved, "state": state}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes whole states, each rank what is its own."""
        (optimizer,), (saved,) = self.optimizers, checkpoint["optimizer_states"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state = {
            index: {
                name: _part(value, parameters[index]) if value.ndim else value
                for name, value in own.items()
                if isinstance(value, Tensor)
            }
            for index, own in saved["state"].items()
        }
        optimizer.load_state_dict({**saved, "state": state})

    @contextmanager
    def plain_weights(self) -> Iterator[None]:
        """The policy is a plain one inside, with all of its weights, so that it can be written.

        Unlike `whole_weights`, from which FSDP2 goes back to shards when it is asked for a state.
        """
        if self._plain_class is None:
            yield
            return
        shards = self._make_plain()
        try:
            yield
        finally:
            for module, name, shard in shards:
                module._parameters[name] = shard

    def on_train_end(self) -> None:
        """Leaves a plain, whole policy behind, which the end of a run writes."""
        self._make_plain()
        self.lightning_module.policy.__class__, self._plain_class = self._plain_class, None

    def _make_plain(self) -> list[tuple[nn.Module, str, nn.Parameter]]:
        """Puts whole weights in the place of shards, which are returned."""
        shards = [
            (module, name, parameter)
            for module in self.lightning_module.policy.modules()
            for name, parameter in module._parameters.items()
            if isinstance(parameter, DTensor)
        ]
        self.ranks.meet("gather the weights")
        for module, name, shard in shards:
            module._parameters[name] = nn.Parameter(shard.full_tensor(), shard.requires_grad)
        return shards

    def _first_only(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Whole tensors on the CPU of rank 0; the others help."""
        found = {}
        for name, value in tensors.items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if self.is_global_zero:
                found[name] = whole.cpu().clone() if isinstance(whole, Tensor) else whole
        return found


def _part(whole: Tensor, like: Tensor) -> Tensor:
    """What this rank keeps of a tensor that all ranks hold; nothing is exchanged."""
    if not isinstance(like, DTensor):
        return whole
    on_device = whole.to(like.device_mesh.device_type)
    part = distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)
    return torch.as_tensor(part).to(like.device)
