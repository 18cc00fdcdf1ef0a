"""Janus and Janus-Pro: transformers' own classes behind the `Policy` protocol."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, JanusForConditionalGeneration, PreTrainedTokenizerBase

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.protocols import Capabilities
from unified_rl.decoding.cache import PrefixCache
from unified_rl.decoding.decoder import Decoder
from unified_rl.decoding.sampling import draw, guide, log_distribution
from unified_rl.models.janus.codec import CodecObjective
from unified_rl.models.lean_llama import LeanLlama, is_lean
from unified_rl.models.next_position import NextPositionPolicy
from unified_rl.models.template import Template


class JanusPolicy(NextPositionPolicy):
    """Understands through a SigLIP encoder, draws through a VQ codebook, one Llama between.

    Args:
        model: any size; its VQ codebook has rows of unit norm (the official search normalises
            them, the library's does not, and with unit rows both agree).
        tokenizer: knows every token of `template`.
        template: layout of a prompt.
    """

    def __init__(
        self,
        model: JanusForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
    ) -> None:
        vision, codec = model.config.vision_config, model.config.vq_config
        self._vocabulary = model.config.text_config.vocab_size
        super().__init__(
            tokenizer,
            template,
            Capabilities(
                likelihood="next_token",
                shared_image_tokens=False,
                image_size=vision.image_size,
                image_positions=codec.num_patches**2,
                code_depth=1,
                codebook_size=codec.num_embeddings,
                image_fit="pad",
            ),
        )
        self.janus = model
        self.codec.requires_grad_(False).eval()

    @property
    def codec(self) -> nn.Module:
        """The VQ image tokenizer; frozen, and in eval mode whatever `train` says."""
        return self.janus.model.vqmodel

    def train(self, mode: bool = True) -> "JanusPolicy":
        """Switches everything but the codec."""
        super().train(mode)
        self.codec.eval()
        return self

    @property
    def text_vocabulary_size(self) -> int:
        """Rows of the text head."""
        return self._vocabulary

    def parameter_groups(self) -> Mapping[str, tuple[nn.Module, ...]]:
        """Modules by the part they play; every parameter is in exactly one group."""
        model = self.janus.model
        llama = model.language_model
        return {
            "language_model": (llama.layers, llama.norm),
            "aligners": (model.aligner, model.generation_aligner),
            "heads": (self.janus.lm_head, model.generation_head),
            "embeddings": (llama.embed_tokens, model.generation_embeddings),
            "vision": (model.vision_model,),
            "codec": (self.codec,),
        }

    @property
    def context_length(self) -> int:
        """Positions that the language model was built for."""
        return self.janus.config.text_config.max_position_embeddings

    def text_rows(self) -> tuple[nn.Module, nn.Module]:
        """Embeddings and head of the language model."""
        return self.janus.get_input_embeddings(), self.janus.lm_head

    def grow_text(self, count: int) -> None:
        """See `UnifiedPolicy.grow_text`."""
        self._vocabulary += count
        self.janus.resize_token_embeddings(self._vocabulary, mean_resizing=False)

    def embed_text(self, ids: Tensor) -> Tensor:
        """(...,) -> (..., width)."""
        return self.janus.get_input_embeddings()(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """(..., 1) -> (..., width), through the generation aligner."""
        return self.janus.prepare_embeddings_for_image_generation(codes[..., 0])

    def code_embedder(self, count: int) -> Callable[[Tensor], Tensor]:
        """A table of all codes behind the aligner, where that is less work."""
        if self.capabilities.codebook_size > count:
            return self.embed_codes
        every = torch.arange(self.capabilities.codebook_size, device=self.device)
        table = self.embed_codes(every[:, None])
        return lambda codes: functional.embedding(codes[..., 0], table)

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, positions, width), through SigLIP and its aligner."""
        pixels = pixels.to(self.janus.dtype)
        return self.janus.model.get_image_features(pixels, return_dict=True).pooler_output

    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., V)."""
        return self.janus.lm_head(hidden)

    def new_cache(self, columns: int) -> PrefixCache:
        """An empty cache of the language model."""
        return PrefixCache(self.janus.config.text_config, columns)

    def new_decoder(self, columns: int) -> Decoder:
        """The leanest that the language model allows."""
        llama = self.janus.model.language_model
        return LeanLlama(llama, columns) if is_lean(llama) else super().new_decoder(columns)

    def backbone(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None
    ) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        return self.janus.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, positions, 1)."""
        pixels = pixels.to(next(self.codec.parameters()).dtype)
        tokens = self.codec.encode(pixels, return_dict=True).image_tokens
        return tokens.reshape(pixels.shape[0], self.image_positions, 1)

    @torch.no_grad()
    def decode_images(self, codes: Tensor) -> Tensor:
        """(n, positions, 1) -> (n, 3, H, W) in about [-1, 1]."""
        return self.codec.decode(codes[..., 0])

    def draw_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draws one position; see `NextPositionPolicy`."""
        log_probs = self._log_distribution(conditional, unconditional, behaviour, None)
        codes, chosen = draw(log_probs, generator)
        recorded = behaviour.image.truncates and behaviour.image.temperature > 0
        support = torch.isfinite(log_probs)[:, None] if recorded else None
        return codes[:, None], chosen[:, None], support

    def score_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        codes: Tensor,
        behaviour: Behaviour,
        support: Tensor | None,
    ) -> Tensor:
        """(R, 1); see `NextPositionPolicy`."""
        support = None if support is None else support[:, 0]
        log_probs = self._log_distribution(conditional, unconditional, behaviour, support)
        return log_probs.gather(-1, codes)

    def _log_distribution(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        support: Tensor | None,
    ) -> Tensor:
        head = self.janus.model.generation_head
        if unconditional is None:
            logits = head(conditional)
        else:
            logits, twin = head(torch.cat([conditional, unconditional])).chunk(2)
            logits = guide(logits, twin, behaviour.guidance_scale)
        return log_distribution(logits, behaviour.image, support=support)

    def image_logits(self, states: Tensor, codes: Tensor) -> Tensor:
        """(R, 1, K); see `UnifiedPolicy`."""
        return self.janus.model.generation_head(states)[:, None]

    def code_table(self, depth: int) -> Tensor:
        """(K, channels): the codebook of unit rows, which is the codec's and frozen."""
        return functional.normalize(self.codec.quantize.embedding.weight, dim=-1)

    def embed_code_vectors(self, vectors: Tensor) -> Tensor:
        """(B, N, 1, channels) -> (B, P, width): decoded to pixels, and seen through SigLIP.

        All of it can be differentiated, though UniRL (3.5) finds that this guides no drawing.
        """
        grid = [int(vectors.shape[1] ** 0.5)] * 2
        latents = vectors[..., 0, :].unflatten(1, grid).permute(0, 3, 1, 2)
        latents = latents.to(self.codec.post_quant_conv.weight.dtype)
        pixels = self.codec.decoder(self.codec.post_quant_conv(latents))
        return self.embed_pixels(pixels.clamp(-1, 1))

    def codec_objective(self) -> CodecObjective:
        """What trains the codec; published models bring theirs along."""
        return CodecObjective(self.codec)

    @torch.no_grad()
    def adopt_codec(self) -> None:
        """Starts the embeddings of codes from the codebook, so that like codes start alike."""
        self.janus.model.generation_embeddings.weight.copy_(self.codec.quantize.embedding.weight)

    def save(self, folder: Path) -> None:
        """Writes a standard folder: safetensors, configuration, tokenizer."""
        self.janus.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.template.save(folder)

    def export(self, original: Path, destination: Path) -> tuple[str, ...]:
        """Writes the authors' layout; see `UnifiedPolicy`."""
        from unified_rl.models.janus import official  # which makes policies itself

        official.export(self.janus, original, destination)
        return ()
