"""States of a sharded AdamW as whole tensors, in the form of the plain one, and back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
MASTER = "master"
"""The float32 weights that the optimizer moves, beside the moments; plain AdamW passes over it."""


def gathered(sharded: Any, groups: Sequence[Sequence[nn.Parameter]]) -> dict[str, Any]:
    """The states on the CPU; all ranks call it.

    Args:
        sharded: DeepSpeed's optimizer of ZeRO 1 to 3.
        groups: the parameters as the plain optimizer had them in its groups.

    Returns:
        What `state_dict` of the plain optimizer would give, with masters; without a state before
        the first step.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    steps = [state["step"] for state in sharded.optimizer.state.values() if "step" in state]
    if steps:
        _link(sharded)
    state: dict[int, dict[str, Tensor]] = {}
    is_first = distributed.get_rank() == 0
    for index, (_, parameter) in enumerate(_numbered(groups) if steps else ()):
        found = {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
        found[MASTER] = safe_get_full_fp32_param(parameter)
        if is_first:  # the others help, and keep nothing
            state[index] = {name: value.cpu() for name, value in found.items()}
            state[index]["step"] = torch.as_tensor(float(steps[0]))
    numbers = iter(range(sum(map(len, groups))))
    plain = [
        {name: value for name, value in group.items() if name != "params"}
        | {"params": [next(numbers) for _ in own]}
        for group, own in zip(sharded.param_groups, groups, strict=True)
    ]
    return {"state": state, "param_groups": plain}


@torch.no_grad()
def scatter(
    sharded: Any,
    groups: Sequence[Sequence[nn.Parameter]],
    saved: Mapping[str, Any],
    weights: Sequence[Sequence[Tensor]],
) -> None:
    """Gives each rank its part of saved states.

    Args:
        sharded: see `gathered`.
        groups: likewise.
        saved: what `gathered` returned, or the plain optimizer's `state_dict`.
        weights: whole ones, by group; they stand in for masters that were not saved.
    """
    state = saved["state"]
    flats = _flat_weights(sharded)
    if state:
        step = next(iter(state.values()))["step"]
        for flat in flats:
            zeros = {name: torch.zeros_like(flat) for name in MOMENTS}
            sharded.optimizer.state[flat] = {"step": torch.as_tensor(float(step)), **zeros}
        _link(sharded)
    whole = [tensor for group in weights for tensor in group]
    for index, (_, parameter) in enumerate(_numbered(groups)):
        own = state.get(index, {})
        _give(parameter, own.get(MASTER, whole[index]), None)
        for name in MOMENTS if state else ():
            _give(parameter, own.get(name, torch.zeros_like(whole[index])), name)


def _give(parameter: nn.Parameter, value: Tensor, name: str | None) -> None:
    """Sets this rank's part of a master (None) or a moment from the whole."""
    from deepspeed import utils

    if not hasattr(parameter, "ds_tensor"):
        if name is None:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, name)
        return
    share = parameter.ds_tensor.numel()  # of all ranks the same, padded behind the last weight
    padded = value.new_zeros(share * distributed.get_world_size())
    padded[: value.numel()] = value.flatten()
    own = padded.narrow(0, share * distributed.get_rank(), share)
    if name is None:
        utils.safe_set_local_fp32_param(parameter, own)
    else:
        utils.safe_set_local_optimizer_state(parameter, own, name)


def _flat_weights(sharded: Any) -> list[Tensor]:
    """The tensors under which the inner optimizer keeps its states."""
    if hasattr(sharded, "fp32_partitioned_groups_flat"):  # ZeRO 3
        return sharded.fp32_partitioned_groups_flat
    return sharded.single_partition_of_fp32_groups


def _link(sharded: Any) -> None:
    """Tells the parameters of ZeRO 1 and 2 where their states are.

    DeepSpeed does so behind the first step of the first group, when the others have no states yet.
    """
    if hasattr(sharded, "_hp_optimizer_states_linked"):
        sharded._hp_optimizer_states_linked = False
        sharded._lazy_init_hp_params_optimizer_state()


def _numbered(
    groups: Sequence[Sequence[nn.Parameter]],
) -> Iterator[tuple[int, nn.Parameter]]:
    """Parameters in the order in which the plain optimizer numbers them, with their group."""
    for place, group in enumerate(groups):
        for parameter in group:
            yield place, parameter
