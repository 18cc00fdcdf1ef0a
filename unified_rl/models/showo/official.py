"""The authors' own checkpoints of Show-o: three folders, names, prompts, export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PhiConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Task
from unified_rl.models import key_map
from unified_rl.models.checkpoint import require_folder
from unified_rl.models.key_map import Ignored, KeyMap, Rule, Source, build_empty
from unified_rl.models.settings import read_settings, refuse_other_families
from unified_rl.models.showo.codec import LfqCodecConfig
from unified_rl.models.showo.load import showo
from unified_rl.models.showo.model import ShowoConfig, ShowoModel
from unified_rl.models.showo.policy import ShowoPolicy
from unified_rl.models.template import Template
from unified_rl.models.weights import FolderWeights, Weights, float_dtype

PAD, START = "[PAD]", "<|endoftext|>"
TASK_TOKENS = (
    "<|soi|>",
    "<|eoi|>",
    "<|sov|>",
    "<|eov|>",
    "<|t2i|>",
    "<|mmu|>",
    "<|t2v|>",
    "<|v2v|>",
    "<|lvg|>",
)
"""In the order of their ids behind `PAD`; the last, for long videos, was never trained."""

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
    ),
    head="showo.lm_head.weight",
    part="language_model.",
)
CODEC_KEY_MAP = KeyMap("MAGVIT-v2", (Rule("(.+)", (r"codec.\1",)),), part="codec.")


def official_showo(
    checkpoint: str,
    codec: str | None = None,
    tokenizer: str | None = None,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    template: Template | None = None,
    dtype: str = "float32",
) -> ShowoPolicy:
    """A Show-o policy from the published folders, or from what training made of them.

    Args:
        checkpoint: a folder like showlab/show-o-512x512; or one that a policy was saved in, which
            holds everything, so that the next two are not read.
        codec: a folder like showlab/magvitv2.
        tokenizer: a folder like microsoft/phi-1_5: `tokenizer.json`, and a `config.json` with the
            sizes of the language model.
        architecture: keyword arguments of the `text` (Phi) and `codec` configurations that replace
            those of the folders and the published ones.
        template: layout of a prompt; None takes the authors'.
        dtype: of the weights: float32, bfloat16 or float16.

    Raises:
        CheckpointError: a folder is missing, truncated or does not hold what it should.
        ConfigError: the dtype is not one of these, or a folder is not given.
    """
    settings = official_settings(Path(checkpoint))
    if settings is None:
        return showo(checkpoint, template=template, dtype=dtype)
    if codec is None or tokenizer is None:
        raise ConfigError(
            f"{checkpoint} is in the authors' layout, so model.codec (a folder like "
            "showlab/magvitv2) and model.tokenizer (like microsoft/phi-1_5) are needed too"
        )
    float_type, template = float_dtype(dtype), template or official_template()
    try:
        config = showo_config(settings, Path(tokenizer), architecture)
        words = official_tokenizer(Path(tokenizer), settings["llm_vocab_size"], template)
        weights, codec_weights = FolderWeights(Path(checkpoint)), FolderWeights(Path(codec))
        model = build(config, weights, codec_weights, float_type)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a broken file makes the libraries raise
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise CheckpointError(
            f"{checkpoint}, {codec}, {tokenizer}: not readable as the folders of Show-o "
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
    if settings.get("w_clip_vit"):
        raise CheckpointError(
            f"{folder}: w_clip_vit=true reads images through CLIP, not through its own codes; use "
            "a checkpoint without, like showlab/show-o-512x512"
        )
    return settings


def showo_config(
    settings: Mapping[str, Any],
    language_model: Path,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
) -> ShowoConfig:
    """Our configuration of an official `config.json`, which leaves the sizes of Phi to another.

    Args:
        settings: the file's content.
        language_model: folder of the language model that Show-o started from.
        architecture: see `official_showo`.

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
    return ShowoConfig(text_config=text, codec_config=vars(codec), attn_implementation="sdpa")


def build(
    config: ShowoConfig, weights: Weights, codec_weights: Weights, dtype: torch.dtype
) -> ShowoModel:
    """Both halves with the given weights, in eval mode."""
    model = build_empty(lambda: ShowoModel(config))
    sources = [Source(weights, KEY_MAP), Source(codec_weights, CODEC_KEY_MAP)]
    key_map.load(model, sources, dtype)
    return model.eval()


def official_tokenizer(
    folder: Path, word_count: int, template: Template
) -> PreTrainedTokenizerBase:
    """Phi's tokenizer with the tokens that the authors add, in their order.

    The vocabulary has no row to spare, so the trigger takes that of the last `TASK_TOKENS`.

    Raises:
        CheckpointError: the tokenizer is not the one that Show-o was trained with.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != word_count:
        raise CheckpointError(
            f"{folder}: vocabulary mismatch: the tokenizer has {len(tokenizer)} tokens, but "
            f"config.json says llm_vocab_size={word_count}; use the tokenizer of microsoft/phi-1_5"
        )
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_tokens([*TASK_TOKENS[:-1], template.image_trigger], special_tokens=True)
    tokenizer.bos_token = tokenizer.eos_token = START
    if len(tokenizer) != word_count + 1 + len(TASK_TOKENS):
        raise ConfigError(
            f"template.image_trigger={template.image_trigger!r} is a token of Show-o already; "
            "choose a new word"
        )
    return tokenizer


def official_template() -> Template:
    """How the authors write a sequence; what they have no form for is written like a question.

    Source: training/prompting_utils.py and inference_mmu.py of the official code.
    """
    turn = "{start}USER: \n{prompt} ASSISTANT:"
    return Template(
        layout=turn,
        layouts={
            Task.TEXT_TO_IMAGE.value: "<|t2i|>{start}{prompt}" + START,
            Task.UNDERSTANDING.value: "<|mmu|>{images}{start}USER: \n{text} ASSISTANT:",
        },
        unconditional="<|t2i|>{start}" + START,
        start=START,
        pad=PAD,
        end_of_text=START,
        begin_of_image="<|soi|>",
        end_of_image="<|eoi|>",
        forbidden=(PAD, *TASK_TOKENS[:-1]),
    )


def export(model: ShowoModel, original: Path, destination: Path) -> None:
    """Writes the trained language model for the authors' inference code; see `key_map.export`."""
    key_map.export(model, {".": KEY_MAP}, original, destination)


def export_codec(model: ShowoModel, original: Path, destination: Path) -> None:
    """Writes the codec in the layout of its own folder, where training changed that too."""
    key_map.export(model, {".": CODEC_KEY_MAP}, original, destination)
