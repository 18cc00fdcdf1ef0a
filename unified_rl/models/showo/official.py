"""The authors' own checkpoints of Show-o: three folders or four, names, export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, PhiConfig

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models import key_map
from unified_rl.models.checkpoint import require_folder
from unified_rl.models.key_map import Ignored, KeyMap, Rule, Source, build_empty
from unified_rl.models.settings import read_settings, refuse_other_families
from unified_rl.models.showo.codec import LfqCodecConfig
from unified_rl.models.showo.load import showo
from unified_rl.models.showo.model import ShowoConfig, ShowoModel
from unified_rl.models.showo.official_prompt import (
    TASK_TOKENS,
    official_template,
    official_tokenizer,
)
from unified_rl.models.showo.policy import ShowoPolicy
from unified_rl.models.template import Template
from unified_rl.models.weights import FolderWeights, Weights, float_dtype

KEY_MAP = KeyMap(
    "Show-o",
    (
        Ignored(
            r"showo\.model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
            "follows from the configuration",
        ),
        Rule(
            r"showo\.(model\.embed_tokens\.weight|lm_head\.\w+)",
            (r"language_model.\1",),
            size="vocab_size",
        ),
        Rule(r"showo\.(model\..+)", (r"language_model.\1",)),
        Rule(r"mm_projector\.(.+)", (r"projector.\1",)),
    ),
    head="showo.lm_head.weight",
    parts=("language_model.", "projector."),
)
PART_OF = {"showo.": "language_model", "mm_projector.": "language_model", "vision_model.": "vision"}
"""Which folder a tensor is in, by how its name begins; all others are the codec's."""
CODEC_KEY_MAP = KeyMap("MAGVIT-v2", (Rule("(.+)", (r"codec.\1",)),), parts=("codec.",))


def official_showo(
    checkpoint: str,
    codec: str | None = None,
    tokenizer: str | None = None,
    vision: str | None = None,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    template: Template | None = None,
    dtype: str = "float32",
    text_limit: int | None = None,
) -> ShowoPolicy:
    """A Show-o policy from the published folders, or from what training made of them.

    Args:
        checkpoint: a folder like showlab/show-o-512x512; or one that a policy was saved in, which
            holds everything, so that the next three are not read.
        codec: a folder like showlab/magvitv2.
        tokenizer: a folder like microsoft/phi-1_5: `tokenizer.json`, and a `config.json` with the
            sizes of the language model.
        vision: a folder like openai/clip-vit-large-patch14-336, for a checkpoint that is shown
            images through CLIP, like showlab/show-o-w-clip-vit-512x512; None for the others.
        architecture: keyword arguments of the `text` (Phi), `codec` and `vision` (CLIP)
            configurations that replace those of the folders and the published ones.
        template: layout of a prompt; None takes the authors'.
        dtype: of the weights: float32, bfloat16 or float16.
        text_limit: see `ShowoConfig`. 128 cuts prompts where the authors' demonstrations do, 64
            where UniRL's do; None takes the limit that a policy was saved with, else none.

    Raises:
        CheckpointError: a folder is missing, truncated or does not hold what it should.
        ConfigError: the dtype is not one of these, a folder is not given or has no use, or
            `text_limit` leaves no room for a word.
    """
    settings = official_settings(Path(checkpoint))
    if settings is None:
        return showo(checkpoint, template=template, dtype=dtype, text_limit=text_limit)
    if codec is None or tokenizer is None:
        raise ConfigError(
            f"{checkpoint} is in the authors' layout, so model.codec (a folder like "
            "showlab/magvitv2) and model.tokenizer (like microsoft/phi-1_5) are needed too"
        )
    with_clip = bool(settings.get("w_clip_vit"))
    if with_clip != (vision is not None):
        raise ConfigError(
            f"{checkpoint} has w_clip_vit={str(with_clip).lower()}, so model.vision must be "
            + ("a folder like openai/clip-vit-large-patch14-336" if with_clip else "null")
        )
    float_type, template = float_dtype(dtype), template or official_template(with_clip)
    try:
        config = showo_config(settings, Path(tokenizer), architecture, vision and Path(vision))
        config.text_limit = text_limit
        words = official_tokenizer(Path(tokenizer), settings["llm_vocab_size"], template)
        weights, codec_weights = FolderWeights(Path(checkpoint)), FolderWeights(Path(codec))
        vision_weights = vision and FolderWeights(Path(vision))
        model = build(config, weights, codec_weights, float_type, vision_weights)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a broken file makes the libraries raise
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise CheckpointError(
            f"{', '.join(filter(None, (checkpoint, codec, tokenizer, vision)))}: not readable as "
            "the folders of Show-o "
            f"({type(error).__name__}: {reason})"
        ) from error
    return ShowoPolicy(model, words, template)


def official_settings(folder: Path) -> dict[str, Any] | None:
    """What the authors' `config.json` says; None for a folder that a policy was saved in.

    Raises:
        CheckpointError: the folder is neither.
    """
    settings = read_settings(folder)
    if "llm_vocab_size" not in settings:
        refuse_other_families(folder, "showo")
        require_folder(folder, "model.checkpoint", "showo")
        return None
    return settings


def showo_config(
    settings: Mapping[str, Any],
    language_model: Path,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    vision: Path | None = None,
) -> ShowoConfig:
    """Our configuration of an official `config.json`, which leaves the sizes of Phi to another.

    Args:
        settings: the file's content.
        language_model: folder of the language model that Show-o started from.
        architecture: see `official_showo`.
        vision: folder of CLIP, if images are shown through it.

    Raises:
        CheckpointError: the numbers of words, codes and positions do not fit each other.
    """
    architecture = architecture or {}
    words, codes, rows = (settings[n] for n in ("llm_vocab_size", "codebook_size", "vocab_size"))
    if rows != words + 1 + len(TASK_TOKENS) + codes + 1:
        raise CheckpointError(
            f"config.json: vocabulary mismatch: vocab_size={rows}, but llm_vocab_size={words} + "
            f"{1 + len(TASK_TOKENS)} new tokens + codebook_size={codes} + the mask token make "
            f"{words + 1 + len(TASK_TOKENS) + codes + 1}"
        )
    codec = LfqCodecConfig(**architecture.get("codec", {}))
    side = round(settings["num_vq_tokens"] ** 0.5)
    codec = LfqCodecConfig(**{**vars(codec), "image_size": side * codec.reduction})
    if side**2 != settings["num_vq_tokens"] or codec.code_count != codes:
        raise CheckpointError(
            f"config.json: num_vq_tokens={settings['num_vq_tokens']} must be a square, and "
            f"codebook_size={codes} the {codec.code_count} codes of the codec"
        )
    text = read_settings(language_model)
    if text.get("model_type") != "phi":
        raise CheckpointError(
            f"{language_model}/config.json must be that of Phi, of model_type 'phi', but has "
            f"{text.get('model_type')!r}; model.tokenizer is a folder like microsoft/phi-1_5"
        )
    fixed = {"vocab_size": rows, "qk_layernorm": True, "tie_word_embeddings": False}
    text = PhiConfig(**{**text, **architecture.get("text", {}), **fixed})
    return ShowoConfig(
        text_config=text,
        codec_config=vars(codec),
        vision_config=vision and vision_config(vision, architecture.get("vision", {})),
        attn_implementation="sdpa",
    )


def vision_config(folder: Path, changes: Mapping[str, Any]) -> CLIPVisionConfig:
    """The sizes of CLIP's image encoder.

    Raises:
        CheckpointError: the folder is not one of CLIP.
    """
    found = read_settings(folder).get("model_type")
    if found not in ("clip", "clip_vision_model"):
        raise CheckpointError(
            f"{folder}/config.json must be that of CLIP, of model_type 'clip', but has {found!r}; "
            "model.vision is a folder like openai/clip-vit-large-patch14-336"
        )
    return CLIPVisionConfig.from_pretrained(folder, local_files_only=True, **changes)


def vision_key_map(config: CLIPVisionConfig) -> KeyMap:
    """The names in CLIP's folder, of which our encoder lacks the last layer."""
    last = config.num_hidden_layers - 1
    return KeyMap(
        "CLIP",
        (
            Ignored(r"text_model\..+|(text|visual)_projection\..+|logit_scale", "reads texts"),
            Ignored(r"vision_model\.embeddings\.position_ids", "counts the patches"),
            Ignored(
                rf"vision_model\.(encoder\.layers\.{last}|post_layernorm)\..+",
                "comes behind the features, which are those before the last layer",
            ),
            Rule(r"(vision_model\..+)", (r"\1",)),
        ),
        parts=("vision_model.",),
    )


def build(
    config: ShowoConfig,
    weights: Weights,
    codec_weights: Weights,
    dtype: torch.dtype,
    vision_weights: Weights | None = None,
) -> ShowoModel:
    """All parts with the given weights, in eval mode."""
    model = build_empty(lambda: ShowoModel(config))
    sources = [Source(weights, KEY_MAP), Source(codec_weights, CODEC_KEY_MAP)]
    if vision_weights is not None:
        sources.append(Source(vision_weights, vision_key_map(config.vision_config)))
    key_map.load(model, sources, dtype)
    return model.eval()


def export(model: ShowoModel, original: Path, destination: Path) -> tuple[str, ...]:
    """Writes the part of the model that `original` holds; the authors keep three folders.

    See `key_map.export`. Theirs are the language model, with the projector if there is one, the
    codec, and CLIP.

    Returns:
        Names of `parameter_groups` that are in other folders.
    """
    maps = {"language_model": KEY_MAP, "codec": CODEC_KEY_MAP}
    if model.vision_model is not None:
        maps["vision"] = vision_key_map(model.config.vision_config)
    part = next(
        (
            part
            for name in FolderWeights(original).names()
            for start, part in PART_OF.items()
            if name.startswith(start) and part in maps
        ),
        "codec",
    )
    key_map.export(model, {".": maps[part]}, original, destination)
    return tuple(name for name in maps if name != part)
