"""Folders of recorded tensors of the published models, where there are any."""

import os
from pathlib import Path

import pytest

from benchmarks.parity.checks import read

VARIABLE = "GOLDEN_FOLDERS"
BESIDE = Path(__file__).parents[3] / "shared" / "golden"


def recorded_folders():
    """Those that GOLDEN_FOLDERS names, separated as in PATH, or all beside the checkout."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Path(folder) for folder in named.split(os.pathsep)]
    return sorted(path.parent for path in BESIDE.glob("*/io.safetensors"))


FOLDERS = recorded_folders()
needs_folders = pytest.mark.skipif(
    not FOLDERS, reason=f"no recorded tensors: {VARIABLE} is not set, {BESIDE} holds none"
)
each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def golden_of(model):
    """The first folder of a model; skips the test where there is none."""
    for folder in FOLDERS:
        golden = read(folder)
        if golden.config["model"] == model:
            return golden
    pytest.skip(f"no recorded tensors of {model}: {VARIABLE} is not set, {BESIDE} holds none")
    return None
