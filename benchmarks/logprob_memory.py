"""Peak memory of log-probs and loss: scored in parts, as replay does, against logits held whole.

Run: python -m benchmarks.logprob_memory [--rows 8] [--tokens 1536] [--vocabulary 102400]

Each peak is of a fresh process that runs forward, GRPO loss and backward once; what was there
before (states, head, libraries) does not count, gradients do. Logits held whole take about three
times their own size, so that on a CPU both are also run on `--reference-rows` of the rows, where
log-probs and gradients are compared. Timings alternate in one process, over one row of tokens.
Linux only. Exit code 1 if the peak is above a quarter of the logits, or the two differ by more than
1e-5, as they may below float32, where products of another height round otherwise.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.cost import timed
from benchmarks.memory import forget_peak, peak_bytes
from unified_rl.core.behaviour import Sampling
from unified_rl.decoding.sampling import log_distribution
from unified_rl.models.lean_logprobs import LOGITS_AT_ONCE, score_in_parts
from unified_rl.objectives.grpo import GrpoObjective
from unified_rl.runtime.provenance import provenance

RESULTS = Path(__file__).parent / "results"
WAYS = ("parts", "whole")
FORBIDDEN = 100
"""Tokens behind the last that may be chosen, as padded heads have them."""
SHARE, TOLERANCE = 0.25, 1e-5


class Batch(NamedTuple):
    """What log-probs and loss are computed from.

    Attributes:
        states: (rows * tokens, width), with gradient.
        head: width -> vocabulary.
        ids: (rows * tokens,) chosen tokens.
        allowed: (vocabulary,) bool.
        advantages: (rows,).
    """

    states: Tensor
    head: nn.Linear
    ids: Tensor
    allowed: Tensor
    advantages: Tensor


def invented(rows: int, options: argparse.Namespace) -> Batch:
    """The same each time. A row is the same whatever their number."""
    torch.manual_seed(0)
    device, dtype = options.device, getattr(torch, options.dtype)
    width, vocabulary = options.width, options.vocabulary
    head = nn.Linear(width, vocabulary, bias=False, dtype=dtype, device=device)
    shape = options.rows, options.tokens
    states = torch.randn(*shape, width, device=device, dtype=dtype)[:rows].flatten(0, 1)
    ids = torch.randint(vocabulary - FORBIDDEN, shape, device=device)[:rows].flatten()
    allowed = torch.arange(vocabulary, device=device) < vocabulary - FORBIDDEN
    advantages = torch.randn(options.rows, device=device)[:rows]
    return Batch(states.requires_grad_(), head, ids, allowed, advantages)


def run(way: str, batch: Batch) -> Tensor:
    """Log-probs (rows * tokens,), whose loss has gone backward."""

    def score(states: Tensor, ids: Tensor) -> Tensor:
        log_probs = log_distribution(batch.head(states), Sampling(), batch.allowed)
        return log_probs.gather(-1, ids[:, None]).squeeze(-1)

    fields = batch.states, batch.ids
    if way == "parts":
        logprobs = score_in_parts(score, fields, len(batch.allowed))
    else:
        logprobs = score(*fields)
    by_row = logprobs.view(len(batch.advantages), -1, 1)
    mask, old = torch.ones_like(by_row, dtype=torch.bool), by_row.detach()
    objective = GrpoObjective()
    weights = objective.weights(mask, torch.zeros_like(mask[..., 0], dtype=torch.long))
    reference = old + 0.1 * torch.sin(torch.arange(old.numel(), device=old.device)).view_as(old)
    objective.loss(by_row, old, reference, batch.advantages, weights, mask).loss.backward()
    return logprobs.detach()


def peak(device: str) -> int:
    """Bytes, of the GPU where there is one."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()


def measure(way: str, rows: int, options: argparse.Namespace, kept: Path) -> int:
    """Most bytes over those at the start, in this process; log-probs and gradients go to `kept`."""
    run(way, invented(1, argparse.Namespace(**{**vars(options), "tokens": 1})))  # warms libraries
    batch = invented(rows, options)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak()
    before = peak(options.device)
    logprobs = run(way, batch)
    most = peak(options.device) - before
    torch.save([logprobs.cpu(), batch.states.grad.cpu(), batch.head.weight.grad.cpu()], kept)
    return most


def measured(way: str, rows: int, options: argparse.Namespace, kept: Path) -> int:
    """`measure` in a fresh process."""
    names = ("rows", "tokens", "vocabulary", "width", "dtype", "device", "threads")
    passed = [f"--{name}={getattr(options, name)}" for name in names]
    command = [sys.executable, "-m", "benchmarks.logprob_memory", *passed]
    command += [f"--measure={way}", f"--measured-rows={rows}", f"--kept={kept}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def largest_gaps(first: Path, second: Path) -> dict[str, float]:
    """Of log-probs in nats; of gradients over the largest gradient."""
    names = ("logprobs", "states_gradient", "head_gradient")
    gaps = {}
    for name, a, b in zip(names, torch.load(first), torch.load(second), strict=True):
        gap = float((a.double() - b.double()).abs().max())
        gaps[name] = gap if name == "logprobs" else gap / float(b.abs().max())
    return gaps


def timings(options: argparse.Namespace) -> dict[str, object]:
    """Medians of alternating runs over one row, after one of each to warm up."""
    batch = invented(1, options)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats + 1):
        for way in WAYS:
            took = timed(lambda way=way: run(way, batch))
            if repeat:
                seconds[way].append(took)
    ratios = [a / b for a, b in zip(seconds["parts"], seconds["whole"], strict=True)]
    return {
        "tokens": options.tokens,
        "seconds_median": {way: round(statistics.median(s), 3) for way, s in seconds.items()},
        "parts_over_whole_median": round(statistics.median(ratios), 3),
        "parts_over_whole_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def main() -> int:
    """Prints what was measured and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1536, help="of each row")
    parser.add_argument("--vocabulary", type=int, default=102400)
    parser.add_argument("--width", type=int, default=256, help="of the hidden states")
    parser.add_argument("--dtype", default="float32", help="of states and head")
    parser.add_argument("--device", default=device)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--reference-rows", type=int, help="default: all on a GPU, else half")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--measured-rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(measure(options.measure, options.measured_rows, options, options.kept))
        return 0
    half = options.rows if options.device == "cuda" else max(1, options.rows // 2)
    compared = options.reference_rows or half
    row_bytes = options.tokens * options.vocabulary * 4
    with tempfile.TemporaryDirectory() as name:
        kept = {way: Path(name) / way for way in WAYS}
        whole = measured("whole", compared, options, kept["whole"])
        parts = measured("parts", compared, options, kept["parts"])
        gaps = largest_gaps(kept["parts"], kept["whole"])
        if compared < options.rows:
            parts = measured("parts", options.rows, options, kept["parts"])
    share = parts / (options.rows * row_bytes)
    internal = ("measure", "measured_rows", "kept")
    settings = {name: v for name, v in vars(options).items() if name not in internal}
    result = {
        "logits_bytes": options.rows * row_bytes,
        "parts_peak_bytes": parts,
        "parts_over_logits": round(share, 4),
        "reference": {
            "rows": compared,
            "logits_bytes": compared * row_bytes,
            "whole_peak_bytes": whole,
            "whole_over_logits": round(whole / (compared * row_bytes), 4),
            "largest_gap": gaps,
        },
        "timing": timings(options),
        "logits_at_once": LOGITS_AT_ONCE,
        "passed": share <= SHARE and max(gaps.values()) <= TOLERANCE,
        **provenance(settings, seed=0),
    }
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"logprob_memory_{options.device}.json").write_text(
        json.dumps(result, indent=2) + "\n"
    )
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
