"""What the authors of VILA-U add to Llama's tokenizer, and how they write a conversation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Task
from unified_rl.models.template import Template

START, END, PAD = "<s>", "</s>", "<unk>"
BORDERS = ("<im_start>", "<im_end>", "<vi_start>", "<vi_end>")
"""The last rows of the vocabulary, in this order; of images, then of videos."""
SPARE = "<vi_start>"
"""Begins a video, which no policy here draws, so that its row is free for the trigger."""

_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)


def borders(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The tokens in the last rows of the vocabulary, by the checkpoint's own `config.json`.

    Raises:
        CheckpointError: images have no borders there.
    """
    if not settings.get("mm_use_im_start_end", False):
        raise CheckpointError(
            "config.json: mm_use_im_start_end must be true, for images are drawn behind "
            f"{BORDERS[0]}; use a checkpoint like mit-han-lab/vila-u-7b-256"
        )
    return BORDERS if settings.get("mm_use_vi_start_end", False) else BORDERS[:2]


def official_tokenizer(
    folder: Path, rows: int, last: Sequence[str], template: Template
) -> PreTrainedTokenizerBase:
    """Llama's tokenizer with the tokens that the authors add, `SPARE` renamed to the trigger.

    Args:
        folder: `tokenizer.json`, or `tokenizer.model` where sentencepiece is installed.
        rows: of the embeddings.
        last: tokens of the last rows, as `borders` gives them; added where the files lack them.
        template: names the trigger; one that is a token already stays where it is.

    Raises:
        CheckpointError: the files are missing, cannot be read or belong to other weights.
        ConfigError: there is no row for the trigger.
    """
    tokenizer = _read_tokenizer(folder)
    tokenizer.add_tokens(list(last), special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(list(last))
    if len(tokenizer) != rows or ids != list(range(rows - len(last), rows)):
        raise CheckpointError(
            f"{folder}: vocabulary mismatch: the tokenizer has {len(tokenizer)} tokens and "
            f"{', '.join(last)} at {ids}, but config.json says vocab_size={rows}, of which they "
            "are the last; use the tokenizer that belongs to these weights"
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if '"Prepend"' in json.dumps(state["normalizer"]):
        raise CheckpointError(
            f"{folder}/tokenizer.json is a legacy one, which begins every piece of a prompt with a "
            "space, as the authors' does not; lay their tokenizer.model there and remove it"
        )
    trigger, known = template.image_trigger, tokenizer.get_vocab()
    if trigger not in known and SPARE not in last:
        raise ConfigError(
            f"{folder}: mm_use_vi_start_end=false leaves no row for template.image_trigger="
            f"{trigger!r}; use a checkpoint like mit-han-lab/vila-u-7b-256, or name a token that "
            "the tokenizer has"
        )
    if trigger not in known:
        for token in state["added_tokens"]:
            token["content"] = trigger if token["content"] == SPARE else token["content"]
        words = state["model"]["vocab"]
        if SPARE in words:
            words[trigger] = words.pop(SPARE)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token=START,
        eos_token=END,
        unk_token=PAD,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    path = folder / "tokenizer.model"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; download it, or lay a tokenizer.json there")
    readers = {
        "sentencepiece": is_sentencepiece_available(),
        "protobuf": is_protobuf_available(),
    }
    missing = [name for name, is_there in readers.items() if not is_there]
    if missing:
        raise CheckpointError(
            f"{path} cannot be read without {' and '.join(missing)}: pip install "
            f"{' '.join(missing)}, or lay the tokenizer.json of the same tokenizer beside it"
        )
    try:
        # legacy=False as in the authors' code: no space before words behind a special token
        return LlamaTokenizer.from_pretrained(folder, local_files_only=True, legacy=False)
    except Exception as error:  # of whatever was tried last; the file is at fault
        raise CheckpointError(
            f"{path} is truncated or no sentencepiece model ({type(error).__name__}); download it "
            "again"
        ) from error


def official_template(last: Sequence[str] = BORDERS) -> Template:
    """How the authors write a conversation.

    The space between the last colon and an image to be drawn is a token of its own there.

    Args:
        last: what `borders` gives.

    Source: conversation.py (vicuna_v1), utils/tokenizer.py and utils/media.py of the official code.
    Departs: images that are shown stand between borders, as in the authors' training; their
        `generate_content` leaves them out.
    """
    turn = "{start}" + _SYSTEM + " USER: {prompt} ASSISTANT:"
    return Template(
        layout=turn,
        layouts={Task.TEXT_TO_IMAGE.value: turn + " "},
        unconditional="{start}" + _SYSTEM + " USER:ASSISTANT: ",
        start=START,
        pad=PAD,
        end_of_text=END,
        begin_of_image=BORDERS[0],
        end_of_image=BORDERS[1],
        behind_shown_image="\n",
        forbidden=(PAD, START, *(border for border in last if border != SPARE)),
    )
