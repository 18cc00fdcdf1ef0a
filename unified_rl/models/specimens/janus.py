"""Official Janus checkpoints of random tensors: names and shapes written out by hand."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor

from unified_rl.models.specimens.tensors import (
    Shapes,
    attention,
    conv,
    linear,
    norm,
    random_state,
    residual,
    write_shards,
)

Settings = dict[str, Any]

SETTINGS = {
    "model_type": "multi_modality",
    "architectures": ["MultiModalityCausalLM"],
    "vision_config": {
        "cls": "CLIPVisionTower",
        "params": {
            "image_size": 24,
            "model_name": "siglip_tiny",
            "select_feature": "same",
            "select_layer": -1,
        },
    },
    "aligner_config": {
        "cls": "MlpProjector",
        "params": {"depth": 2, "input_dim": 32, "n_embed": 48, "projector_type": "mlp_gelu"},
    },
    "gen_vision_config": {"cls": "VQ-tiny", "params": {"image_token_size": 40, "n_embed": 8}},
    "gen_aligner_config": {
        "cls": "MlpProjector",
        "params": {"depth": 2, "input_dim": 8, "n_embed": 48, "projector_type": "mlp_gelu"},
    },
    "gen_head_config": {
        "cls": "vision_head",
        "params": {"image_token_embed": 48, "image_token_size": 40, "n_embed": 48},
    },
    "language_config": {
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": 70,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
    },
}
ARCHITECTURE = {
    "vision": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "mlp_ratio": 4,
        "patch_size": 8,
    },
    "codec": {
        "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 2],
        "latent_channels": 16,
        "num_res_blocks": 1,
    },
}
PUBLISHED = {
    "vision": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "mlp_ratio": 4,
        "patch_size": 16,
    },
    "codec": {
        "base_channels": 128,
        "channel_multiplier": [1, 1, 2, 2, 4],
        "latent_channels": 256,
        "num_res_blocks": 2,
    },
}
WORDS = ("a", "red", "circle", "what", "is", "this", "?", "User:", "<|User|>", "<|User|>:")
SPECIAL = (
    "<｜begin▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<｜end▁of▁sentence｜>",
    "<begin_of_image>",
    "<end_of_image>",
    "<image_placeholder>",
)


def published(width: int, inner: int, layers: int, heads: int) -> Settings:
    """The official settings of the size, as far as they matter here."""
    language = {
        "vocab_size": 102400,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 16384,
    }
    settings = copy.deepcopy(SETTINGS)
    settings["vision_config"]["params"] |= {
        "image_size": 384,
        "model_name": "siglip_large_patch16_384",
    }
    settings["aligner_config"]["params"] |= {"input_dim": 1024, "n_embed": width}
    settings["gen_aligner_config"]["params"]["n_embed"] = width
    settings["gen_vision_config"] = {
        "cls": "VQ-16",
        "params": {"image_token_size": 16384, "n_embed": 8},
    }
    settings["gen_head_config"]["params"] = {
        "image_token_embed": width,
        "image_token_size": 16384,
        "n_embed": width,
    }
    return settings | {"language_config": language}


def official_shapes(settings: Settings = SETTINGS, architecture: Settings = ARCHITECTURE) -> Shapes:
    """Shape by name of everything that an official checkpoint holds."""
    return {
        **vision_shapes(settings["vision_config"]["params"], architecture["vision"]),
        **projector("aligner", **settings["aligner_config"]["params"]),
        **projector("gen_aligner", **settings["gen_aligner_config"]["params"]),
        **head_shapes(**settings["gen_head_config"]["params"]),
        "gen_embed.weight": tuple(settings["gen_vision_config"]["params"].values()),
        **codec_shapes(architecture["codec"], *settings["gen_vision_config"]["params"].values()),
        **language_shapes(settings["language_config"]),
    }


def vision_shapes(params: Settings, sizes: Settings) -> Shapes:
    """Of SigLIP."""
    width, patch = sizes["hidden_size"], sizes["patch_size"]
    tower, hidden = "vision_model.vision_tower", sizes["hidden_size"] * sizes["mlp_ratio"]
    shapes = {f"{tower}.pos_embed": (1, (params["image_size"] // patch) ** 2, width)}
    shapes |= conv(f"{tower}.patch_embed.proj", width, 3, patch)
    for layer in range(sizes["num_hidden_layers"]):
        block = f"{tower}.blocks.{layer}"
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width)
        shapes |= linear(f"{block}.attn.proj", width, width)
        shapes |= linear(f"{block}.mlp.fc1", hidden, width)
        shapes |= linear(f"{block}.mlp.fc2", width, hidden)
    pool = f"{tower}.attn_pool"
    shapes |= norm(f"{tower}.norm", width) | norm(f"{pool}.norm", width)
    shapes |= {f"{pool}.latent": (1, 1, width)} | linear(f"{pool}.q", width, width)
    shapes |= linear(f"{pool}.kv", 2 * width, width) | linear(f"{pool}.proj", width, width)
    return (
        shapes | linear(f"{pool}.mlp.fc1", hidden, width) | linear(f"{pool}.mlp.fc2", width, hidden)
    )


def projector(name: str, input_dim: int, n_embed: int, **_: Any) -> Shapes:
    """Of an aligner of two layers."""
    return linear(f"{name}.layers.0", n_embed, input_dim) | linear(
        f"{name}.layers.2", n_embed, n_embed
    )


def head_shapes(image_token_embed: int, image_token_size: int, n_embed: int) -> Shapes:
    """Of the image head."""
    return linear("gen_head.output_mlp_projector", image_token_embed, n_embed) | linear(
        "gen_head.vision_head", image_token_size, image_token_embed
    )


def codec_shapes(sizes: Settings, codes: int, code_width: int) -> Shapes:
    """Of the VQ image tokenizer."""
    base, latent = sizes["base_channels"], sizes["latent_channels"]
    widths = [base * factor for factor in sizes["channel_multiplier"]]
    root, last = "gen_vision_model", len(widths) - 1
    shapes = {f"{root}.quantize.embedding.weight": (codes, code_width)}
    shapes |= {f"{root}.quantize.codebook_used": (65536,)}
    shapes |= conv(f"{root}.quant_conv", code_width, latent, 1)
    shapes |= conv(f"{root}.post_quant_conv", latent, code_width, 1)
    for half in ("encoder", "decoder"):
        for index in (0, 2):
            shapes |= residual(f"{root}.{half}.mid.{index}", widths[-1], widths[-1])
        shapes |= attention(f"{root}.{half}.mid.1", widths[-1])
    encoder, decoder = f"{root}.encoder", f"{root}.decoder"
    shapes |= conv(f"{encoder}.conv_in", base, 3, 3) | norm(f"{encoder}.norm_out", widths[-1])
    shapes |= conv(f"{encoder}.conv_out", latent, widths[-1], 3)
    width = base
    for level, wider in enumerate(widths):
        block = f"{encoder}.conv_blocks.{level}"
        for index in range(sizes["num_res_blocks"]):
            shapes |= residual(f"{block}.res.{index}", width, wider)
            width = wider
            if level == last:
                shapes |= attention(f"{block}.attn.{index}", width)
        if level != last:
            shapes |= conv(f"{block}.downsample.conv", width, width, 3)
    shapes |= conv(f"{decoder}.conv_in", width, latent, 3)
    for level, narrower in enumerate(reversed(widths)):
        block = f"{decoder}.conv_blocks.{level}"
        for index in range(sizes["num_res_blocks"] + 1):
            shapes |= residual(f"{block}.res.{index}", width, narrower)
            width = narrower
            if level == 0:
                shapes |= attention(f"{block}.attn.{index}", width)
        if level != last:
            shapes |= conv(f"{block}.upsample.conv", width, width, 3)
    return shapes | norm(f"{decoder}.norm_out", width) | conv(f"{decoder}.conv_out", 3, width, 3)


def language_shapes(sizes: Settings) -> Shapes:
    """Of Llama."""
    width, inner, rows = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
    shapes = {"language_model.lm_head.weight": (rows, width)}
    shapes |= {"language_model.model.embed_tokens.weight": (rows, width)}
    shapes |= {"language_model.model.norm.weight": (width,)}
    for layer in range(sizes["num_hidden_layers"]):
        root = f"language_model.model.layers.{layer}"
        shapes |= {f"{root}.self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{root}.mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        shapes |= {f"{root}.mlp.down_proj.weight": (width, inner)}
        shapes |= {f"{root}.input_layernorm.weight": (width,)}
        shapes |= {f"{root}.post_attention_layernorm.weight": (width,)}
    return shapes


def tokenizer_files(folder: Path, words: Sequence[str] = WORDS) -> None:
    """A `tokenizer.json` with the special tokens of the published ones, and no other word."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, "<unk>", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    text = json.dumps({"tokenizer_class": "LlamaTokenizerFast", "bos_token": SPECIAL[0]})
    (folder / "tokenizer_config.json").write_text(text)


def write_official(
    folder: Path,
    state: Mapping[str, Tensor] | None = None,
    layout: str = "safetensors",
    settings: Settings = SETTINGS,
) -> Path:
    """An official folder; `layout` is safetensors, bin, or one of them with `-shards`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = random_state(official_shapes()) if state is None else state
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer_files(folder)
    if layout.endswith("-shards"):
        write_shards(folder, state, 3, "." + layout.removesuffix("-shards"))
    elif layout == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder
