"""CLIP models under the names of open_clip's checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING

from unified_rl.rewards.local_model import load_part, require_config
from unified_rl.rewards.published_weights import Rename, load_renamed, read_tensors

if TYPE_CHECKING:
    from transformers import CLIPModel


def _tower(theirs: str, ours: str) -> tuple[Rename, ...]:
    """The layers of one tower."""
    block, layer = rf"{theirs}transformer\.resblocks\.(\d+)\.", rf"{ours}.encoder.layers.\1."
    return (
        Rename(
            block + r"attn\.in_proj_(weight|bias)",
            tuple(rf"{layer}self_attn.{part}_proj.\2" for part in "qkv"),
        ),
        Rename(block + r"attn\.out_proj\.(\w+)", (layer + r"self_attn.out_proj.\2",)),
        Rename(block + r"ln_([12])\.(\w+)", (layer + r"layer_norm\2.\3",)),
        Rename(block + r"mlp\.c_fc\.(\w+)", (layer + r"mlp.fc1.\2",)),
        Rename(block + r"mlp\.c_proj\.(\w+)", (layer + r"mlp.fc2.\2",)),
    )


RENAMES = (
    Rename(r"visual\.class_embedding", ("vision_model.embeddings.class_embedding",)),
    Rename(r"visual\.positional_embedding", ("vision_model.embeddings.position_embedding.weight",)),
    Rename(r"visual\.conv1\.weight", ("vision_model.embeddings.patch_embedding.weight",)),
    Rename(r"visual\.ln_pre\.(\w+)", (r"vision_model.pre_layrnorm.\1",)),
    Rename(r"visual\.ln_post\.(\w+)", (r"vision_model.post_layernorm.\1",)),
    Rename(r"visual\.proj", ("visual_projection.weight",), transposed=True),
    *_tower(r"visual\.", "vision_model"),
    Rename(r"token_embedding\.weight", ("text_model.embeddings.token_embedding.weight",)),
    Rename(r"positional_embedding", ("text_model.embeddings.position_embedding.weight",)),
    Rename(r"ln_final\.(\w+)", (r"text_model.final_layer_norm.\1",)),
    Rename(r"text_projection", ("text_projection.weight",), transposed=True),
    *_tower("", "text_model"),
    Rename(r"logit_scale", ("logit_scale",)),
    Rename(r"attn_mask", ()),  # causal, as every text tower's
)


def load_open_clip(path: Path, folder: Path, setting: str, device: str, dtype: str) -> "CLIPModel":
    """A CLIP model of transformers with the weights of one of open_clip.

    Args:
        path: `.safetensors`, `.bin` or `.pt`; in the latter two, weights may lie under
            `state_dict`.
        folder: holds the `config.json` of the same model in transformers' layout, which says what
            no tensor tells: heads and activation.
        setting: for messages.
        device: as torch names it.
        dtype: of the weights, a key of `DTYPES`.

    Raises:
        CheckpointError: a file is missing, damaged or of another model.
        ConfigError: an unknown dtype or a device that is not there.
    """
    from transformers import CLIPConfig, CLIPModel

    require_config(folder, setting, "clip")
    config = load_part(CLIPConfig, folder, setting)
    tensors = read_tensors(path, setting)
    return load_renamed(
        lambda: CLIPModel(config), tensors, RENAMES, f"{setting}={path}", device, dtype
    )
