"""What both toys share: a two-layer Llama, a text head, and one table of codes for eye and hand."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerBase

from tests.toys.codec import CODE_COUNT, IMAGE_SIZE, POSITIONS, ColourCodec
from unified_rl.core.protocols import Capabilities
from unified_rl.decoding.cache import PrefixCache
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.template import Template

WIDTH = 32


class ToyPolicy(UnifiedPolicy):
    """A policy of random weights that sees an image as the very codes it would draw it with.

    Args:
        likelihood: of the family.
        depth: D, codes a position.
        extra_codes: rows of the code table behind the codebook.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        likelihood: str,
        depth: int = 1,
        extra_codes: int = 0,
    ) -> None:
        capabilities = Capabilities(likelihood, True, IMAGE_SIZE, POSITIONS, depth, CODE_COUNT)
        super().__init__(tokenizer, template, capabilities)
        self.config = LlamaConfig(
            vocab_size=self.text_vocabulary_size,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
        self.language_model = LlamaModel(self.config)
        self.text_head = nn.Linear(WIDTH, self.text_vocabulary_size, bias=False)
        self.code_tables = nn.ModuleList(
            nn.Embedding(CODE_COUNT + extra_codes, WIDTH) for _ in range(depth)
        )
        self.codec = ColourCodec(depth).eval()

    def train(self, mode: bool = True) -> "ToyPolicy":
        super().train(mode)
        self.codec.eval()
        return self

    @property
    def text_vocabulary_size(self) -> int:
        return len(self.tokenizer)

    def parameter_groups(self) -> Mapping[str, tuple[nn.Module, ...]]:
        llama = self.language_model
        others = (llama, self.code_tables, self.codec)
        return {
            "language_model": (llama.layers, llama.norm),
            "heads": tuple(child for child in self.children() if child not in others),
            "embeddings": (llama.embed_tokens, self.code_tables),
            "codec": (self.codec,),
        }

    def embed_text(self, ids: Tensor) -> Tensor:
        return self.language_model.embed_tokens(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        return sum(table(codes[..., depth]) for depth, table in enumerate(self.code_tables))

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        return self.embed_codes(self.encode_images(pixels))

    def text_logits(self, hidden: Tensor) -> Tensor:
        return self.text_head(hidden)

    def new_cache(self, columns: int) -> PrefixCache:
        return PrefixCache(self.config, columns)

    def backbone(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None
    ) -> Tensor:
        return self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def encode_images(self, pixels: Tensor) -> Tensor:
        return self.codec.encode(pixels)

    def decode_images(self, codes: Tensor) -> Tensor:
        return self.codec.decode(codes)

    def save(self, folder: Path) -> None:
        torch.save(self.state_dict(), folder / "weights.pt")
