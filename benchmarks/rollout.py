"""Image rollouts: ours, transformers' `generate`, and the plain cached loop of released trainers.

Run: python -m benchmarks.rollout [--size micro|25m|1b] [--rows 32] [--group 8] [--repeats 7]

All three draw the same prompts, greedily and guided, alternating; models have random weights. What
is timed are codes; `with_pictures` also decodes them. Greedy codes must be the same.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.cost import image_rollout, measure, timed
from benchmarks.record import record
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.sample import Sample
from unified_rl.data.microworld import drawing_sample
from unified_rl.microworld.prompts import prompts
from unified_rl.microworld.words import vocabulary
from unified_rl.models.janus.load import janus
from unified_rl.models.janus.policy import JanusPolicy

SIZES: dict[str, dict[str, Any]] = {
    "micro": {  # 1.9 M parameters, 64 codes
        "text": {
            "hidden_size": 160,
            "intermediate_size": 432,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        },
        "vision": {"image_size": 32, "patch_size": 4, "hidden_size": 64, "num_hidden_layers": 2},
        "codec": {"embed_dim": 8, "num_embeddings": 64, "latent_channels": 32},
    },
    "25m": {  # 256 codes
        "text": {
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
        },
        "vision": {"image_size": 64, "patch_size": 4, "hidden_size": 64, "num_hidden_layers": 2},
        "codec": {"embed_dim": 8, "num_embeddings": 1024, "latent_channels": 32},
    },
    "1b": {  # Janus-Pro-1B but for its vocabulary of words: 576 codes
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 16384,
        },
        "vision": {"image_size": 384, "patch_size": 16, "hidden_size": 1024},
        "codec": {"embed_dim": 8, "num_embeddings": 16384, "latent_channels": 256},
    },
}
_SMALL = {
    "vision": {"num_attention_heads": 4, "mlp_ratio": 2},
    "codec": {"base_channels": 32, "channel_multiplier": [1, 1, 1], "num_res_blocks": 1},
}


def build(size: str, device: str, dtype: str, image_size: int = 0) -> JanusPolicy:
    """A Janus of random weights; `image_size` px a side, 0 leaves that of its size."""
    architecture = {name: dict(part) for name, part in SIZES[size].items()}
    if image_size:
        architecture["vision"]["image_size"] = image_size
    if size != "1b":
        for name, part in _SMALL.items():
            architecture[name] |= part
    with torch.device(device):
        torch.manual_seed(0)
        policy = janus(None, architecture, words=vocabulary(), dtype=dtype)
    return policy.eval().to(device)


def ours(
    policy: JanusPolicy, samples: list[Sample], behaviour: Behaviour, pictures: bool
) -> Callable[[], Tensor]:
    """By the policy, log-probs recorded."""
    draw = policy.sample if pictures else policy.draw

    def run() -> Tensor:
        generator = torch.Generator(device=policy.device).manual_seed(0)
        trajectory, _ = draw(samples, behaviour, generator)
        return trajectory.tape["ids"][:, -policy.image_positions :, 0]

    return run


def library(
    policy: JanusPolicy, prompt: Tensor, behaviour: Behaviour, pictures: bool
) -> Callable[[], Tensor]:
    """By the library's own loop."""
    settings = policy.janus.generation_config
    settings.generation_kwargs = {"boi_token_id": policy.begin_of_image_id}
    settings.guidance_scale, settings.do_sample = behaviour.guidance_scale, False
    settings.pad_token_id, settings.bos_token_id = policy.pad_id, policy.start_id
    settings.eos_token_id = policy.end_of_text_id
    settings.max_length = prompt.shape[1] + policy.image_positions

    def run() -> Tensor:
        with torch.no_grad():
            codes = policy.janus.generate(
                inputs=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_mode="image",
                generation_config=settings,
            )
            if pictures:
                policy.janus.decode_image_tokens(codes)
            return codes

    return run


def with_twins(policy: JanusPolicy, prompt: Tensor) -> Tensor:
    """(R, p) -> (2R, p): the prompts, and behind them the same rows without their words."""
    twins = prompt.clone()
    twins[:, 1:-1] = policy.pad_id
    return torch.cat([prompt, twins])


def plain(
    policy: JanusPolicy, prompt: Tensor, scale: float, generator: torch.Generator | None = None
) -> Callable[[], Tensor]:
    """As released trainers draw: every row's prompt read, a growing cache, a softmax a code.

    Args:
        policy: draws.
        prompt: (R, p) with its begin of image; rows of one length.
        scale: of guidance.
        generator: draws at temperature 1; None takes the most likely code.
    """
    model = policy.janus.model
    both = with_twins(policy, prompt)

    def run() -> Tensor:
        with torch.no_grad():
            cache, embeds, codes = DynamicCache(), policy.embed_text(both), []
            for _ in range(policy.image_positions):
                hidden = model.language_model(
                    inputs_embeds=embeds, past_key_values=cache, use_cache=True
                ).last_hidden_state[:, -1]
                given, free = model.generation_head(hidden).chunk(2)
                chances = (free + scale * (given - free)).softmax(-1)
                code = (
                    chances.argmax(-1)
                    if generator is None
                    else torch.multinomial(chances, 1, generator=generator)[:, 0]
                )
                codes.append(code)
                embeds = policy.embed_codes(code.repeat(2)[:, None, None])
            return torch.stack(codes, 1)

    return run


def of_one_length(
    policy: JanusPolicy, samples: Sequence[Sample]
) -> tuple[list[Sample], list[list[int]]]:
    """Those with the shortest prompts, and the ids of each up to its begin of image.

    Only these can be compared: neither the library's loop nor the plain one knows padding.
    """
    ids = [[*policy.prompt_ids(sample), policy.begin_of_image_id] for sample in samples]
    shortest = min(map(len, ids))
    kept = [row for row, own in enumerate(ids) if len(own) == shortest]
    return [samples[row] for row in kept], [ids[row] for row in kept]


def main() -> None:
    """Prints medians and their ratios, and writes them as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", choices=SIZES, default="micro")
    arguments.add_argument("--rows", type=int, default=32)
    arguments.add_argument("--group", type=int, default=8, help="rows of one prompt")
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--guidance", type=float, default=3.0)
    arguments.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    arguments.add_argument("--label", default="", help="ends the name of the result's file")
    options = arguments.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "bfloat16" if device == "cuda" else "float32"
    policy = build(options.size, device, dtype)
    texts = prompts("attribution", "test")
    first = [drawing_sample(texts[i]) for i in range(-(-options.rows // options.group))]
    samples = [sample for sample in first for _ in range(options.group)][: options.rows]
    samples, ids = of_one_length(policy, samples)
    prompt = torch.tensor(ids, device=policy.device)
    behaviour = Behaviour(image=Sampling(temperature=0.0), guidance_scale=options.guidance)
    runs = {
        "ours": ours(policy, samples, behaviour, pictures=False),
        "generate": library(policy, prompt, behaviour, pictures=False),
        "plain_loop": plain(policy, prompt, options.guidance),
        "ours_with_pictures": ours(policy, samples, behaviour, pictures=True),
        "generate_with_pictures": library(policy, prompt, behaviour, pictures=True),
    }
    codes = {name: run() for name, run in runs.items()}  # also the warm-up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            seconds[name].append(timed(run))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    against = {
        "generate": "ours",
        "plain_loop": "ours",
        "generate_with_pictures": "ours_with_pictures",
    }
    machine = measure(device, policy.janus.dtype)
    head = sum(p.numel() for p in policy.janus.model.generation_head.parameters())
    work = image_rollout(
        policy.janus.config.text_config,
        head,
        2 * len(prompt),
        prompt.shape[1],
        policy.image_positions,
        policy.janus.dtype.itemsize,
    )
    bound = work.seconds(machine)
    tokens = len(prompt) * policy.image_positions
    result = {
        "size": options.size,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "rows": len(prompt),
        "group": options.group,
        "positions": policy.image_positions,
        "guidance": options.guidance,
        "same_codes": {name: bool(torch.equal(codes["ours"], codes[name])) for name in against},
        "codes_per_s": {name: tokens / median for name, median in medians.items()},
        "times_as_fast": {
            other: ratio(seconds[other], seconds[own]) for other, own in against.items()
        },
        "bound": {
            "matmul_gflops": machine.flops / 1e9,
            "bandwidth_gb_s": machine.bandwidth / 1e9,
            "gflop": work.flops / 1e9,
            "gb": work.bytes / 1e9,
            "limited_by": "flops"
            if work.flops / machine.flops > work.bytes / machine.bandwidth
            else "bytes",
            "share_reached": bound / medians["ours"],
        },
    }
    record("_".join(filter(None, ("rollout", options.size, options.label))), result, device)


def ratio(others: Sequence[float], own: Sequence[float]) -> dict[str, float]:
    """Times as fast as others, pair by pair."""
    pairs = [a / b for a, b in zip(others, own, strict=True)]
    return {"median": statistics.median(pairs), "least": min(pairs), "most": max(pairs)}


if __name__ == "__main__":
    main()
