"""Tiny chat models as folders of the published layout."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ("<unk>", "<eos>", "<|turn|>", "yes", "no", "maybe", "answer", "right", "circle")
TEMPLATE = "{% for turn in messages %}<|turn|>{{ turn.content }}{% endfor %}<|turn|>"


def chat_folder(
    folder: Path, reply: str, template: bool = True, positions: int = 512, ends: bool = True
) -> Path:
    """A model that says `reply` to anything, once or, where it never ends, again and again."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    _always(model, WORDS.index(reply), ends)
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        eos_token="<eos>",
        additional_special_tokens=["<|turn|>"],
    )
    tokenizer.chat_template = TEMPLATE if template else None
    tokenizer.save_pretrained(folder)
    return folder


def _always(model: LlamaForCausalLM, said: int, ends: bool) -> None:
    """Layers that add nothing, so that the last token alone decides: it, or after it the end."""
    with torch.no_grad():
        block = model.model.layers[0]
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.zero_()
        head.zero_()
        embeddings[:, 1] = 1
        if ends:
            embeddings[said, :2] = torch.tensor([1.0, 0.0])
        head[said, 1], head[WORDS.index("<eos>"), 0] = 1, 1
