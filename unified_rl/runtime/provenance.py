"""Where a result comes from: code, settings, seed, machine, libraries."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

VERSIONED = ("unified-rl", "torch", "transformers", "lightning")
"""Packages whose versions a result names."""
_IRRELEVANT = ("paths", "logger", "survival", "strategy")


def provenance(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What it takes to say how a number came about; JSON-able.

    Args:
        config: the composed configuration.
        seed: of the run.
    """
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "seed": seed,
        "config": dict(config),
        "config_hash": config_hash(config),
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in VERSIONED},
        },
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hex digits that change with any setting but those that change no number: paths, where
    a run is logged, what it keeps of itself, how processes share the work.

    The folder of the weights that a run starts from is a path too; `weights_hash` tells them apart.
    """
    relevant = {key: value for key, value in config.items() if key not in _IRRELEVANT}
    if "devices" in (config.get("trainer") or {}):  # a run may go on with another number of them
        own = {key: value for key, value in config["trainer"].items() if key != "num_nodes"}
        relevant["trainer"] = {**own, "devices": 1}
    start = (config.get("model") or {}).get("checkpoint")
    if start is not None:
        relevant = _without(relevant, start)
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


def _without(node: Any, path: str) -> Any:
    """The node with nothing wherever it holds this path."""
    if isinstance(node, Mapping):
        return {key: _without(value, path) for key, value in node.items()}
    if isinstance(node, list):
        return [_without(value, path) for value in node]
    return None if node == path else node


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """Name of the CPU, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
