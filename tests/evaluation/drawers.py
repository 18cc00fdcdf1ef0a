"""Policies that draw known pictures, for the suites that keep them as files."""

import json
from pathlib import Path

import numpy as np
import torch

from unified_rl.core.sample import Completion, Image

SIDE = 16


class Drawer(torch.nn.Module):
    """Draws noise that depends on the generator alone, and counts its pictures."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight]))
        self.prompts = []

    def sample(self, samples, behaviour, generator):
        self.prompts += [sample.prompt_text for sample in samples]
        noise = torch.randint(0, 256, (len(samples), SIDE, SIDE, 3), generator=generator)
        return None, tuple(
            Completion((Image(pixels.numpy().astype(np.uint8)),), True) for pixels in noise
        )


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files, by their path in the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(path: Path, rows: list[dict]) -> str:
    """Writes JSON lines; the path as a text."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
