"""A tiny parser of scene graphs as a folder of the published layout."""

from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

from unified_rl.rewards.specimens import SPOKEN

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
