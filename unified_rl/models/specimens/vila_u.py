"""Official VILA-U checkpoints of random tensors: three folders, names and shapes by hand."""

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

SIGLIP = {
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    },
    "text": {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "max_position_embeddings": 8,
    },
}
PUBLISHED_SIGLIP = {
    "vision": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 256,
        "patch_size": 16,
    },
    "text": {
        "vocab_size": 32000,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "max_position_embeddings": 64,
    },
}
LLM = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 80,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
TOWER = {
    "model_type": "rqvaesigliptransformer_model",
    "architectures": ["RQVAESIGLIPTransformer"],
    "hidden_size": 32,
    "rqvaesiglip": {
        "model_type": "rqvaesiglip_model",
        "embed_dim": 32,
        "n_embed": 40,
        "latent_shape": [4, 4, 32],
        "code_shape": [4, 4, 4],
        "shared_codebook": True,
        "restart_unused_codes": True,
        "ddconfig": {
            "double_z": False,
            "z_channels": 16,
            "resolution": 32,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1, 1, 1, 2],
            "num_res_blocks": 1,
            "attn_resolutions": [4],
            "dropout": 0.0,
        },
        "decay": 0.99,
        "latent_loss_weight": 0.25,
        "decoder_latent_shape": None,
        "pretrained_model": "tiny siglip",
    },
    "rqtransformer": {
        "model_type": "rqtransformer_model",
        "block_size": [4, 4, 4],
        "input_embed_dim_1": 32,
        "input_embed_dim_2": 48,
        "embed_dim": 40,
        "vocab_size": 40,
        "head": {"n_layer": 2, "block": {"n_head": 4}},
    },
}
ROOT = {
    "model_type": "vila_u_llama",
    "architectures": ["VILAULlamaModel"],
    "llm_cfg": LLM,
    "vision_tower_cfg": TOWER,
    "mm_projector_cfg": {"model_type": "v2l_projector", "mm_projector_type": "mlp2x_gelu"},
    "mm_use_im_start_end": True,
    "mm_use_vi_start_end": True,
    "mm_use_im_patch_token": False,
}
ARCHITECTURE = {"vision": SIGLIP["vision"]}
BORDERS = ("<im_start>", "<im_end>", "<vi_start>", "<vi_end>")
WORDS = ("<unk>", "<s>", "</s>", "USER:", "ASSISTANT:", "USER:ASSISTANT:", "a", "red", "circle")


def published() -> Settings:
    """Settings of the root and of the three folders, of VILA-U-7B-256."""
    root = copy.deepcopy(ROOT)
    llm, tower = root["llm_cfg"], root["vision_tower_cfg"]
    llm |= {"vocab_size": 32004, "hidden_size": 4096, "intermediate_size": 11008}
    llm |= {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32}
    codec, drawer = tower["rqvaesiglip"], tower["rqtransformer"]
    tower["hidden_size"] = 1024
    codec |= {"embed_dim": 1024, "n_embed": 16384}
    codec |= {"latent_shape": [16, 16, 1024], "code_shape": [16, 16, 4]}
    codec["ddconfig"] |= {"z_channels": 256, "resolution": 256, "ch": 128}
    codec["ddconfig"] |= {"ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "attn_resolutions": [16]}
    del codec["pretrained_model"]  # the default, which saving leaves out
    drawer |= {"block_size": [16, 16, 4], "input_embed_dim_1": 1024, "input_embed_dim_2": 4096}
    drawer |= {"embed_dim": 2560, "vocab_size": 16384}
    drawer["head"] = {"n_layer": 6, "block": {"n_head": 40}}
    return root


def language_shapes(sizes: Settings) -> Shapes:
    """Of Llama."""
    width, inner, rows = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
    shapes = {"model.embed_tokens.weight": (rows, width), "lm_head.weight": (rows, width)}
    shapes |= {"model.norm.weight": (width,)}
    for layer in range(sizes["num_hidden_layers"]):
        root = f"model.layers.{layer}"
        shapes |= {f"{root}.self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{root}.mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        shapes |= {f"{root}.mlp.down_proj.weight": (width, inner)}
        shapes |= {f"{root}.input_layernorm.weight": (width,)}
        shapes |= {f"{root}.post_attention_layernorm.weight": (width,)}
    return shapes


def projector_shapes(width: int, inputs: int) -> Shapes:
    """Of what brings features to the width of the language model."""
    return linear("layers.0", width, inputs) | linear("layers.2", width, width)


def siglip_layer(name: str, width: int, inner: int) -> Shapes:
    """Of one block."""
    shapes = norm(f"{name}.layer_norm1", width) | norm(f"{name}.layer_norm2", width)
    for part in ("q", "k", "v", "out"):
        shapes |= linear(f"{name}.self_attn.{part}_proj", width, width)
    return (
        shapes | linear(f"{name}.mlp.fc1", inner, width) | linear(f"{name}.mlp.fc2", width, inner)
    )


def siglip_shapes(siglip: Settings) -> Shapes:
    """Of both encoders that the tower started from."""
    root = "rqvaesiglip.siglip_model"
    shapes = {f"{root}.logit_scale": (1,), f"{root}.logit_bias": (1,)}
    vision, width, inner = siglip["vision"], *sizes_of(siglip["vision"])
    patch = vision["patch_size"]
    tower = f"{root}.vision_model"
    shapes |= conv(f"{tower}.embeddings.patch_embedding", width, 3, patch)
    positions = (vision["image_size"] // patch) ** 2
    shapes |= {f"{tower}.embeddings.position_embedding.weight": (positions, width)}
    for layer in range(vision["num_hidden_layers"]):
        shapes |= siglip_layer(f"{tower}.encoder.layers.{layer}", width, inner)
    shapes |= norm(f"{tower}.post_layernorm", width) | norm(f"{tower}.head.layernorm", width)
    shapes |= {f"{tower}.head.probe": (1, 1, width)}
    shapes |= {f"{tower}.head.attention.in_proj_weight": (3 * width, width)}
    shapes |= {f"{tower}.head.attention.in_proj_bias": (3 * width,)}
    shapes |= linear(f"{tower}.head.attention.out_proj", width, width)
    shapes |= linear(f"{tower}.head.mlp.fc1", inner, width)
    shapes |= linear(f"{tower}.head.mlp.fc2", width, inner)
    text, width, inner = siglip["text"], *sizes_of(siglip["text"])
    tower = f"{root}.text_model"
    shapes |= {f"{tower}.embeddings.token_embedding.weight": (text["vocab_size"], width)}
    places = text["max_position_embeddings"]
    shapes |= {f"{tower}.embeddings.position_embedding.weight": (places, width)}
    for layer in range(text["num_hidden_layers"]):
        shapes |= siglip_layer(f"{tower}.encoder.layers.{layer}", width, inner)
    return shapes | norm(f"{tower}.final_layer_norm", width) | linear(f"{tower}.head", width, width)


def sizes_of(part: Settings) -> tuple[int, int]:
    """Width and inner width."""
    return part["hidden_size"], part["intermediate_size"]


def decoder_shapes(sizes: Settings, code_width: int) -> Shapes:
    """Of what draws pixels."""
    root, base, latent = "rqvaesiglip.decoder", sizes["ch"], sizes["z_channels"]
    widths = [base * factor for factor in sizes["ch_mult"]]
    width, resolution = widths[-1], sizes["resolution"] // 2 ** (len(widths) - 1)
    shapes = conv("rqvaesiglip.post_quant_conv", latent, code_width, 1)
    shapes |= conv(f"{root}.conv_in", width, latent, 3)
    shapes |= residual(f"{root}.mid.block_1", width, width)
    shapes |= residual(f"{root}.mid.block_2", width, width) | attention(f"{root}.mid.attn_1", width)
    for level in reversed(range(len(widths))):
        for index in range(sizes["num_res_blocks"] + 1):
            shapes |= residual(f"{root}.up.{level}.block.{index}", width, widths[level])
            width = widths[level]
            if resolution in sizes["attn_resolutions"]:
                shapes |= attention(f"{root}.up.{level}.attn.{index}", width)
        if level > 0:
            shapes |= conv(f"{root}.up.{level}.upsample.conv", width, width, 3)
            resolution *= 2
    return shapes | norm(f"{root}.norm_out", width) | conv(f"{root}.conv_out", 3, width, 3)


def depth_shapes(sizes: Settings) -> Shapes:
    """Of what predicts the codes of a position, one after the other."""
    root, width, depth = "rqtransformer", sizes["embed_dim"], sizes["block_size"][-1]
    shapes = {f"{root}.pos_emb_d": (1, depth, width)}
    shapes |= linear(f"{root}.in_mlp_1", width, sizes["input_embed_dim_1"])
    shapes |= linear(f"{root}.in_mlp_2", width, sizes["input_embed_dim_2"])
    shapes |= norm(f"{root}.classifier_mlp.layer_norm", width)
    shapes |= linear(f"{root}.classifier_mlp.linear", sizes["vocab_size"], width)
    for layer in range(sizes["head"]["n_layer"]):
        block = f"{root}.head_transformer.blocks.{layer}"
        shapes |= norm(f"{block}.ln1", width) | norm(f"{block}.ln2", width)
        for part in ("key", "query", "value", "proj"):
            shapes |= linear(f"{block}.attn.{part}", width, width)
        shapes |= linear(f"{block}.mlp.0", 4 * width, width)
        shapes |= linear(f"{block}.mlp.2", width, 4 * width)
    return shapes


def tower_shapes(tower: Settings = TOWER, siglip: Settings = SIGLIP) -> Shapes:
    """Of the image tokenizer and the depth transformer."""
    codec = tower["rqvaesiglip"]
    codes, width = codec["n_embed"], codec["embed_dim"]
    shapes = {"rqvaesiglip.logit_scale": (1,), "rqvaesiglip.logit_bias": (1,)}
    for depth in range(codec["code_shape"][-1]):
        book = f"rqvaesiglip.quantizer.codebooks.{depth}"
        shapes |= {f"{book}.weight": (codes + 1, width), f"{book}.embed_ema": (codes, width)}
        shapes |= {f"{book}.cluster_size_ema": (codes,)}
    shapes |= siglip_shapes(siglip) | decoder_shapes(codec["ddconfig"], width)
    return shapes | depth_shapes(tower["rqtransformer"])


def official_shapes(root: Settings = ROOT, siglip: Settings = SIGLIP) -> dict[str, Shapes]:
    """Shapes by folder and name."""
    llm, tower = root["llm_cfg"], root["vision_tower_cfg"]
    return {
        "llm": language_shapes(llm),
        "vision_tower": tower_shapes(tower, siglip),
        "mm_projector": projector_shapes(llm["hidden_size"], tower["rqvaesiglip"]["embed_dim"]),
    }


def random_states(
    root: Settings = ROOT, dtype: torch.dtype = torch.bfloat16
) -> dict[str, dict[str, Tensor]]:
    """Random tensors by folder and name; a shared codebook stands there once for each depth."""
    states = {
        name: random_state(shapes, dtype, seed)
        for seed, (name, shapes) in enumerate(official_shapes(root).items())
    }
    if root["vision_tower_cfg"]["rqvaesiglip"]["shared_codebook"]:
        tower, books = states["vision_tower"], "rqvaesiglip.quantizer.codebooks"
        for name in [name for name in tower if name.startswith(books)]:
            leaf = name.rsplit(".", 1)[1]
            tower[name] = tower[f"{books}.0.{leaf}"].clone()
    return states


def write_tokenizer(
    folder: Path, last: Sequence[str] = BORDERS, rows: int = LLM["vocab_size"]
) -> None:
    """A `tokenizer.json` of words, the borders in its last rows."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    while len(vocabulary) < rows - len(last):
        vocabulary[f"word{len(vocabulary)}"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ("<s>", "</s>", "<unk>", *last)  # those of `last` are new, so they come behind
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    text = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**text, "unk_token": "<unk>"}))


def write_official(
    folder: Path, states: Mapping[str, Mapping[str, Tensor]] | None = None, root: Settings = ROOT
) -> Path:
    """The three folders, the language model in shards."""
    states = random_states(root) if states is None else states
    for name in ("llm", "vision_tower", "mm_projector"):
        part = folder / name
        part.mkdir(parents=True, exist_ok=True)
        (part / "config.json").write_text(json.dumps(root[f"{name}_cfg"]))
        if name == "llm":
            write_shards(part, states[name], 3)
        else:
            save_file(states[name], part / "model.safetensors", {"format": "pt"})
    write_tokenizer(folder / "llm")
    (folder / "config.json").write_text(json.dumps(root))
    return folder
