"""A toy of the mask-predict family: an image appears over a few steps, anywhere in its block."""

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tests.toys.base import WIDTH, ToyPolicy
from tests.toys.codec import CODE_COUNT
from unified_rl.core.behaviour import Behaviour
from unified_rl.decoding.sampling import guide, log_distribution
from unified_rl.models.mask_predict import MaskPredictPolicy
from unified_rl.models.template import Template


class MaskPredictToy(MaskPredictPolicy, ToyPolicy):
    """The row behind the codebook stands for a masked code."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
        ToyPolicy.__init__(self, tokenizer, template, "mask_predict", extra_codes=1)
        self.head = nn.Linear(WIDTH, CODE_COUNT)

    def code_log_probs(
        self,
        hidden: Tensor,
        twin: Tensor | None,
        behaviour: Behaviour,
        support: Tensor | None = None,
    ) -> Tensor:
        logits = self.head(hidden)
        if twin is not None:
            logits = guide(logits, self.head(twin), behaviour.guidance_scale)
        return log_distribution(logits, behaviour.image, support=support)
