"""A folder of recorded Janus tensors that our own model made, at sizes of its own."""

import json

import torch
from safetensors.torch import save_file

from benchmarks.parity import janus
from benchmarks.parity.checks import Golden
from unified_rl.models.specimens.janus import ARCHITECTURE, SETTINGS, official_shapes, random_state

IDS = {"bos": 3, "eos": 4, "pad": 5, "image_start": 6, "image_end": 7, "image": 8}
GRID, CODES = 3, 40
PROMPT = [3, 10, 11, 12, 6]
RUNS = {"half_sampled": (2.0, 0.5, False, 2), "greedy": (4.0, 1.0, True, 1)}


def config():
    vision, codec = ARCHITECTURE["vision"], ARCHITECTURE["codec"]
    shown = {
        "width": vision["hidden_size"],
        "layers": vision["num_hidden_layers"],
        "heads": vision["num_attention_heads"],
        "mlp_ratio": vision["mlp_ratio"],
        "patch_size": vision["patch_size"],
    }
    drawn = {
        "ch": codec["base_channels"],
        "ch_mult": codec["channel_multiplier"],
        "z_channels": codec["latent_channels"],
        "num_res_blocks": codec["num_res_blocks"],
    }
    keys = ("cfg_weight", "temperature", "greedy", "parallel_size")
    notes = {f"t2i_gen.{n}.info": dict(zip(keys, run, strict=True)) for n, run in RUNS.items()}
    notes["und.grad_l2_norms_keys"] = ["aligner.layers.0.weight", "language_model.lm_head.weight"]
    return {
        "model": "Janus",
        "cfg": {"vision": shown, "vq": drawn, "ids": IDS, "prompt": PROMPT},
        "janus_config": SETTINGS,
        "notes": notes,
    }


def inputs():
    """What the official code would be given; the shapes of what it would answer."""
    generator = torch.Generator().manual_seed(1)
    image = [IDS["image"]] * GRID**2
    asked = [3, 20, 6, *image, 7, 21]
    other = [5, 3, 6, *image, 7, 22]
    ids = torch.tensor([asked, other])
    pixels = torch.rand(2, 1, 3, 24, 24, generator=generator) * 2 - 1

    def codes(*shape):
        return torch.randint(CODES, shape, generator=generator)

    return {
        "vision.pixel_values": pixels[:, 0],
        "vq.pixel_values": pixels[:, 0],
        "vq.decode_ids": codes(2, GRID**2),
        "t2i.prompt_ids": torch.tensor([PROMPT, PROMPT]),
        "t2i.image_ids": codes(2, GRID**2),
        "und.pixel_values": pixels,
        "und.input_ids": ids,
        "und.attention_mask": (ids != IDS["pad"]).to(torch.uint8),
        "und.images_seq_mask": (ids == IDS["image"]).to(torch.uint8),
        "und.generated": torch.zeros(2, 4, dtype=torch.long),
        "t2i_gen.half_sampled.step_samples": codes(GRID**2, 2),
    }


def write(folder):
    """Records what the checks themselves compute, so that all of them must agree."""
    folder.mkdir(parents=True)
    golden = Golden(random_state(official_shapes()), inputs(), config())
    for name, check in janus.checks(golden):
        if check.ours is not None:
            golden.io[name] = check.ours.detach().clone()
    bools = {name: t.to(torch.uint8) for name, t in golden.io.items() if t.dtype == torch.bool}
    save_file(golden.weights, folder / "weights.safetensors")
    save_file({n: t.contiguous().clone() for n, t in (golden.io | bools).items()}, folder / IO)
    (folder / "config.json").write_text(json.dumps(golden.config))
    return folder


IO = "io.safetensors"
