"""How figures of a benchmark are written down: with the machine and the commit they come from."""

import json
from pathlib import Path
from typing import Any

import torch

from unified_rl.runtime.provenance import processor, provenance

RESULTS = Path(__file__).parent / "results"


def record(name: str, found: dict[str, Any], device: str = "cpu", threads: int = 0) -> Path:
    """Prints figures and writes them as JSON.

    Args:
        name: of the benchmark and its size.
        found: the figures.
        device: "cpu" or "cuda".
        threads: that were used; 0 stands for torch's choice.

    Returns:
        The file, `results/NAME_DEVICE.json`.
    """
    result = found | {
        "hardware": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": provenance({}, 0)["commit"],
    }
    text = json.dumps(result, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{device}.json"
    path.write_text(text + "\n")
    return path
