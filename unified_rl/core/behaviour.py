"""The behaviour policy: how completions are drawn, one frozen value to sample *and* replay by."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Sampling:
    """How one modality's next token is drawn from its logits.

    Attributes:
        temperature: logits are divided by it; 0 takes the most likely token.
        top_k: keep the k most likely; 0 keeps all.
        top_p: keep the smallest set whose probability reaches p; 1 keeps all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} is negative; 0 means greedy")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} is negative; 0 keeps every token")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is outside (0, 1]; 1 keeps every token")

    @property
    def truncates(self) -> bool:
        """Whether some tokens get no probability at all."""
        return self.top_k > 0 or self.top_p < 1 or self.temperature == 0


@dataclass(frozen=True)
class Behaviour:
    """Everything that shapes the distribution a completion is drawn from.

    Attributes:
        text: how text tokens are drawn.
        image: how image codes are drawn.
        guidance_scale: w of `unconditional + w * (conditional - unconditional)` on image logits;
            1 is no guidance. Show-o's own weight is w - 1.
        logprob: "guided" scores image codes under the guided distribution they were drawn from;
            "conditional" scores them without guidance, as released research code does.
        image_logprob_shift: "none" scores each image code by the state that has read everything
            before it. "released_off_by_one" replays a bug of CoRL's released code, for comparison
            only: each code is scored by the state that has already read it. No distribution has
            such scores, so that the replay error is not 0, and the first ratio of an update is 1
            only because the replayed scores stand for the old ones too. Drawing and the recorded
            log-probs are as without it. Needs logprob="conditional", as that code has it, and a
            family that draws position by position.
        constrained: structural tokens (padding, begin of image, ...) get no probability.
        image_step_count: decoding steps of an image for mask-predicting families.
        mask_schedule: share of an image that stays masked over the steps of such a family.
        mask_noise: temperature of the Gumbel noise on the confidences by which its steps choose
            what to reveal; it decays over the steps.
        mask_likelihood: "steps" scores a code at the step that revealed it; "frozen" scores it
            under masks drawn once, after the image, and kept in the trajectory.
        replayed_step_count: "steps" scores the codes of this many steps of each image, evenly
            spaced from a random start; the others are no actions, so that averages over an image
            are averages over these. 0, or as many as there are, scores all.
        frozen_step_count: number of nested masks of "frozen".
        max_text_tokens: limit of one text segment.
        max_image_count: limit of images in one completion.
    """

    text: Sampling = field(default_factory=Sampling)
    image: Sampling = field(default_factory=Sampling)
    guidance_scale: float = 1.0
    logprob: Literal["guided", "conditional"] = "guided"
    image_logprob_shift: Literal["none", "released_off_by_one"] = "none"
    constrained: bool = True
    image_step_count: int = 8
    mask_schedule: Literal["cosine", "linear", "pow", "sigmoid"] = "cosine"
    mask_noise: float = 1.0
    mask_likelihood: Literal["steps", "frozen"] = "steps"
    replayed_step_count: int = 0
    frozen_step_count: int = 2
    max_text_tokens: int = 32
    max_image_count: int = 4

    def __post_init__(self) -> None:
        if self.guidance_scale < 0:
            raise ValueError(f"guidance_scale={self.guidance_scale} is negative; 1 is no guidance")
        if self.logprob not in ("guided", "conditional"):
            raise ValueError(f"logprob={self.logprob!r} is neither 'guided' nor 'conditional'")
        for name, known in (
            ("image_logprob_shift", ("none", "released_off_by_one")),
            ("mask_schedule", ("cosine", "linear", "pow", "sigmoid")),
            ("mask_likelihood", ("steps", "frozen")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        if self.replays_off_by_one and self.logprob != "conditional":
            raise ValueError(
                "image_logprob_shift='released_off_by_one' scores codes without guidance, as the "
                f"released code does, not by logprob={self.logprob!r}; set logprob='conditional'"
            )
        if self.replayed_step_count < 0:
            raise ValueError(
                f"replayed_step_count={self.replayed_step_count} is negative; 0 scores every step"
            )
        if self.replayed_step_count and self.mask_likelihood == "frozen":
            raise ValueError(
                f"replayed_step_count={self.replayed_step_count} needs mask_likelihood='steps'; "
                "'frozen' has frozen_step_count masks of its own, so set replayed_step_count=0"
            )
        if self.mask_noise < 0:
            raise ValueError(f"mask_noise={self.mask_noise} is negative; 0 adds no noise")
        counts = ("image_step_count", "frozen_step_count", "max_text_tokens", "max_image_count")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def guided(self) -> bool:
        """Whether drawing an image needs the unconditional twin of each row."""
        return self.guidance_scale != 1

    @property
    def replays_some_steps(self) -> bool:
        """Whether only some steps of a mask-predicting family's image are actions."""
        few = 0 < self.replayed_step_count < self.image_step_count
        return few and self.mask_likelihood == "steps"

    @property
    def replays_off_by_one(self) -> bool:
        """Whether image codes are scored by states that have already read them."""
        return self.image_logprob_shift == "released_off_by_one"

    @property
    def replays_guided(self) -> bool:
        """Whether scoring an image needs the unconditional twin of each row."""
        return self.guided and self.logprob == "guided"


TEACHER = Behaviour(constrained=False)
"""The plain model distribution under which gold targets are scored."""
