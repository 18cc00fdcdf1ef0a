"""Tiny random judges as folders of the published layouts."""

from pathlib import Path

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

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
    _save(BlipForConditionalGeneration(config), folder)
    bert_tokenizer().save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def bert_folder(folder: Path) -> Path:
    settings = {name: value for name, value in WIDTH.items() if name != "projection_dim"}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **settings)
    _save(BertModel(config), folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def clip_folder(folder: Path) -> Path:
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
    _save(CLIPModel(config), folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


GRAPHS = {
    "a red circle left of a blue square": (
        "( circle , is , red ) , ( circle , left of , square ) , ( square , is , blue )"
    ),
    "two circles and a square": "( circles , is , two ) , ( square )",
    "a circle": "( circle )",
}


def parser_folder(folder: Path) -> Path:
    """A T5 that has learnt the graphs of three sentences by heart."""
    graph_pieces = ("▁(", "▁)", "▁,", "▁is", "▁two", "▁Generate", "▁Scene", "▁Graph", ":")
    pieces = ["<pad>", "</s>", "<unk>", *graph_pieces, *(f"▁{word}" for word in SPOKEN)]
    pieces = list(dict.fromkeys(pieces))
    tokenizer = T5Tokenizer(vocab=[(piece, 0.0) for piece in pieces], extra_ids=0)
    config = T5Config(
        vocab_size=len(pieces),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    asked = [f"Generate Scene Graph: {text}" for text in GRAPHS]
    batch = tokenizer(asked, padding=True, return_tensors="pt")
    labels = tokenizer(list(GRAPHS.values()), padding=True, return_tensors="pt")["input_ids"]
    batch["labels"] = labels.masked_fill(labels == 0, -100)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(1000):
        loss = model(**batch).loss
        if loss < 0.01:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _save(model: nn.Module, folder: Path) -> None:
    """With weights so large that what the model says depends on what it is shown."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)


def bert_tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
