"""A toy of the residual-depth family: D codes a position, drawn one after another."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tests.toys.base import WIDTH, ToyPolicy
from tests.toys.codec import CODE_COUNT
from unified_rl.core.behaviour import Behaviour
from unified_rl.decoding.sampling import draw, guide, log_distribution
from unified_rl.models.next_position import NextPositionPolicy
from unified_rl.models.template import Template


class ResidualDepthToy(ToyPolicy, NextPositionPolicy):
    """Depth d sees the position's state and the sum of the embeddings of codes 0 to d - 1."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, depth: int = 2
    ) -> None:
        super().__init__(tokenizer, template, "residual_depth", depth)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, CODE_COUNT) for _ in range(depth))

    def draw_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        supports = []

        def pick(depth: int, log_probs: Tensor) -> tuple[Tensor, Tensor]:
            supports.append(torch.isfinite(log_probs))
            return draw(log_probs, generator)

        codes, logprobs = self._descend(conditional, unconditional, behaviour, None, pick)
        return codes, logprobs, torch.stack(supports, 1) if behaviour.image.truncates else None

    def score_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        codes: Tensor,
        behaviour: Behaviour,
        support: Tensor | None,
    ) -> Tensor:
        def pick(depth: int, log_probs: Tensor) -> tuple[Tensor, Tensor]:
            given = codes[:, depth]
            return given, log_probs.gather(-1, given[:, None]).squeeze(-1)

        return self._descend(conditional, unconditional, behaviour, support, pick)[1]

    def _descend(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        support: Tensor | None,
        pick: Callable[[int, Tensor], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Codes (R, D) and log-probs (R, D); `pick` draws or looks up what a depth holds."""
        path, codes, logprobs = torch.zeros_like(conditional), [], []
        for depth, (head, table) in enumerate(zip(self.heads, self.code_tables, strict=True)):
            logits = head(torch.tanh(conditional + path))
            if unconditional is not None:
                twin = head(torch.tanh(unconditional + path))
                logits = guide(logits, twin, behaviour.guidance_scale)
            kept = None if support is None else support[:, depth]
            code, logprob = pick(depth, log_distribution(logits, behaviour.image, support=kept))
            path = path + table(code)
            codes.append(code)
            logprobs.append(logprob)
        return torch.stack(codes, 1), torch.stack(logprobs, 1)
