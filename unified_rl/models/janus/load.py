"""Makes a Janus policy: from a checkpoint in either layout, or of random weights to be trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from unified_rl.core.errors import CheckpointError, ConfigError, UserError
from unified_rl.models.checkpoint import require_folder
from unified_rl.models.janus import official
from unified_rl.models.janus.policy import JanusPolicy
from unified_rl.models.key_map import KeyMap, Rule, UnitRows
from unified_rl.models.settings import read_settings, refuse_other_families
from unified_rl.models.template import Template
from unified_rl.models.weights import FolderWeights, float_dtype
from unified_rl.models.words import word_tokenizer

_STANDARD_KEYS = KeyMap(
    "Janus",
    (
        # published conversions hold the codebook as it was, which the library then searches wrongly
        Rule(
            r"(model\.vqmodel\.quantize\.embedding\.weight)",
            (r"\1",),
            UnitRows(),
            size="vq_config.num_embeddings",
        ),
        Rule(
            r"(lm_head\.weight|model\.language_model\.embed_tokens\.weight)",
            (r"\1",),
            size="text_config.vocab_size",
        ),
        Rule(r"(.+)", (r"\1",)),
    ),
    head="lm_head.weight",
)


def janus(
    checkpoint: str | None,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    initial_std: float = 0.02,
    words: Sequence[str] = (),
    template: Template | None = None,
    dtype: str = "float32",
) -> JanusPolicy:
    """A Janus policy.

    Args:
        checkpoint: folder in the authors' layout or in that of transformers, by its `config.json`;
            None starts from random weights.
        architecture: keyword arguments of the `text`, `vision` and `codec` configurations. Without
            a checkpoint they are all there is; with one in the authors' layout they replace the
            sizes that its names stand for; else they are not read.
        initial_std: of random matrices outside the codec; only read without a checkpoint. The
            library's 0.02 suits widths of thousands; at width 128 it starves the first thousand
            steps, and about 1 / sqrt(2 * width) does not.
        words: vocabulary of the tokenizer; only read without a checkpoint.
        template: layout of a prompt; None takes the one saved in the folder, else that of
            Janus-Pro or Janus-1.3B if the tokenizer is theirs, else the default.
        dtype: of the weights: float32, bfloat16 or float16.

    Raises:
        CheckpointError: the folder is missing, truncated or not a Janus model.
        ConfigError: the sizes do not fit each other, or the dtype is not one of these.
    """
    float_type = float_dtype(dtype)
    if checkpoint is not None:
        return _from_folder(Path(checkpoint), architecture, template, float_type)
    template = template or Template()
    if architecture is None:
        raise ConfigError("model.checkpoint is null, so model.architecture must give the sizes")
    tokenizer = word_tokenizer(words, template)
    model = JanusForConditionalGeneration(_config(architecture, tokenizer))
    _spread(model, initial_std)
    _normalise_codebook(model)
    return JanusPolicy(model.to(float_type), tokenizer, template)


def _config(
    architecture: Mapping[str, Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> JanusConfig:
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        **architecture["text"],
    )
    width = text.hidden_size
    vision = JanusVisionConfig(projection_dim=width, **architecture["vision"])
    vision.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    codec = JanusVQVAEConfig(
        projection_dim=width, image_token_embed_dim=width, **architecture["codec"]
    )
    _require_one_grid(vision, codec, "model.architecture")
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=codec,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )


def _from_folder(
    folder: Path,
    architecture: Mapping[str, Mapping[str, Any]] | None,
    template: Template | None,
    dtype: torch.dtype,
) -> JanusPolicy:
    settings = read_settings(folder)
    is_official = settings.get("model_type") == official.MODEL_TYPE
    if not is_official:
        refuse_other_families(folder, "janus", official.MODEL_TYPE)
        require_folder(folder, "model.checkpoint", "janus")
    try:
        if is_official:
            config, keys = official.janus_config(settings, architecture), official.KEY_MAP
        else:
            config, keys = _standard_config(folder), _STANDARD_KEYS
        _require_one_grid(config.vision_config, config.vq_config, "config.json")
        tokenizer = _tokenizer(folder, config.text_config.vocab_size)
        model = official.build(config, FolderWeights(folder), keys, dtype)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except Exception as error:  # whatever a broken file makes the libraries raise
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise CheckpointError(
            f"{folder}: not a readable Janus checkpoint ({kind}{reason})"
        ) from error
    template = template or Template.load(folder) or _template_of(tokenizer)
    if official.START in tokenizer.get_vocab():
        _adopt_tokenizer(model, tokenizer, template)
    return JanusPolicy(model, tokenizer, template)


def _standard_config(folder: Path) -> JanusConfig:
    config = JanusConfig.from_pretrained(
        folder,
        local_files_only=True,
        attn_implementation="sdpa",  # boolean masks, which eager attention would add as numbers
    )
    config.tie_word_embeddings = False  # the library's default, though no Janus has a tied head
    return config


def _require_one_grid(vision: JanusVisionConfig, codec: JanusVQVAEConfig, place: str) -> None:
    """Drawn and shown images have one size and one number of positions, and nothing says others.

    Raises:
        ConfigError: the codec's grid is not that of the vision encoder; begins with `place`.
    """
    if vision.image_size % vision.patch_size:
        raise ConfigError(
            f"{place}: patch_size={vision.patch_size} of the vision encoder does not divide its "
            f"image_size={vision.image_size}"
        )
    reduction = 2 ** (len(codec.channel_multiplier) - 1)
    if reduction != vision.patch_size:
        raise ConfigError(
            f"{place}: the codec reduces by {reduction} (channel_multiplier of length "
            f"{len(codec.channel_multiplier)}) but patch_size={vision.patch_size} of the vision "
            "encoder; both must make the same grid"
        )


def _tokenizer(folder: Path, rows: int) -> PreTrainedTokenizerBase:
    """The folder's tokenizer.

    Raises:
        CheckpointError: there is none, or it has more tokens than the head has rows.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError("tokenizer.json is missing; copy it from where the weights are from")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"vocabulary mismatch: tokenizer.json has {len(tokenizer)} tokens, but config.json "
            f"says vocab_size={rows}; use the tokenizer of this checkpoint"
        )
    return tokenizer


def _template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    known = tokenizer.get_vocab()
    if official.START not in known:
        return Template()
    roles = official.ROLES if official.ROLES[0] in known else official.OLD_ROLES
    return official.janus_template(*roles)


def _adopt_tokenizer(
    model: JanusForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, template: Template
) -> None:
    """Tells the model the ids that the authors' code looks up, and the tokenizer the trigger.

    The heads of all published models have rows to spare beyond their tokenizers.

    Raises:
        CheckpointError: there is no row left for the trigger.
    """
    rows = model.config.text_config.vocab_size
    tokenizer.add_tokens([template.image_trigger], special_tokens=True)
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"all {rows} rows of the vocabulary are in use, so there is none for "
            f"{template.image_trigger!r}; let template.image_trigger name a token of the tokenizer"
        )
    ids = tokenizer.convert_tokens_to_ids
    generation = model.generation_config
    generation.bos_token_id = ids(template.start)
    generation.eos_token_id = ids(template.end_of_text)
    generation.pad_token_id = ids(template.pad)
    generation.guidance_scale = 5.0
    generation.generation_kwargs = {"boi_token_id": ids(template.begin_of_image)}
    model.config.image_token_id = ids(official.PLACEHOLDER)


@torch.no_grad()
def _spread(model: JanusForConditionalGeneration, std: float) -> None:
    """Draws every matrix outside the codec anew; token embeddings get eight times the spread."""
    embeddings = model.get_input_embeddings().weight
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and "vqmodel" not in name and "position" not in name:
            weight.normal_(0, 8 * std if weight is embeddings else std)


@torch.no_grad()
def _normalise_codebook(model: JanusForConditionalGeneration) -> None:
    """Unit rows, so that the library's search equals the official normalised one."""
    codebook = model.model.vqmodel.quantize.embedding.weight
    codebook.copy_(torch.nn.functional.normalize(codebook, dim=-1))
