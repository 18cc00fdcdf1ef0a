"""The authors' own checkpoints of Janus and Janus-Pro: configuration, names, prompts, export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from unified_rl.core.errors import CheckpointError
from unified_rl.core.sample import Task
from unified_rl.models import key_map
from unified_rl.models.key_map import (
    FirstOfOne,
    Ignored,
    KeyMap,
    Rows,
    Rule,
    Source,
    UnitRows,
    build_empty,
)
from unified_rl.models.settings import refuse_other_families
from unified_rl.models.template import Template
from unified_rl.models.weights import StateWeights, Weights

MODEL_TYPE = "multi_modality"
ROLES = ("<|User|>", "<|Assistant|>")  # of Janus-Pro
OLD_ROLES = ("User", "Assistant")  # of Janus-1.3B
START, PAD, PLACEHOLDER = "<｜begin▁of▁sentence｜>", "<｜▁pad▁｜>", "<image_placeholder>"

# What the names in the official configuration stand for in the official code.
_VISION_SIZES = {
    "siglip_large_patch16_384": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "mlp_ratio": 4,
        "patch_size": 16,
    }
}
_CODEC_SIZES = {
    "VQ-16": {
        "base_channels": 128,
        "channel_multiplier": [1, 1, 2, 2, 4],
        "latent_channels": 256,
        "num_res_blocks": 2,
    }
}
_LANGUAGE_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "attention_bias",
    "mlp_bias",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
_PROJECTOR = "mlp_gelu"
_DEEPEST = 8
"""Most layers of an aligner; the published ones have two."""
_BLOCK = r"vision_model\.vision_tower\.blocks\.(\d+)\."
_LAYER = r"model.vision_model.encoder.layers.\1."
_VOCABULARY = "language_config.vocab_size"


def _aligner_rules(official: str, ours: str) -> list[Rule]:
    """Linear layers have the even numbers, the activations between them the odd ones."""
    first = Rule(rf"{official}\.layers\.0\.(\w+)", (rf"{ours}.fc1.\1",))
    return [first] + [
        Rule(rf"{official}\.layers\.{2 * layer}\.(\w+)", (rf"{ours}.hidden_layers.{layer - 1}.\1",))
        for layer in range(1, _DEEPEST)
    ]


KEY_MAP = KeyMap(
    "Janus",
    (
        Rule(
            r"vision_model\.vision_tower\.patch_embed\.proj\.(\w+)",
            (r"model.vision_model.embeddings.patch_embedding.\1",),
        ),
        Rule(
            r"vision_model\.vision_tower\.pos_embed",
            ("model.vision_model.embeddings.position_embedding.weight",),
            FirstOfOne(),
        ),
        Rule(
            _BLOCK + r"attn\.qkv\.(\w+)",
            tuple(_LAYER + rf"self_attn.{name}_proj.\2" for name in "qkv"),
            Rows(3),
        ),
        Rule(_BLOCK + r"attn\.proj\.(\w+)", (_LAYER + r"self_attn.projection_layer.\2",)),
        Rule(_BLOCK + r"norm([12])\.(\w+)", (_LAYER + r"layer_norm\2.\3",)),
        Rule(_BLOCK + r"mlp\.(fc[12]\.\w+)", (_LAYER + r"mlp.\2",)),
        Rule(
            r"vision_model\.vision_tower\.norm\.(\w+)", (r"model.vision_model.post_layernorm.\1",)
        ),
        Ignored(
            r"vision_model\.vision_tower\.attn_pool\..+",
            "pools all patches into one vector, which no part of Janus reads",
        ),
        *_aligner_rules("aligner", "model.aligner"),
        *_aligner_rules("gen_aligner", "model.generation_aligner"),
        Rule(
            r"gen_embed\.weight",
            ("model.generation_embeddings.weight",),
            size="gen_vision_config.params.image_token_size",
        ),
        Rule(
            r"gen_head\.output_mlp_projector\.(\w+)",
            (r"model.generation_head.proj_out.\1",),
        ),
        Rule(
            r"gen_head\.vision_head\.(\w+)",
            (r"model.generation_head.vision_head.\1",),
            size="gen_vision_config.params.image_token_size",
        ),
        Rule(
            r"gen_vision_model\.quantize\.embedding\.weight",
            ("model.vqmodel.quantize.embedding.weight",),
            UnitRows(),
            size="gen_vision_config.params.image_token_size",
        ),
        Ignored(
            r"gen_vision_model\.quantize\.codebook_used",
            "counts uses of codes while the codec was trained",
        ),
        Rule(r"gen_vision_model\.((?:post_)?quant_conv\.\w+)", (r"model.vqmodel.\1",)),
        # decoder.up is in the order of decoder.conv_blocks: lowest resolution first
        Rule(
            r"gen_vision_model\.encoder\.conv_blocks\.(\d+)\.res\.(.+)",
            (r"model.vqmodel.encoder.down.\1.block.\2",),
        ),
        Rule(
            r"gen_vision_model\.encoder\.conv_blocks\.(\d+)\.((?:attn|downsample)\..+)",
            (r"model.vqmodel.encoder.down.\1.\2",),
        ),
        Rule(
            r"gen_vision_model\.decoder\.conv_blocks\.(\d+)\.res\.(.+)",
            (r"model.vqmodel.decoder.up.\1.block.\2",),
        ),
        Rule(
            r"gen_vision_model\.decoder\.conv_blocks\.(\d+)\.((?:attn|upsample)\..+)",
            (r"model.vqmodel.decoder.up.\1.\2",),
        ),
        *(
            Rule(
                rf"gen_vision_model\.(encoder|decoder)\.mid\.{index}\.(.+)",
                (rf"model.vqmodel.\1.mid.{name}.\2",),
            )
            for index, name in enumerate(("block_1", "attn_1", "block_2"))
        ),
        Rule(
            r"gen_vision_model\.((?:encoder|decoder)\.(?:conv_in|norm_out|conv_out)\.\w+)",
            (r"model.vqmodel.\1",),
        ),
        Rule(
            r"language_model\.model\.(embed_tokens\.weight)",
            (r"model.language_model.\1",),
            size=_VOCABULARY,
        ),
        Rule(r"language_model\.model\.(.+)", (r"model.language_model.\1",)),
        Rule(r"language_model\.(lm_head\.weight)", (r"\1",), size=_VOCABULARY),
    ),
    head="language_model.lm_head.weight",
)


def janus_config(
    settings: Mapping[str, Any], architecture: Mapping[str, Mapping[str, Any]] | None = None
) -> JanusConfig:
    """The library's configuration of an official `config.json`.

    Args:
        settings: the file's content.
        architecture: keyword arguments of the `text`, `vision` and `codec` configurations that
            replace what the official names stand for.

    Raises:
        CheckpointError: a setting is missing, or the library has no such architecture.
    """
    architecture = architecture or {}
    try:
        params = {
            part: settings[f"{part}_config"]["params"]
            for part in ("vision", "aligner", "gen_vision", "gen_aligner", "gen_head")
        }
        language = settings["language_config"]
        known = {name: language[name] for name in _LANGUAGE_FIELDS if name in language}
        text = LlamaConfig(
            **{**known, **architecture.get("text", {}), "tie_word_embeddings": False}
        )
        width = text.hidden_size
        _require_width(params, width)
        vision_sizes = _sizes(_VISION_SIZES, params["vision"]["model_name"], architecture, "vision")
        vision = JanusVisionConfig(
            image_size=params["vision"]["image_size"],
            projection_dim=width,
            depth=_depth(params, "aligner"),
            **vision_sizes,
        )
        codec = JanusVQVAEConfig(
            embed_dim=params["gen_vision"]["n_embed"],
            num_embeddings=params["gen_vision"]["image_token_size"],
            projection_dim=width,
            image_token_embed_dim=width,
            num_hidden_layers=_depth(params, "gen_aligner"),
            **_sizes(_CODEC_SIZES, settings["gen_vision_config"]["cls"], architecture, "codec"),
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"config.json of model_type {MODEL_TYPE} is not a Janus one ({type(error).__name__}: "
            f"{error}); DeepSeek-VL, which cannot draw, has the same model_type"
        ) from error
    vision.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=codec,
        tie_word_embeddings=False,
        attn_implementation="sdpa",  # boolean masks, which eager attention would add as numbers
    )


def _sizes(
    known: Mapping[str, Mapping[str, Any]],
    name: str,
    architecture: Mapping[str, Mapping[str, Any]],
    part: str,
) -> dict[str, Any]:
    if name not in known and part not in architecture:
        raise CheckpointError(
            f"config.json names the {part} model {name!r}, of which only {', '.join(known)} is "
            f"known; give its sizes in model.architecture.{part}"
        )
    return {**known.get(name, {}), **architecture.get(part, {})}


def _depth(params: Mapping[str, Mapping[str, Any]], part: str) -> int:
    """Number of linear layers of an aligner."""
    kind, depth = params[part].get("projector_type", _PROJECTOR), params[part]["depth"]
    if kind != _PROJECTOR:
        raise CheckpointError(
            f"config.json: {part}_config.params.projector_type={kind!r}, but only {_PROJECTOR!r} "
            "is supported"
        )
    if not isinstance(depth, int) or not 1 <= depth <= _DEEPEST:
        raise CheckpointError(
            f"config.json: {part}_config.params.depth={depth!r} must be a whole number from 1 to "
            f"{_DEEPEST}"
        )
    return depth


def _require_width(params: Mapping[str, Mapping[str, Any]], width: int) -> None:
    """The library has one width where the official code has four."""
    for part, setting in (
        ("aligner", "n_embed"),
        ("gen_aligner", "n_embed"),
        ("gen_head", "n_embed"),
        ("gen_head", "image_token_embed"),
    ):
        if params[part][setting] != width:
            raise CheckpointError(
                f"config.json: {part}_config.params.{setting}={params[part][setting]} must equal "
                f"the language model's hidden_size={width}"
            )
    if params["vision"].get("select_layer", -1) != -1:
        raise CheckpointError(
            f"config.json: vision_config.params.select_layer={params['vision']['select_layer']}, "
            "but only -1, the last layer, is supported"
        )


def build(config: JanusConfig, weights: Weights, names: KeyMap, dtype: torch.dtype) -> Any:
    """The library's model with the given weights, in eval mode."""
    model = build_empty(lambda: JanusForConditionalGeneration(config))
    key_map.load(model, [Source(weights, names)], dtype)
    return model.eval()


def load_state(
    state: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    dtype: torch.dtype = torch.float32,
) -> JanusForConditionalGeneration:
    """The library's model from an official state dict in memory; see `janus_config`."""
    return build(janus_config(settings, architecture), StateWeights(state), KEY_MAP, dtype)


def janus_template(user: str = ROLES[0], assistant: str = ROLES[1]) -> Template:
    """How the authors write a conversation.

    Args:
        user: name of the one who asks, `ROLES` for Janus-Pro and `OLD_ROLES` for Janus-1.3B.
        assistant: name of the one who answers.

    Source: janus/models/processing_vlm.py and generation_inference.py of the official code: the
        system prompt stands before questions about images and before nothing else.
    """
    turn = f"{user}: {{prompt}}\n\n{assistant}:"
    return Template(
        layout="{start}" + turn,
        layouts={Task.UNDERSTANDING.value: "{start}" + _SYSTEM + "\n\n" + turn},
        start=START,
        pad=PAD,
        end_of_text="<｜end▁of▁sentence｜>",
        before_answer=" ",
        behind_shown_image="\n",
        forbidden=(START, PAD, "<begin_of_image>", "<end_of_image>", PLACEHOLDER),
    )


def export(model: JanusForConditionalGeneration, original: Path, destination: Path) -> None:
    """Writes a trained model for the authors' inference code; see `key_map.export`.

    A codebook that training left alone is written as it was, before its rows were normalised.

    Raises:
        CheckpointError: the original is of another family or layout, or does not fit the model.
    """
    refuse_other_families(original, MODEL_TYPE)
    key_map.export(model, {".": KEY_MAP}, original, destination)
