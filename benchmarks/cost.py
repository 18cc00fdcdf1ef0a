"""What a token must cost: floating-point operations and bytes against what the machine gives."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import LlamaConfig

from unified_rl.models.packed_layer import Product, has_products


@dataclass(frozen=True)
class Machine:
    """What this machine gives, measured.

    Attributes:
        flops: multiplications and additions a second in a product of large square matrices, by
            the faster of torch's own and, on a CPU, oneDNN's of packed weights.
        bandwidth: bytes a second read and written by a copy that no cache holds.
    """

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """What something takes at least.

    Attributes:
        flops: multiplications and additions.
        bytes: read from memory; what fits into caches may be read faster.
    """

    flops: float
    bytes: float

    def seconds(self, machine: Machine) -> float:
        """The longer of both, as if they overlapped entirely."""
        return max(self.flops / machine.flops, self.bytes / machine.bandwidth)


def measure(device: str, dtype: torch.dtype) -> Machine:
    """Medians of five."""
    size, count = (8192, 2**30) if device == "cuda" else (1024, 2**27)
    square = torch.randn(size, size, device=device, dtype=dtype)
    stream = torch.empty(count, device=device, dtype=torch.uint8)
    target = torch.empty_like(stream)
    took = seconds(lambda: square @ square)
    if device == "cpu" and dtype == torch.float32 and has_products():
        product = Product(square, None)
        took = min(took, seconds(lambda: product(square)))
    return Machine(
        flops=2 * size**3 / took,
        bandwidth=2 * count / seconds(lambda: target.copy_(stream)),
    )


def image_rollout(
    config: LlamaConfig, head_width: int, rows: int, prompt: int, positions: int, size: int
) -> Work:
    """Of drawing images code by code behind a cached prompt.

    Counted are the weights of the blocks and of the image head, read once a position, and keys and
    values, read once a position and row. Not counted: norms, activations, sampling, embedding,
    prompts, pictures.

    Args:
        config: of the language model.
        head_width: columns of the image head's matrices times their rows, summed.
        rows: with the unconditional twins.
        prompt: columns before the first code.
        positions: codes of an image.
        size: bytes of a number.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    kept = config.num_key_value_heads * width // heads
    block = 2 * width * width + 2 * width * kept + 3 * width * config.intermediate_size
    weights = config.num_hidden_layers * block + head_width
    seen = sum(prompt + step + 1 for step in range(positions))
    attention = 4 * rows * width * seen * config.num_hidden_layers
    cached = 2 * rows * kept * seen * config.num_hidden_layers
    return Work(
        flops=2 * weights * rows * positions + attention,
        bytes=size * (weights * positions + cached),
    )


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median wall seconds of a call, after one that is not counted."""
    timed(run)
    return statistics.median(timed(run) for _ in range(repeats))


def timed(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = now()
    run()
    return now() - started


def now() -> float:
    """Wall seconds since some start, once the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
