"""Small random models that judge, as folders of the published layouts: for dry runs and tests."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
SPOKEN = ("a", "red", "blue", "circle", "square", "left", "right", "of", "and", "two", "circles")
WORDS = (*SPECIAL, *SPOKEN)
WIDTH = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
VISION = {**WIDTH, "image_size": 32, "patch_size": 16, "initializer_range": 0.02}


def blip_folder(folder: Path) -> Path:
    """A BLIP that writes captions."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

    text = {
        **WIDTH,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 64,
        "bos_token_id": WORDS.index("[DEC]"),
        "eos_token_id": WORDS.index("[CLS]"),
        "sep_token_id": WORDS.index("[SEP]"),
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=VISION)
    save_random(BlipForConditionalGeneration(config), folder)
    bert_tokenizer().save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def bert_folder(folder: Path) -> Path:
    """A BERT."""
    from transformers import BertConfig, BertModel

    settings = {name: value for name, value in WIDTH.items() if name != "projection_dim"}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **settings)
    save_random(BertModel(config), folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def clip_folder(folder: Path) -> Path:
    """A CLIP with both of its encoders, which reads letters."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    ends = ["<|startoftext|>", "<|endoftext|>"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *ends]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    text = {
        **WIDTH,
        "vocab_size": len(pieces),
        "max_position_embeddings": 48,
        "bos_token_id": vocabulary[ends[0]],
        "eos_token_id": vocabulary[ends[1]],
        "pad_token_id": vocabulary[ends[1]],
    }
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    save_random(CLIPModel(config), folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


def save_random(model: nn.Module, folder: Path) -> None:
    """With weights so large that what the model says depends on what it is shown."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)


def bert_tokenizer() -> "BertTokenizer":
    """Of `WORDS` alone."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
