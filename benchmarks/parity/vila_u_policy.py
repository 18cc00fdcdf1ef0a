"""VILA-U with recorded weights, and its sequences as the official code writes them."""

import torch
from torch import Tensor

from benchmarks.parity.checks import Golden
from benchmarks.parity.numbered import numbered_tokenizer, words
from unified_rl.core.behaviour import Behaviour
from unified_rl.decoding.tape import Columns, Tape, stack
from unified_rl.models.template import Template
from unified_rl.models.vila_u.official import (
    LANGUAGE_MODEL,
    PROJECTOR,
    TOWER,
    build,
    vila_u_config,
)
from unified_rl.models.vila_u.policy import VilaUPolicy
from unified_rl.models.weights import StateWeights

PREFIXES = {
    LANGUAGE_MODEL: "llm.",
    TOWER: "vision_tower.vision_tower.",
    PROJECTOR: "mm_projector.",
}
"""Of golden weights, by the official folder that holds them without."""
IGNORED = -100
"""Label of what is not learnt."""


class ReplayedVilaU(VilaUPolicy):
    """Draws what was drawn before, and keeps what it could have drawn from.

    Attributes:
        script: (B, N, D) codes to draw; None to draw by itself.
        logits: (B, D, K), guided, of each position drawn.
    """

    script: Tensor | None = None
    logits: list[Tensor]

    def replay(self, script: Tensor | None) -> None:
        """Starts over, with or without a script."""
        self.script, self.logits = script, []

    def draw_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draws one position; see `NextPositionPolicy`."""
        states = (conditional, unconditional)
        if self.script is None:
            codes, scores, support = super().draw_codes(*states, behaviour, generator)
        else:
            codes, support = self.script[:, len(self.logits)], None
            scores = self.score_codes(*states, codes, behaviour, None)
        self.logits.append(self.code_logits(*states, codes[:, :-1], behaviour))
        return codes, scores, support


def golden_policy(golden: Golden) -> ReplayedVilaU:
    """The policy with the golden weights, read as an official checkpoint is."""
    config, weights = golden.config, {}
    for folder, prefix in PREFIXES.items():
        held = {n: w for n, w in golden.weights.items() if n.startswith(prefix)}
        weights[folder] = StateWeights({n.removeprefix(prefix): w for n, w in held.items()})
    llm, special = config["llm"], config["special_ids"]
    names = {llm[f"{name}_token_id"]: f"<{name}>" for name in ("bos", "eos", "pad")}
    names |= {special[name]: f"<{name}>" for name in ("im_start", "im_end")}
    tokenizer = numbered_tokenizer(llm["vocab_size"], names)
    template = Template(
        layout="{start}{prompt}",
        unconditional="{start}" + words(tokenizer, prompts(golden)[-1]),
        image_trigger="<eos>",  # the official model asks for no images
        begin_of_image="<im_start>",
        end_of_image="<im_end>",
        forbidden=(),
    )
    vision = {"vision": config["cfg"]["siglip"]["vision_config"]}
    sizes = vila_u_config(llm, config, config, vision)  # it holds what the official three hold
    model = build(sizes, weights, torch.float32)
    policy = ReplayedVilaU(model, tokenizer, template).eval()
    policy.replay(None)
    return policy


def prompts(golden: Golden) -> list[list[int]]:
    """Recorded prompts of images, then their twins, without their start and begin-of-image ids."""
    pairs = zip(golden.io["gen.input_ids"], golden.io["gen.attention_mask"].bool(), strict=True)
    return [ids[valid][1:-1].tolist() for ids, valid in pairs]


class OfficialBatch:
    """Sequences in which one id stands for a whole image.

    Args:
        policy: lays them out.
        ids: (B, L), `image_id` among them.
        valid: (B, L) bool, False in padding.
        learnt: (B, L) bool, tokens that are targets.
        images: (n, 3, H, W), in order.
        image_id: stands for the next image.
    """

    def __init__(
        self,
        policy: VilaUPolicy,
        ids: Tensor,
        valid: Tensor,
        learnt: Tensor,
        images: Tensor,
        image_id: int,
    ) -> None:
        self.policy, self.images = policy, images
        self.ids, self.valid, self.learnt = ids, valid, learnt
        self.is_image = (ids == image_id) & valid

    def tape(self, drawn: Tensor, left: bool = False) -> Tape:
        """The sequences as columns.

        Args:
            drawn: (B, L) bool, images that are drawn, and learnt; the others are shown.
            left: pad on the left.
        """
        depth, positions = self.policy.capabilities.code_depth, self.policy.image_positions
        codes = iter(self.policy.encode_images(self.images).tolist())
        rows = []
        for row, ids in enumerate(self.ids.tolist()):
            columns = Columns(depth)
            for column in self.valid[row].nonzero().flatten().tolist():
                if not self.is_image[row, column]:
                    columns.text([ids[column]], 0, bool(self.learnt[row, column]))
                    continue
                drawing = next(codes)
                if drawn[row, column]:
                    columns.codes(drawing, 0)
                else:
                    columns.shown_image(positions)
            rows.append(columns)
        return stack(rows, self._shown(drawn), left)

    def _shown(self, drawn: Tensor) -> Tensor:
        """(B, M, 3, H, W)."""
        shown = (self.is_image & ~drawn).sum(1)  # (B,)
        pixels = self.images.new_zeros(len(shown), int(shown.max()), *self.images.shape[1:])
        seen = ~drawn[self.is_image]  # (n,)
        pixels[torch.arange(pixels.shape[1]) < shown[:, None]] = self.images[seen]
        return pixels
