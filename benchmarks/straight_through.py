"""Whether the gradient of an answer says which codes of a drawing would make it better.

Run: python -m benchmarks.straight_through model=micro_vila_u [model.checkpoint=FOLDER]

Straight-through training trusts that the slope of an answer's log-likelihood at a hard code vector
predicts what another code would do. Here single positions of drawings are drawn anew, and the
change that the slope predicts is held against the change that comes. Prints the rank correlation
(changes have long tails) and how often the signs agree where the true change exceeds 0.1 nats.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from scipy.stats import spearmanr
from torch import Tensor

from unified_rl.core.trajectory import Trajectory
from unified_rl.data.self_questions import ask_about
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.pictures import drawn_codes
from unified_rl.runtime.cli import register_resolvers

DRAWINGS, ROUNDS, SEED = 256, 40, 1
CONF = Path(__file__).parents[1] / "conf"


def code_vectors(policy: UnifiedPolicy, codes: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, D, E)."""
    depths = range(codes.shape[-1])
    return torch.stack([policy.code_table(depth)[codes[..., depth]] for depth in depths], -2)


def likelihoods(policy: UnifiedPolicy, answers: Trajectory, vectors: Tensor) -> Tensor:
    """(B,) log-likelihoods of the gold answers about pictures of these vectors."""
    shown = policy.embed_code_vectors(vectors)[:, None]
    return policy.logprobs(answers._replace(tape={**answers.tape, "shown": shown})).sum((1, 2))


def changes(policy: UnifiedPolicy, config: object) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true changes, in nats, of every position that got another code."""
    rng, generator = np.random.default_rng(SEED), torch.Generator().manual_seed(SEED)
    source = instantiate(config.data).sources["self_questions"]
    samples = [source.draw(rng) for _ in range(DRAWINGS)]
    drawn, completions = policy.sample(samples, instantiate(config.behaviour), generator)
    pictures = policy.own_pictures(drawn, completions)
    answers = policy.encode([ask_about(*p) for p in zip(samples, pictures, strict=True)], generator)
    codes, rows = drawn_codes(policy, drawn), torch.arange(DRAWINGS)
    vectors = code_vectors(policy, codes).detach().requires_grad_()
    before = likelihoods(policy, answers, vectors)
    (slopes,) = torch.autograd.grad(before.sum(), vectors)
    predicted, true = [], []
    with torch.no_grad():
        generators = [torch.Generator().manual_seed(row) for row in range(DRAWINGS)]
        states, _, _ = policy.relaxed_states(drawn, generators)
        for _ in range(ROUNDS):
            place = torch.randint(codes.shape[1], (DRAWINGS,), generator=generator)
            other = codes.clone()
            other[rows, place] = policy.redraw_codes(states[rows, place], generator)
            moved = code_vectors(policy, other)
            differs = (other != codes).flatten(1).any(1)
            predicted.append((slopes * (moved - vectors)).sum((1, 2, 3))[differs])
            true.append((likelihoods(policy, answers, moved) - before)[differs])
    return torch.cat(predicted).numpy(), torch.cat(true).numpy()


def main() -> None:
    """Measures one policy."""
    torch.set_num_threads(1)
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        asked = ["data=self_questions", "paths.output=unused", *sys.argv[1:]]
        config = compose("train", asked)
    policy = instantiate(config.model)().eval()
    predicted, true = changes(policy, config)
    great = np.abs(true) > 0.1
    agreed = np.sign(predicted[great]) == np.sign(true[great])
    figures = {
        "changed_positions": len(true),
        "rank_correlation": round(float(spearmanr(predicted, true).statistic), 3),
        "signs_agree": round(float(agreed.mean()), 3),
        "of": int(great.sum()),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
