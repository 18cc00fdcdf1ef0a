"""Serves rewards over HTTP, so that a trainer need not hold their models."""

import hashlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.runtime.cli import run

OWN_MATTERS = (
    # where a reward is computed, and how much it counts
    *("device", "weight"),
    # how a judge is reached
    *("base_url", "key_variable", "timeout_s", "attempts", "in_flight", "requests_per_minute"),
    # what that may cost
    *("request_budget", "token_budget", "cache"),
)
"""Settings that do not change what a reward says."""


def main(config: DictConfig) -> int:
    """Serves the rewards of a configuration until SIGTERM or SIGINT.

    Args:
        config: composed from `conf/serve.yaml`.
    """
    import torch
    from hydra.utils import instantiate

    from unified_rl.rewards.own_policy import OwnPolicy
    from unified_rl.runtime.quiet import quieten

    quieten()
    if config.threads:
        torch.set_num_threads(config.threads)
    if not config.reward:
        raise ConfigError("no reward to serve; name one, as in reward=visual")
    rewards = instantiate(config.reward, _convert_="all")
    for name, reward in rewards.items():
        if isinstance(reward, OwnPolicy) or hasattr(getattr(reward, "captioner", None), "bind"):
            raise ConfigError(
                f"reward {name!r} asks the policy in training, which a server has not; keep it in "
                "the trainer"
            )
        if config.self_test:
            try:
                reward.self_test()
            except RewardError as error:
                raise RewardError(f"reward {name!r} fails its self-test: {error}") from error
    settings = OmegaConf.to_container(config.reward, resolve=True)
    prints = {name: fingerprint(own) for name, own in settings.items()}
    server = instantiate(config.server)(rewards=rewards, fingerprints=prints)
    with stopped_by_signals() as stopped:
        server.start()
        print(f"serving {', '.join(sorted(rewards))} on {server.url}", flush=True)
        stopped.wait()
        print("ending: requests in hand are finished first", flush=True)
        server.stop(config.grace_s)
    return 0


def fingerprint(settings: Any) -> str:
    """Hash of a reward's class and settings, but for `OWN_MATTERS`; weights are not read."""
    return hashlib.sha256(json.dumps(_kept(settings), sort_keys=True).encode()).hexdigest()


def _kept(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {key: _kept(own) for key, own in settings.items() if key not in OWN_MATTERS}
    return [_kept(own) for own in settings] if isinstance(settings, list) else settings


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, which do nothing else meanwhile."""
    stopped = threading.Event()
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(kind, lambda *_: stopped.set()) for kind in kinds]
    try:
        yield stopped
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


if __name__ == "__main__":
    sys.exit(run(main, "serve", __doc__))
