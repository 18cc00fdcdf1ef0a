"""Writes the policy of an unfinished run as a standard folder, from its resumable checkpoint.
python -m unified_rl.consolidate model=MODEL resumable=FILE output=FOLDER
Give model, adapter and model.checkpoint as the run has them; the strategy does not matter.
"""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from unified_rl.core.errors import CheckpointError
from unified_rl.runtime.cli import run


def main(config: DictConfig) -> int:
    """Writes the policy in `resumable` into `output`.

    Args:
        config: composed from `conf/consolidate.yaml`.

    Raises:
        CheckpointError: the file cannot be read, does not fit the model, or `output` is taken.
    """
    import functools

    from hydra.utils import instantiate

    from unified_rl.models import adapter_folder
    from unified_rl.models.checkpoint import require_new, write_folder
    from unified_rl.runtime.quiet import quieten

    quieten()
    output, resumable = Path(config.output), Path(config.resumable)
    require_new(output, "output")
    saved = _read(resumable)
    policy = instantiate(config.policy, _convert_="all")()
    _load(policy, saved["state_dict"], resumable)
    card = {"resumable": str(resumable), "iteration": saved["iteration"]}
    write_folder(output, functools.partial(adapter_folder.save, policy), card)
    print(f"checkpoint: {output} (of iteration {saved['iteration']})")
    return 0


def _read(path: Path) -> dict[str, Any]:
    """The file; nothing in it is run."""
    import torch

    if path.is_dir():
        raise CheckpointError(f"resumable={path} is a folder; give the .ckpt file in it")
    try:
        saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        return {name: saved[name] for name in ("state_dict", "iteration")}
    except Exception as error:  # whatever a broken file makes torch raise
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise CheckpointError(
            f"resumable={path} is not a run's resumable checkpoint ({reason})"
        ) from error


def _load(policy: Any, state: dict[str, Any], path: Path) -> None:
    """Copies the weights of a stage's policy; what an adapter leaves alone is its base's."""
    from unified_rl.models.adapter import frozen_base

    prefix = "policy."
    own = {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}
    try:
        missing, unexpected = policy.load_state_dict(own, strict=False)
    except RuntimeError as error:  # other shapes
        first = [line.strip() for line in str(error).splitlines()][-1]
        raise CheckpointError(f"{path} does not fit the model: {first}") from error
    odd = sorted({*unexpected, *(set(missing) - frozen_base(policy))})
    if odd:
        raise CheckpointError(
            f"{path} does not fit the model: {odd[0]} is too much or missing, the first of "
            f"{len(odd)}; give model=, adapter= and model.checkpoint= as the run had them"
        )


if __name__ == "__main__":
    sys.exit(run(main, "consolidate", __doc__))
