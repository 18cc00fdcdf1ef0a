"""Publishes a checkpoint as an asset with its model card: command, seed, time, scores."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from unified_rl.models.checkpoint import write_folder

ORIGIN = ("commit", "seed", "config_hash", "hardware", "versions")
"""What a published checkpoint says of its making; the rest holds paths of one machine."""

CODEC = re.compile(r"(^|\.)(codec|vqmodel)\.")
"""In names of image tokenizers, whose codes may turn on the last bit."""


def publish(
    checkpoint: Path,
    asset: Path,
    command: str,
    evaluation: Mapping[str, Any],
    suite: str,
    train_s: float,
) -> None:
    """Copies a checkpoint folder and lays a `README.md` with its measured scores into it.

    Matrices outside the image tokenizer are stored in float16, which halves the file; policies
    load them in float32 again.

    Args:
        checkpoint: what to publish.
        asset: final place; replaced as a whole.
        command: what makes it again.
        evaluation: `evaluation.json` of this checkpoint.
        suite: option of `conf/suite` that gave it.
        train_s: seconds that all training phases took together.
    """

    def write(folder: Path) -> None:
        for path in checkpoint.iterdir():
            if path.suffix == ".safetensors":
                _store_small(path, folder / path.name)
            elif path.name != "provenance.json":
                shutil.copy2(path, folder / path.name)
        (folder / "README.md").write_text(_card(asset.name, command, evaluation, suite, train_s))
        origin = {key: evaluation["provenance"][key] for key in ORIGIN}
        card = {"command": command, "provenance": origin}
        (folder / "provenance.json").write_text(json.dumps(card, indent=2) + "\n")

    write_folder(asset, write)


def _store_small(path: Path, target: Path) -> None:
    tensors = {
        name: tensor.half() if tensor.ndim >= 2 and not CODEC.search(name) else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, target, metadata={"format": "pt"})
    target.chmod(0o644)  # the library makes private files


def _card(
    name: str, command: str, evaluation: Mapping[str, Any], suite: str, train_s: float
) -> str:
    metrics, origin = evaluation["metrics"], evaluation["provenance"]
    hardware, versions = origin["hardware"], origin["versions"]
    rows = [
        f"| {metric.replace('_', ' ')} | {score['value']:.3f} | {score['low']:.3f} to "
        f"{score['high']:.3f} | {score['n']} |"
        for metric, score in metrics.items()
        if metric.startswith(("generation", "understanding")) or metric == "format_validity"
    ]
    return "\n".join(
        [
            "---",
            "license: apache-2.0",
            "tags: [unified-multimodal, micro-world]",
            "---",
            f"# {name}",
            "",
            "A micro-scale base for the embedded micro-world of `unified-rl` (24 px pictures of",
            "coloured shapes): it draws single pictures and answers questions, but does not",
            "interleave. Its numbers say nothing of the papers' models.",
            "",
            f"- made by `{command}`, seed {origin['seed']}",
            f"- {train_s / 60:.0f} minutes on {hardware['threads']} thread(s) of "
            f"{hardware['processor']}",
            f"- torch {versions['torch']}, transformers {versions['transformers']}",
            "- stored in float16 outside the image tokenizer; scored before it was rounded",
            "- trained on pictures that the micro-world draws itself; no outside data",
            "",
            f"Held-out prompts of `conf/suite/{suite}.yaml`, strict scoring by the pixel verifier,",
            "95% intervals:",
            "",
            "| score | value | interval | n |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
