"""Show-o behind the policy protocol: one vocabulary for words and codes, images by masking."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, PreTrainedTokenizerBase

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Capabilities
from unified_rl.core.sample import Sample, Task
from unified_rl.decoding.cache import PrefixCache
from unified_rl.decoding.sampling import guide, log_distribution
from unified_rl.decoding.tape import Columns, Kind
from unified_rl.models.mask_predict import MaskPredictPolicy
from unified_rl.models.showo import prompting
from unified_rl.models.showo.codec_training import LfqObjective
from unified_rl.models.showo.model import ShowoModel
from unified_rl.models.template import Template


class ShowoPolicy(MaskPredictPolicy):
    """Sees an image as the very codes that it would draw it with, or through CLIP.

    Args:
        model: any size.
        tokenizer: knows every token of `template`; its length is the id of code 0.
        template: layout of a prompt.

    Raises:
        ConfigError: the model's `text_limit` leaves no room for a word.
    """

    def __init__(
        self, model: ShowoModel, tokenizer: PreTrainedTokenizerBase, template: Template
    ) -> None:
        codec = model.codec.config
        self._vocabulary = model.config.text_config.vocab_size
        super().__init__(
            tokenizer,
            template,
            Capabilities(
                likelihood="mask_predict",
                shared_image_tokens=model.vision_model is None,
                image_size=codec.image_size,
                image_positions=(codec.image_size // codec.reduction) ** 2,
                code_depth=1,
                codebook_size=codec.code_count,
            ),
        )
        self.showo = model
        self.text_limit = model.config.text_limit
        if self.text_limit is not None and self.text_limit < 3:
            raise ConfigError(
                f"text_limit={self.text_limit} leaves no word between the start and end tokens, "
                "which count; use at least 3, or null for no limit"
            )
        self.code_offset = model.config.code_offset
        self.allowed_text[self.code_offset :] = False
        self.codec.requires_grad_(False).eval()

    @property
    def codec(self) -> nn.Module:
        """The image tokenizer; frozen, and in eval mode whatever `train` says."""
        return self.showo.codec

    def train(self, mode: bool = True) -> "ShowoPolicy":
        """Switches everything but the codec."""
        super().train(mode)
        self.codec.eval()
        return self

    @property
    def text_vocabulary_size(self) -> int:
        """Rows of the head, codes and mask included."""
        return self._vocabulary

    @property
    def context_length(self) -> int:
        """Positions that the language model was built for."""
        return self.showo.config.text_config.max_position_embeddings

    def parameter_groups(self) -> Mapping[str, tuple[nn.Module, ...]]:
        """Modules by the part they play; only the variant with CLIP has an aligner and an eye."""
        phi = self.showo.language_model
        seeing = {}
        if self.showo.vision_model is not None:
            seeing = {"aligners": (self.showo.projector,), "vision": (self.showo.vision_model,)}
        return {
            **seeing,
            "language_model": (phi.model.layers, phi.model.final_layernorm),
            "heads": (phi.lm_head,),
            "embeddings": (phi.model.embed_tokens,),
            "codec": (self.codec,),
        }

    @property
    def shown_positions(self) -> int:
        """Codes, or patches of CLIP."""
        eye = self.showo.config.vision_config
        if eye is None:
            return self.image_positions
        return (eye.image_size // eye.patch_size) ** 2

    def seen_by_all(self, kind: Tensor) -> Tensor:
        """(B, C) bool; of what CLIP shows, the image alone: no borders, no system prompt."""
        return super().seen_by_all(kind) if self.showo.vision_model is None else kind == Kind.PIXEL

    def fit_prompt(self, columns: Columns, task: Task) -> Columns:
        """What an image is drawn from, cut to `text_limit`, where there is one.

        The token that names the task does not count; a prompt that shows images, for which the
        authors have no form, stays whole.
        """
        if self.text_limit is None or task != Task.TEXT_TO_IMAGE:
            return columns
        if prompting.behind_images(columns):
            return columns
        return prompting.cut(columns, 1 + self.text_limit)

    def _target_columns(self, sample: Sample, codes: Iterator[list[list[int]]]) -> Columns:
        columns = super()._target_columns(sample, codes)
        if self.text_limit is not None and sample.task == Task.UNDERSTANDING:
            return prompting.cut(columns, prompting.behind_images(columns) + self.text_limit)
        if self.text_limit is not None and sample.task == Task.TEXT:  # as wide as a drawing
            width = 1 + self.text_limit + self.image_positions + 2
            return prompting.cut(columns, width, closing=0)
        return columns

    def embed_text(self, ids: Tensor) -> Tensor:
        """(...,) -> (..., width)."""
        return self.showo.get_input_embeddings()(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """(..., 1) -> (..., width); the code behind the last is the mask token."""
        return self.embed_text(codes[..., 0] + self.code_offset)

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, shown positions, width)."""
        if self.showo.vision_model is None:
            return self.embed_codes(self.codes_of(pixels))
        return self.showo.projector(self.showo.vision_model(pixels))

    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., V)."""
        return self.showo.language_model.lm_head(hidden)

    def new_cache(self, columns: int) -> PrefixCache:
        """An empty cache of the language model."""
        return PrefixCache(self.showo.config.text_config, columns)

    def backbone(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None
    ) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        return self.showo.language_model.model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, positions, 1)."""
        return self.codec.encode(pixels.to(self.showo.dtype))[..., None]

    @torch.no_grad()
    def decode_images(self, codes: Tensor) -> Tensor:
        """(n, positions, 1) -> (n, 3, H, W) in about [-1, 1]."""
        return self.codec.decode(codes[..., 0])

    def code_log_probs(
        self,
        hidden: Tensor,
        twin: Tensor | None,
        behaviour: Behaviour,
        support: Tensor | None = None,
    ) -> Tensor:
        """(..., K); see `MaskPredictPolicy`. Unconstrained, words compete with codes."""
        codes = self._code_rows
        rows = codes if behaviour.constrained else slice(None)
        logits = self._logits(hidden, rows)
        if twin is not None:
            logits = guide(logits, self._logits(twin, rows), behaviour.guidance_scale)
        log_probs = log_distribution(logits, behaviour.image, support=support)
        return log_probs if behaviour.constrained else log_probs[..., codes]

    def image_logits(self, states: Tensor, codes: Tensor) -> Tensor:
        """(R, 1, K); see `UnifiedPolicy`."""
        return self._logits(states, self._code_rows)[:, None]

    def code_table(self, depth: int) -> Tensor:
        """(K, width): rows of the embeddings that words and codes share."""
        return self.showo.get_input_embeddings().weight[self._code_rows]

    def embed_code_vectors(self, vectors: Tensor) -> Tensor:
        """(B, N, 1, width) -> (B, N, width)."""
        return vectors[..., 0, :]

    @property
    def _code_rows(self) -> slice:
        return slice(self.code_offset, self.code_offset + self.mask_code)

    def _logits(self, hidden: Tensor, rows: slice) -> Tensor:
        head = self.showo.language_model.lm_head
        return functional.linear(hidden, head.weight[rows], head.bias[rows])

    def codec_objective(self) -> LfqObjective:
        """What trains the codec; published models bring theirs along."""
        return LfqObjective(self.codec)

    @torch.no_grad()
    def adopt_codec(self) -> None:
        """Starts the embeddings of codes from their bits, so that like codes start alike."""
        table = self.showo.get_input_embeddings().weight
        codes = self._code_rows
        bits = self.codec.quantize.embedding.to(table)
        random = torch.randn(bits.shape[1], table.shape[1], generator=torch.Generator()).to(table)
        spread = table[codes].std()
        table[codes] = spread * bits @ random / bits.shape[1] ** 0.5

    def save(self, folder: Path) -> None:
        """Writes a standard folder: safetensors, configuration, tokenizer."""
        self.showo.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.template.save(folder)

    def export(self, original: Path, destination: Path) -> tuple[str, ...]:
        """Writes the authors' layout; see `UnifiedPolicy`."""
        from unified_rl.models.showo import official  # which makes policies itself

        return official.export(self.showo, original, destination)
