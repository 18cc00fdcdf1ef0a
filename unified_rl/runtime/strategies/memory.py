"""What a rank needs in memory, estimated before the first step."""

from dataclasses import dataclass
from typing import NamedTuple

_FLOAT = 4
"""Bytes of a float32."""
_ACTIVATIONS_PER_BLOCK = 17
"""Numbers of the model's width that a block keeps for each token on the way back.

Source: Korthikanti et al., arXiv 2205.05198, eq. 1: 34 bytes in 16 bit. The part that grows with
the square of the length is left out: fused attention keeps none of it.
"""


@dataclass(frozen=True)
class Load:
    """What a run asks of one rank.

    Attributes:
        trained: weights that train.
        frozen: weights that do not.
        weight_bytes: of one of them, 4 or 2.
        layers: blocks of the language model.
        width: of its hidden states.
        vocabulary: width of the larger head.
        tokens: of one completion at its longest, prompt included.
        cached_tokens: most of all completions that are drawn at once, prompts and guided twins
            included.
        learnt_rows: completions differentiated at once.
        has_reference: a frozen copy lives on the rank's device.
        recomputes: layers keep no activations.
    """

    trained: int
    frozen: int
    weight_bytes: int
    layers: int
    width: int
    vocabulary: int
    tokens: int
    cached_tokens: int
    learnt_rows: int
    has_reference: bool = False
    recomputes: bool = False


@dataclass(frozen=True)
class Sharing:
    """How the ranks share the work.

    Attributes:
        ranks: how many there are.
        zero_stage: 0 shards nothing, 1 optimizer states, 2 gradients too, 3 weights too.
        has_masters: the optimizer keeps float32 weights and moments of its own, as DeepSpeed's.
        offloads_optimizer: it does so on the CPU.
        offloads_weights: shards of weights live on the CPU.
    """

    ranks: int = 1
    zero_stage: int = 0
    has_masters: bool = False
    offloads_optimizer: bool = False
    offloads_weights: bool = False


class Memory(NamedTuple):
    """Bytes on a rank's device; a rollout's cache and an update's activations never coexist."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    cache: int
    activations: int

    @property
    def certain(self) -> int:
        """What is there for sure while a rank learns."""
        return self.weights + self.gradients + self.optimizer + self.reference

    @property
    def peak(self) -> int:
        """The most at once: while drawing there are no gradients."""
        drawing = self.weights + self.optimizer + self.reference + self.cache
        return max(drawing, self.certain + self.activations)


def estimate(load: Load, sharing: Sharing) -> Memory:
    """Bytes that a rank needs.

    Weights are whole during an iteration whatever the strategy; shards of stage 3 come on top.
    Each rank holds its own gradients; what DeepSpeed is handed comes on top, whole with stage 1.
    """
    size, ranks = load.weight_bytes, sharing.ranks
    whole = (load.trained + load.frozen) * size
    shards = whole // ranks if sharing.zero_stage == 3 and not sharing.offloads_weights else 0
    own = load.trained * size
    handed = {0: 0, 1: own}.get(sharing.zero_stage, own // ranks) if sharing.has_masters else 0
    states = 3 * _FLOAT if sharing.has_masters else 2 * size
    optimizer = load.trained * states // (ranks if sharing.zero_stage else 1)
    block = load.width * size
    kept = load.layers * block * (1 if load.recomputes else _ACTIVATIONS_PER_BLOCK)
    running = _ACTIVATIONS_PER_BLOCK * block if load.recomputes else 0
    scores = 2 * load.vocabulary * _FLOAT
    return Memory(
        weights=whole + shards,
        gradients=own + handed,
        optimizer=0 if sharing.offloads_optimizer else optimizer,
        reference=whole if load.has_reference else 0,
        cache=load.cached_tokens * 2 * load.layers * block,
        activations=load.learnt_rows * load.tokens * (kept + running + scores),
    )
