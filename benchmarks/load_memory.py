"""Peak memory of loading an official Janus checkpoint of the 1B size, of random weights.

Run: python -m benchmarks.load_memory [--stored bfloat16] [--dtype float32] [--format safetensors]

Writes about 4 GB (bfloat16) into a temporary folder and removes them again. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.memory import forget_peak, peak_bytes
from unified_rl.models.janus import official
from unified_rl.models.specimens.janus import PUBLISHED, official_shapes, published
from unified_rl.models.weights import FolderWeights

SHARDS = 2


def write(folder: Path, stored: torch.dtype, suffix: str) -> int:
    """Random tensors under the official names, in shards; returns their size in bytes."""
    settings = published(2048, 5632, 24, 16)
    (folder / "config.json").write_text(json.dumps(settings))
    shapes = list(official_shapes(settings, PUBLISHED).items())
    weight_map, size = {}, 0
    for index in range(SHARDS):
        shard = f"shard-{index}{suffix}"
        part = shapes[index::SHARDS]
        tensors = {name: torch.empty(s, dtype=stored).normal_(0, 0.02) for name, s in part}
        size += sum(tensor.nbytes for tensor in tensors.values())
        weight_map |= dict.fromkeys(tensors, shard)
        save = save_file if suffix == ".safetensors" else torch.save
        save(tensors, folder / shard)
    index = json.dumps({"weight_map": weight_map})
    (folder / f"model{suffix}.index.json").write_text(index)
    return size


def measure(folder: Path, dtype: torch.dtype) -> dict[str, float]:
    """Loads in this process; the peak counts from here on, everything resident included."""
    settings = json.loads((folder / "config.json").read_text())
    config = official.janus_config(settings)
    forget_peak()
    before, start = peak_bytes(), time.perf_counter()
    model = official.build(config, FolderWeights(folder), official.KEY_MAP, dtype)
    seconds = time.perf_counter() - start
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return {
        "seconds": round(seconds, 1),
        "model_bytes": held,
        "peak_over_start_bytes": peak_bytes() - before,
        "peak_bytes": peak_bytes(),
        "ratio": round((peak_bytes() - before) / held, 3),
        "ratio_with_libraries": round(peak_bytes() / held, 3),
    }


def main() -> None:
    """Writes, then measures in a fresh process, whose memory holds nothing of the writing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stored", default="bfloat16", help="dtype in the files")
    parser.add_argument("--dtype", default="float32", help="dtype asked for")
    parser.add_argument("--format", default="safetensors", choices=["safetensors", "bin"])
    parser.add_argument("--parent", help="where the temporary folder is made")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, getattr(torch, options.dtype))))
        return
    with tempfile.TemporaryDirectory(dir=options.parent) as name:
        size = write(Path(name), getattr(torch, options.stored), "." + options.format)
        command = [sys.executable, "-m", "benchmarks.load_memory", "--measure", name]
        done = subprocess.run(
            [*command, "--dtype", options.dtype], capture_output=True, text=True, check=True
        )
    print(json.dumps({**vars(options), "file_bytes": size, **json.loads(done.stdout)}, indent=2))


if __name__ == "__main__":
    main()
