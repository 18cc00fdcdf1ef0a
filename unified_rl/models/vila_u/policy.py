"""VILA-U behind the policy protocol: D codes a position, drawn by the depth transformer."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedTokenizerBase

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Capabilities
from unified_rl.decoding.cache import PrefixCache
from unified_rl.decoding.decoder import Decoder
from unified_rl.decoding.sampling import draw, guide, log_distribution
from unified_rl.models.lean_llama import LeanLlama, is_lean
from unified_rl.models.next_position import NextPositionPolicy
from unified_rl.models.soft_images import PLAIN
from unified_rl.models.template import Template
from unified_rl.models.vila_u.codec_training import RqObjective
from unified_rl.models.vila_u.depth import DepthReader
from unified_rl.models.vila_u.model import VilaUModel


class VilaUPolicy(NextPositionPolicy):
    """Sees an image as the very code vectors that it would draw it with.

    Args:
        model: any size.
        tokenizer: knows every token of `template`.
        template: layout of a prompt.
    """

    def __init__(
        self, model: VilaUModel, tokenizer: PreTrainedTokenizerBase, template: Template
    ) -> None:
        vision, codec = model.config.vision_config, model.codec.config
        grid = vision.image_size // vision.patch_size
        height, width = codec.decoder_grid or (grid, grid)
        if height != width:
            raise ConfigError(f"decoder_grid={codec.decoder_grid} must be a square, as images are")
        self._vocabulary = model.config.text_config.vocab_size
        super().__init__(
            tokenizer,
            template,
            Capabilities(
                likelihood="residual_depth",
                shared_image_tokens=True,
                image_size=height * codec.enlargement,  # of what is drawn; what is seen is resized
                image_positions=grid**2,
                code_depth=codec.depth,
                codebook_size=codec.codebook_size,
                image_fit="stretch",
            ),
        )
        self.vila_u = model
        self.codec.requires_grad_(False).eval()

    @property
    def codec(self) -> nn.Module:
        """The image tokenizer; frozen, and in eval mode whatever `train` says."""
        return self.vila_u.codec

    def train(self, mode: bool = True) -> "VilaUPolicy":
        """Switches everything but the codec."""
        super().train(mode)
        self.codec.eval()
        return self

    @property
    def text_vocabulary_size(self) -> int:
        """Rows of the text head."""
        return self._vocabulary

    @property
    def context_length(self) -> int:
        """Positions that the language model was built for."""
        return self.vila_u.config.text_config.max_position_embeddings

    def parameter_groups(self) -> Mapping[str, tuple[nn.Module, ...]]:
        """Modules by the part they play; the vision encoder is a part of the codec."""
        llama = self.vila_u.language_model
        return {
            "language_model": (llama.model.layers, llama.model.norm),
            "aligners": (self.vila_u.projector,),
            "heads": (llama.lm_head, self.vila_u.depth_transformer),
            "embeddings": (llama.model.embed_tokens,),
            "codec": (self.codec,),
        }

    def text_rows(self) -> tuple[nn.Module, nn.Module]:
        """Embeddings and head of the language model."""
        return self.vila_u.get_input_embeddings(), self.vila_u.language_model.lm_head

    def grow_text(self, count: int) -> None:
        """See `UnifiedPolicy.grow_text`."""
        self._vocabulary += count
        self.vila_u.language_model.resize_token_embeddings(self._vocabulary, mean_resizing=False)

    def embed_text(self, ids: Tensor) -> Tensor:
        """(...,) -> (..., width)."""
        return self.vila_u.get_input_embeddings()(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """(..., D) -> (..., width): the sum of the code vectors, projected."""
        return self.vila_u.projector(self.codec.quantizer.vectors(codes).sum(-2))

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, positions, width)."""
        latents = self.codec.latents(pixels.to(self.vila_u.dtype))
        return self.vila_u.projector(self.codec.quantizer.straight_through(latents))

    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., V)."""
        return self.vila_u.language_model.lm_head(hidden)

    def new_cache(self, columns: int) -> PrefixCache:
        """An empty cache of the language model."""
        return PrefixCache(self.vila_u.config.text_config, columns)

    def new_decoder(self, columns: int) -> Decoder:
        """The leanest that the language model allows."""
        llama = self.vila_u.language_model.model
        return LeanLlama(llama, columns) if is_lean(llama) else super().new_decoder(columns)

    def backbone(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None
    ) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        return self.vila_u.language_model.model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, positions, D)."""
        return self.codec.encode(pixels.to(self.vila_u.dtype))

    @torch.no_grad()
    def decode_images(self, codes: Tensor) -> Tensor:
        """(n, positions, D) -> (n, 3, H, W) in about [-1, 1]."""
        return self.codec.decode(codes)

    def draw_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draws the D codes of one position, each guided; see `NextPositionPolicy`."""
        guided = unconditional is not None
        states = torch.cat([conditional, unconditional]) if guided else conditional
        reader = DepthReader(self.vila_u.depth_transformer, states)
        codes, logprobs, supports = [], [], []
        for depth in range(self.capabilities.code_depth):
            if codes:
                vectors = self.codec.quantizer.codebook(depth - 1).weight[codes[-1]]
                reader.push(vectors.repeat(2, 1) if guided else vectors)
            logits = reader.logits()
            if guided:
                logits = guide(*logits.chunk(2), behaviour.guidance_scale)
            log_probs = log_distribution(logits, behaviour.image)
            code, chosen = draw(log_probs, generator)
            codes.append(code)
            logprobs.append(chosen)
            supports.append(torch.isfinite(log_probs))
        support = torch.stack(supports, 1) if behaviour.image.truncates else None
        return torch.stack(codes, 1), torch.stack(logprobs, 1), support

    def score_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        codes: Tensor,
        behaviour: Behaviour,
        support: Tensor | None,
    ) -> Tensor:
        """(R, D), all depths in one pass; see `NextPositionPolicy`."""
        logits = self.code_logits(conditional, unconditional, codes[:, :-1], behaviour)
        log_probs = log_distribution(logits, behaviour.image, support=support)
        return log_probs.gather(-1, codes[..., None]).squeeze(-1)

    def code_logits(
        self, conditional: Tensor, unconditional: Tensor | None, codes: Tensor, behaviour: Behaviour
    ) -> Tensor:
        """Logits of the first d + 1 depths of a position, guided if there is a twin.

        Args:
            conditional: (R, width) states; `unconditional` those of the twins.
            unconditional: see `conditional`.
            codes: (R, d) of the first d depths; d may be 0.
            behaviour: says how far to guide.

        Returns:
            (R, d + 1, K).
        """
        if codes.shape[1]:
            vectors = self.codec.quantizer.vectors(codes)
        else:
            width = self.codec.post_quant_conv.in_channels
            vectors = conditional.new_zeros(len(codes), 0, width)
        logits = self.vila_u.depth_transformer(conditional, vectors)
        if unconditional is None:
            return logits
        twin = self.vila_u.depth_transformer(unconditional, vectors)
        return guide(logits, twin, behaviour.guidance_scale)

    def image_logits(self, states: Tensor, codes: Tensor) -> Tensor:
        """(R, D, K), all depths in one pass; see `UnifiedPolicy`."""
        return self.code_logits(states, None, codes[:, :-1], PLAIN)

    def code_table(self, depth: int) -> Tensor:
        """(K, channels): the codebook of a depth, which is the codec's and frozen."""
        return self.codec.quantizer.codebook(depth).weight[: self.capabilities.codebook_size]

    def embed_code_vectors(self, vectors: Tensor) -> Tensor:
        """(B, N, D, channels) -> (B, N, width)."""
        return self.vila_u.projector(vectors.sum(-2))

    def codec_objective(self) -> RqObjective:
        """What trains the codec; published models bring theirs along."""
        return RqObjective(self.codec)

    def adopt_codec(self) -> None:
        """Nothing to do: codes are embedded as the vectors of the codec itself."""

    def save(self, folder: Path) -> None:
        """Writes a standard folder: safetensors, configuration, tokenizer."""
        self.vila_u.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.template.save(folder)

    def export(self, original: Path, destination: Path) -> tuple[str, ...]:
        """Writes the authors' layout; see `UnifiedPolicy`."""
        from unified_rl.models.vila_u import official  # which makes policies itself

        official.export(self.vila_u, original, destination)
        return ()
