"""Image rollouts against `JanusForConditionalGeneration.generate`, paired and alternating.

Run: python -m benchmarks.rollout [--rows 48] [--repeats 7]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.data.microworld import drawing_sample
from unified_rl.microworld.prompts import prompts
from unified_rl.models.janus.load import janus
from unified_rl.models.janus.policy import JanusPolicy
from unified_rl.runtime.provenance import processor

RESULTS = Path(__file__).parent / "results"


def library(policy: JanusPolicy, rows: int, guidance: float) -> Callable[[], torch.Tensor]:
    """Greedy guided images by the library's own loop."""
    sample = drawing_sample(prompts("attribution", "test")[0])
    ids = [*policy.prompt_ids(sample), policy.begin_of_image_id]
    inputs = torch.tensor([ids] * rows, device=policy.device)
    settings = policy.janus.generation_config
    settings.generation_kwargs = {"boi_token_id": policy.begin_of_image_id}
    settings.guidance_scale, settings.do_sample = guidance, False
    settings.pad_token_id, settings.bos_token_id = policy.pad_id, policy.start_id
    settings.eos_token_id = policy.end_of_text_id

    def run() -> torch.Tensor:
        with torch.no_grad():
            return policy.janus.generate(
                inputs=inputs,
                attention_mask=torch.ones_like(inputs),
                generation_mode="image",
                generation_config=settings,
                max_length=len(ids) + policy.image_positions,
            )

    return run


def ours(policy: JanusPolicy, rows: int, guidance: float) -> Callable[[], torch.Tensor]:
    """The same images by `Policy.sample`, log-probs recorded and pictures decoded beside."""
    samples = [drawing_sample(prompts("attribution", "test")[0])] * rows
    behaviour = Behaviour(image=Sampling(temperature=0.0), guidance_scale=guidance)
    generator = torch.Generator(device=policy.device).manual_seed(0)

    def run() -> torch.Tensor:
        trajectory, _ = policy.sample(samples, behaviour, generator)
        return trajectory.tape["ids"][:, -policy.image_positions :, 0]

    return run


def timed(run: Callable[[], torch.Tensor]) -> float:
    """Wall seconds of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Prints medians and their ratio, and writes them as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--checkpoint", default="assets/micro_janus")
    arguments.add_argument("--rows", type=int, default=48)
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--guidance", type=float, default=3.0)
    options = arguments.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = janus(options.checkpoint).eval().to(device)
    runs = {
        "library": library(policy, options.rows, options.guidance),
        "ours": ours(policy, options.rows, options.guidance),
    }
    same = bool(torch.equal(runs["library"](), runs["ours"]()))  # also the warm-up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            seconds[name].append(timed(run))
    tokens = options.rows * policy.image_positions
    pairs = [a / b for a, b in zip(seconds["library"], seconds["ours"], strict=True)]
    result = {
        "rows": options.rows,
        "guidance": options.guidance,
        "same_tokens": same,
        "tokens_per_s": {n: tokens / statistics.median(s) for n, s in seconds.items()},
        "ours_over_library_median": statistics.median(pairs),
        "ours_over_library_range": [min(pairs), max(pairs)],
        "hardware": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"rollout_{device}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
