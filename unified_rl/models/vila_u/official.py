"""The authors' own checkpoints of VILA-U: three folders, names, export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, SiglipVisionConfig

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models import key_map
from unified_rl.models.key_map import Ignored, KeyMap, Rule, Source, build_empty
from unified_rl.models.settings import read_settings, refuse_other_families
from unified_rl.models.template import Template
from unified_rl.models.vila_u.load import vila_u
from unified_rl.models.vila_u.model import VilaUConfig, VilaUModel
from unified_rl.models.vila_u.official_prompt import (
    borders,
    official_template,
    official_tokenizer,
)
from unified_rl.models.vila_u.policy import VilaUPolicy
from unified_rl.models.weights import FolderWeights, Weights, float_dtype

LANGUAGE_MODEL, TOWER, PROJECTOR = FOLDERS = ("llm", "vision_tower", "mm_projector")
MODEL_TYPE = "vila_u_llama"

# What the name of the encoder that the tower started from stands for.
_VISION_SIZES = {
    "siglip-large-patch16-256": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 256,
        "patch_size": 16,
    }
}
_DEFAULT_VISION = "google/siglip-large-patch16-256"  # saved configurations leave defaults out
_SIGLIP = r"rqvaesiglip\.siglip_model\."
_VISION = _SIGLIP + r"vision_model\."


def official_vila_u(
    checkpoint: str,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    template: Template | None = None,
    dtype: str = "float32",
) -> VilaUPolicy:
    """A VILA-U policy from the published folder, or from what training made of it.

    Args:
        checkpoint: a folder like mit-han-lab/vila-u-7b-256, with `FOLDERS` and a `config.json`; or
            one that a policy was saved in.
        architecture: keyword arguments of the `text` (Llama), `vision` (SigLIP), `codec` and
            `depth` configurations that replace what the folders say.
        template: layout of a prompt; None takes the authors', or the one saved in the folder.
        dtype: of the weights: float32, bfloat16 or float16.

    Raises:
        CheckpointError: a folder is missing, truncated or does not hold what it should, or a
            library is missing that its tokenizer needs.
        ConfigError: the dtype is not one of these, or no token is left for the trigger.
    """
    folder, float_type = Path(checkpoint), float_dtype(dtype)
    settings = read_settings(folder)
    is_official = any((folder / name).is_dir() for name in FOLDERS)
    if not is_official and settings.get("model_type") != MODEL_TYPE:
        return vila_u(checkpoint, template=template, dtype=dtype)
    refuse_other_families(folder, MODEL_TYPE)
    _require_parts(folder)
    last = borders(settings)
    template = template or official_template(last)
    try:
        config = vila_u_config(*(read_settings(folder / name) for name in FOLDERS), architecture)
        rows = config.text_config.vocab_size
        words = official_tokenizer(folder / LANGUAGE_MODEL, rows, last, template)
        model = build(config, {name: FolderWeights(folder / name) for name in FOLDERS}, float_type)
    except (CheckpointError, ConfigError):
        raise
    except Exception as error:  # whatever a broken file makes the libraries raise
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise CheckpointError(
            f"{folder}: not readable as a checkpoint of VILA-U ({type(error).__name__}: {reason})"
        ) from error
    return VilaUPolicy(model, words, template)


def _require_parts(folder: Path) -> None:
    for name in FOLDERS:
        if not (folder / name).is_dir():
            raise CheckpointError(
                f"{folder / name} is missing; a VILA-U checkpoint has the folders "
                f"{', '.join(FOLDERS)}: download all of them"
            )
        if not read_settings(folder / name):
            raise CheckpointError(
                f"{folder / name / 'config.json'} is missing, truncated or empty; download it again"
            )


def vila_u_config(
    language_model: Mapping[str, Any],
    tower: Mapping[str, Any],
    projector: Mapping[str, Any],
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
) -> VilaUConfig:
    """Our configuration of the three official `config.json`.

    Args:
        language_model: the content of that in `LANGUAGE_MODEL`.
        tower: of that in `TOWER`.
        projector: of that in `PROJECTOR`.
        architecture: see `official_vila_u`.

    Raises:
        CheckpointError: a setting is missing, the numbers do not fit each other, or there is no
            such part here.
    """
    architecture = architecture or {}
    if projector.get("mm_projector_type", "mlp2x_gelu") != "mlp2x_gelu":
        raise CheckpointError(
            f"{PROJECTOR}/config.json: mm_projector_type={projector['mm_projector_type']!r}, but "
            "only 'mlp2x_gelu' is supported"
        )
    try:
        vision, codec, depth = _tower_sizes(tower, architecture)
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{TOWER}/config.json is not that of a VILA-U tower ({type(error).__name__}: {error}); "
            "download it again"
        ) from error
    fixed = {"tie_word_embeddings": False}
    text = LlamaConfig(**{**language_model, **architecture.get("text", {}), **fixed})
    return VilaUConfig(
        text_config=text,
        vision_config=SiglipVisionConfig(**vision),
        codec_config=codec,
        depth_config=depth,
        attn_implementation="sdpa",  # boolean masks, which eager attention would add as numbers
    )


def _tower_sizes(
    tower: Mapping[str, Any], architecture: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of encoder, codec and depth transformer."""
    quantiser, drawer = tower["rqvaesiglip"], tower["rqtransformer"]
    decoder, codes, depth = quantiser["ddconfig"], quantiser["n_embed"], quantiser["code_shape"][-1]
    if (codes, depth) != (drawer["vocab_size"], drawer["block_size"][-1]):
        raise CheckpointError(
            f"{TOWER}/config.json: vocabulary mismatch: rqvaesiglip has n_embed={codes} codes at "
            f"{depth} depths, but rqtransformer vocab_size={drawer['vocab_size']} at "
            f"{drawer['block_size'][-1]}; use the file that belongs to the weights"
        )
    name = Path(quantiser.get("pretrained_model", _DEFAULT_VISION)).name
    if name not in _VISION_SIZES and "vision" not in architecture:
        raise CheckpointError(
            f"{TOWER}/config.json names the encoder {name!r}, of which only "
            f"{', '.join(_VISION_SIZES)} is known; give its sizes in model.architecture.vision"
        )
    vision = {**_VISION_SIZES.get(name, {}), **architecture.get("vision", {})}
    side = vision["image_size"] // vision["patch_size"]
    if list(quantiser["code_shape"][:2]) != [side, side]:
        raise CheckpointError(
            f"{TOWER}/config.json: code_shape={quantiser['code_shape']}, but the encoder reads "
            f"{vision['image_size']} px as {side} x {side} positions; use the file that belongs to "
            "the weights, or give the encoder's sizes in model.architecture.vision"
        )
    codec = {
        "codebook_size": codes,
        "depth": depth,
        "shared_codebook": quantiser["shared_codebook"],
        "latent_channels": decoder["z_channels"],
        "base_channels": decoder["ch"],
        "channel_multiplier": decoder["ch_mult"],
        "block_count": decoder["num_res_blocks"],
        "attention_resolutions": decoder["attn_resolutions"],
        "resolution": decoder["resolution"],
        "decoder_grid": quantiser.get("decoder_latent_shape"),
    }
    head = drawer["head"]
    sizes = {
        "width": drawer["embed_dim"],
        "layer_count": head["n_layer"],
        "head_count": head["block"]["n_head"],
    }
    return (
        vision,
        {**codec, **architecture.get("codec", {})},
        {**sizes, **architecture.get("depth", {})},
    )


def key_maps(config: VilaUConfig) -> dict[str, KeyMap]:
    """The names in each folder, which depend on what of the tower our model has.

    Args:
        config: its encoder's number of layers and its codebooks matter.
    """
    last = config.vision_config.num_hidden_layers - 1
    book = "0" if config.codec_config["shared_codebook"] else r"\1"
    language_model = KeyMap(
        "VILA-U",
        (
            Ignored(
                r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
                "follows from the configuration",
            ),
            Rule(
                r"(model\.embed_tokens\.weight|lm_head\.weight)",
                (r"language_model.\1",),
                size="vocab_size",
            ),
            Rule(r"(model\..+)", (r"language_model.\1",)),
        ),
        head="lm_head.weight",
    )
    tower = KeyMap(
        "VILA-U",
        (
            Ignored(
                r"rqvaesiglip\.(siglip_model\.)?logit_(scale|bias)",
                "compares images with texts, which only the training of the tower does",
            ),
            Ignored(_SIGLIP + r"text_model\..+", "reads the texts of that comparison"),
            Ignored(_VISION + r"head\..+", "pools all positions into one vector for it"),
            Ignored(
                _VISION + rf"(encoder\.layers\.{last}|post_layernorm)\..+",
                "comes behind the features, which are those before the last layer",
            ),
            Rule(_VISION + r"((?:embeddings|encoder)\..+)", (r"codec.encoder.\1",)),
            Ignored(
                r"rqvaesiglip\.quantizer\.codebooks\.\d+\.(cluster_size|embed)_ema",
                "averages of the training of the codebooks",
            ),
            # a shared codebook stands there once for each depth
            Rule(
                r"rqvaesiglip\.quantizer\.codebooks\.(\d+)\.weight",
                (rf"codec.quantizer.codebooks.{book}.weight",),
            ),
            Rule(
                r"rqvaesiglip\.((?:decoder|post_quant_conv)\..+)",
                (r"codec.\1",),
            ),
            Rule(
                r"rqtransformer\.(classifier_mlp\.linear\.\w+)",
                (r"depth_transformer.\1",),
                size="rqtransformer.vocab_size",
            ),
            Rule(r"rqtransformer\.(.+)", (r"depth_transformer.\1",)),
        ),
    )
    projector = KeyMap("VILA-U", (Rule(r"layers\.(.+)", (r"projector.\1",)),))
    return {LANGUAGE_MODEL: language_model, TOWER: tower, PROJECTOR: projector}


def build(config: VilaUConfig, weights: Mapping[str, Weights], dtype: torch.dtype) -> VilaUModel:
    """All parts with the given weights, in eval mode.

    Args:
        config: sizes.
        weights: by folder: `LANGUAGE_MODEL`, `TOWER`, `PROJECTOR`.
        dtype: of the parameters.
    """
    model = build_empty(lambda: VilaUModel(config))
    sources = [Source(weights[folder], names) for folder, names in key_maps(config).items()]
    key_map.load(model, sources, dtype)
    return model.eval()


def export(model: VilaUModel, original: Path, destination: Path) -> None:
    """Writes a trained model for the authors' inference code; see `key_map.export`."""
    key_map.export(model, key_maps(model.config), original, destination)
