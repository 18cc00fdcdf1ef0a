"""The published folders of Show-o in small: their names, their shapes, random weights."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor

from unified_rl.models.showo.official import official_showo
from unified_rl.models.showo.policy import ShowoPolicy
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

WORDS = ("<|endoftext|>", "<unk>", "a", "red", "circle", "what", "USER:", "ASSISTANT:")
SETTINGS = {
    "_class_name": "Showo",
    "codebook_size": 16,
    "llm_model_path": "microsoft/phi-1_5",
    "llm_vocab_size": 8,
    "num_vq_tokens": 9,
    "vocab_size": 35,  # 8 words, 10 new, 16 codes, 1 mask
    "w_clip_vit": False,
    "mask_token_id": 34,
}
PHI = {
    "model_type": "phi",
    "vocab_size": 64,  # padded, and resized by Show-o
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "partial_rotary_factor": 0.5,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
}
CODEC = {
    "bits": 4,
    "base_channels": 32,
    "encoder_channel_multiplier": (1, 2),
    "encoder_block_counts": (2, 1),
    "decoder_channel_multiplier": (1, 2),
    "decoder_block_counts": (1, 2),
}
PUBLISHED_CODEC = {
    "bits": 13,
    "base_channels": 128,
    "encoder_channel_multiplier": (1, 2, 2, 4, 4),
    "encoder_block_counts": (4, 3, 4, 3, 4),
    "decoder_channel_multiplier": (1, 1, 2, 2, 4),
    "decoder_block_counts": (4, 4, 3, 4, 3),
}
PUBLISHED_PHI = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
}


def language_shapes(sizes: Settings, rows: int) -> Shapes:
    """Of Phi with Show-o's normalised queries and keys."""
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    head = width // sizes["num_attention_heads"]
    shapes = {"showo.model.embed_tokens.weight": (rows, width)}
    shapes |= norm("showo.model.final_layernorm", width) | linear("showo.lm_head", rows, width)
    for layer in range(sizes["num_hidden_layers"]):
        root = f"showo.model.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "dense"):
            shapes |= linear(f"{root}.self_attn.{part}", width, width)
        shapes |= norm(f"{root}.self_attn.q_layernorm", head)
        shapes |= norm(f"{root}.self_attn.k_layernorm", head)
        shapes |= linear(f"{root}.mlp.fc1", inner, width) | linear(f"{root}.mlp.fc2", width, inner)
        shapes |= norm(f"{root}.input_layernorm", width)
    return shapes


def codec_shapes(sizes: Settings) -> Shapes:
    """Of MAGVIT-v2."""
    bits, base = sizes["bits"], sizes["base_channels"]
    shapes = {"quantize.embedding": (2**bits, bits), "quantize.power_vals": (bits,)}
    widths = [base * factor for factor in sizes["encoder_channel_multiplier"]]
    shapes |= conv("encoder.conv_in", base, 3, 3) | norm("encoder.norm_out", widths[-1])
    shapes |= conv("encoder.conv_out", bits, widths[-1], 3)
    shapes |= conv("encoder.quant_conv", bits, bits, 1)
    width = base
    for level, wider in enumerate(widths):
        for index in range(sizes["encoder_block_counts"][level]):
            shapes |= residual(f"encoder.down.{level}.block.{index}", width, wider)
            width = wider
        if level < len(widths) - 1:
            shapes |= conv(f"encoder.down.{level}.downsample.conv", width, width, 3)
    shapes |= middle("encoder", width)
    widths = [base * factor for factor in sizes["decoder_channel_multiplier"]]
    width = widths[-1]
    shapes |= conv("decoder.conv_in", width, bits, 3) | middle("decoder", width)
    shapes |= conv("decoder.post_quant_conv", bits, bits, 1)
    for level in reversed(range(len(widths))):
        for index in range(sizes["decoder_block_counts"][level]):
            shapes |= residual(f"decoder.up.{level}.block.{index}", width, widths[level])
            width = widths[level]
        if level > 0:
            shapes |= conv(f"decoder.up.{level}.upsample.conv", width, width, 3)
    return shapes | norm("decoder.norm_out", width) | conv("decoder.conv_out", 3, width, 3)


def middle(half: str, width: int) -> Shapes:
    """Of the narrowest part of an encoder or decoder."""
    shapes = residual(f"{half}.mid.block_1", width, width)
    shapes |= residual(f"{half}.mid.block_2", width, width)
    return shapes | attention(f"{half}.mid.attn_1", width)


def codec_state() -> dict[str, Tensor]:
    """A random codec whose codes are their own bits."""
    state = random_state(codec_shapes(CODEC), seed=1)
    # code 6 of 4 bits is 0110, highest first
    bits = [[2 * int(bit) - 1 for bit in f"{code:04b}"] for code in range(16)]
    return state | {
        "quantize.embedding": torch.tensor(bits, dtype=torch.float32),
        "quantize.power_vals": torch.tensor([8, 4, 2, 1]),
    }


def language_state() -> dict[str, Tensor]:
    """A random language model."""
    return random_state(language_shapes(PHI, 35), torch.bfloat16)


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """A word-level tokenizer, and the settings of Phi beside it."""
    folder.mkdir(exist_ok=True)
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "CodeGenTokenizer", "unk_token": "<|endoftext|>"}  # as phi-1.5
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps(PHI))


def write_folders(
    root: Path, settings: Settings = SETTINGS, layout: str = ".bin"
) -> dict[str, Path]:
    """The three folders, with names of files as `push_to_hub` and ModelMixin give them."""
    folders = {name: root / name for name in ("checkpoint", "codec", "tokenizer")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    (folders["checkpoint"] / "config.json").write_text(json.dumps(settings))
    if layout == ".bin":
        torch.save(language_state(), folders["checkpoint"] / "pytorch_model.bin")
    elif layout == ".safetensors":
        save_file(language_state(), folders["checkpoint"] / "model.safetensors")
    else:
        write_shards(folders["checkpoint"], language_state(), 2)
    (folders["codec"] / "config.json").write_text('{"_class_name": "MAGVITv2"}')
    save_file(codec_state(), folders["codec"] / "model.safetensors")
    write_tokenizer(folders["tokenizer"])
    return folders


def load(folders: Mapping[str, Path], **settings: Any) -> ShowoPolicy:
    """The policy of such folders."""
    paths = {name: str(path) for name, path in folders.items()}
    return official_showo(**paths, architecture={"codec": CODEC}, **settings)
