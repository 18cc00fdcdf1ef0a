"""What goes into a policy: prompts, targets and the facts that a reward may check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

THINK = "<think>"
"""Opens a thought; the grammar of an interleaved answer is (THINK text VISUALISE image)+."""
VISUALISE = "<vis>"
"""Closes a thought and asks for an image."""
THINK_END, ANSWER, ANSWER_END = "</think>", "<answer>", "</answer>"
"""With THINK, the grammar of a reasoned answer: THINK text THINK_END ANSWER text ANSWER_END."""


class Task(StrEnum):
    """What a sample asks for; it decides in which modality the completion starts and ends."""

    INTERLEAVED = "interleaved"
    TEXT_TO_IMAGE = "text_to_image"
    UNDERSTANDING = "understanding"
    TEXT = "text"


@dataclass(frozen=True)
class Text:
    """A stretch of text; `THINK` and `VISUALISE` appear in it literally."""

    text: str


@dataclass(frozen=True, eq=False)
class Image:
    """An RGB image, `pixels` uint8 of shape (height, width, 3)."""

    pixels: np.ndarray

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(
                f"an image needs uint8 pixels of shape (height, width, 3), got "
                f"{self.pixels.dtype} {self.pixels.shape}"
            )


@dataclass(frozen=True, eq=False)
class DrawnImage:
    """An image as the codes that a policy drew it with, `codes` int64 of shape (N, D).

    In a prompt it shows a policy its own drawing as it is, where pixels would have to be encoded
    again, which need not give the same codes. As a target it is learnt as it was drawn.
    """

    codes: np.ndarray

    def __post_init__(self) -> None:
        if self.codes.dtype != np.int64 or self.codes.ndim != 2:
            raise ValueError(
                f"a drawn image needs int64 codes of shape (positions, depth), got "
                f"{self.codes.dtype} {self.codes.shape}"
            )


Segment = Text | Image | DrawnImage


@dataclass(frozen=True, eq=False)
class Sample:
    """One item of data.

    Attributes:
        id: unique within its dataset; groups of completions and result files refer to it.
        task: what is asked for.
        prompt: what the policy is shown.
        target: the gold answer; empty where none exists (reinforcement learning needs none).
        facts: JSON-able facts that rewards and evaluations check, never shown to the policy.
    """

    id: str
    task: Task
    prompt: tuple[Segment, ...]
    target: tuple[Segment, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt_text(self) -> str:
        """The text of the prompt, images left out."""
        return " ".join(segment.text for segment in self.prompt if isinstance(segment, Text))


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture to draw and a question to answer that belong together.

    Source: CoRL 3.3.2 and its data x2x_rft_22k.

    Attributes:
        drawing: asks for a picture; its target, where it has one, is the real picture.
        question: asks about a picture, most often the real one.
    """

    drawing: Sample
    question: Sample

    def __post_init__(self) -> None:
        tasks = self.drawing.task, self.question.task
        if tasks != (Task.TEXT_TO_IMAGE, Task.UNDERSTANDING):
            raise ValueError(
                f"a pair of {tasks[0]} {self.drawing.id!r} and {tasks[1]} {self.question.id!r}; "
                "it takes a drawing and a question about a picture"
            )

    @property
    def id(self) -> str:
        """Unique within its dataset."""
        return f"{self.drawing.id} + {self.question.id}"


@dataclass(frozen=True, eq=False)
class Completion:
    """What a policy answered, decoded.

    Attributes:
        segments: text and images in order. Each is one *modality step*.
        finished: False where a length limit cut the answer off.
    """

    segments: tuple[Segment, ...]
    finished: bool

    @property
    def texts(self) -> tuple[str, ...]:
        """The text segments in order."""
        return tuple(segment.text for segment in self.segments if isinstance(segment, Text))

    @property
    def images(self) -> tuple[np.ndarray, ...]:
        """The pixels of the image segments in order."""
        return tuple(segment.pixels for segment in self.segments if isinstance(segment, Image))
