"""Yes or no to questions about pictures: what DPG-Bench and DSG-1K score by."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image, Text
from unified_rl.rewards.judging import Judge, JudgeQuestion
from unified_rl.rewards.local_model import load_judge, load_part, load_tokenizer, require_judge

REPLY_LIMIT = 40
"""Characters of a reply that is more than one word are not read."""
_ANSWER_TOKENS = 8
_MARKS = ".,?!\"'* "


class PictureQuestion(NamedTuple):
    """A question about a picture that is answered by yes or no.

    Attributes:
        pixels: uint8 (height, width, 3).
        text: of the question.
    """

    pixels: np.ndarray
    text: str


class QuestionAnswerer(Protocol):
    """Answers questions about pictures."""

    def __call__(self, questions: Sequence[PictureQuestion]) -> list[bool | None]:
        """One answer a question: True for yes, False for anything else that it says, None where it
        gives no answer. Never raises for a reply.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Name, version and settings, JSON-able; "official" names the benchmarks whose own it is,
        "dpg" and "dsg".
        """
        ...


class JudgeAnswerer:
    """Has a judge answer.

    A reply must be one word, yes or no, in whatever case and with marks around it. All else is no
    answer, counted as such, and worth nothing.

    Source: DSG (arXiv 2310.18235), whose GPT-4o is asked with this template.

    Args:
        judge: a model that sees pictures.
        official: benchmarks whose own model this is: "dsg" for gpt-4o; no judge is DPG-Bench's.
    """

    template = (
        "Answer only with 'yes' or 'no'. Do not give other outputs or punctuation marks. "
        "Question: {question}"
    )

    def __init__(self, judge: Judge, official: Sequence[Literal["dpg", "dsg"]] = ()) -> None:
        self._judge, self._official = judge, tuple(official)

    def __call__(self, questions: Sequence[PictureQuestion]) -> list[bool | None]:
        """The judge's answers."""
        asked = [
            JudgeQuestion((Text(self.template.format(question=q.text)), Image(q.pixels)))
            for q in questions
        ]
        replies = self._judge.ask(asked)
        return [None if reply is None else yes_or_no(reply) for reply in replies]

    def describe(self) -> dict[str, Any]:
        """The judge and how it is asked."""
        return {
            "answerer": "judge",
            "judge": dict(self._judge.describe()),
            "template": self.template,
            "official": list(self._official),
        }


class BlipAnswerer:
    """BLIP's question answering out of a local folder, greedily: works offline.

    Departs: DPG-Bench has mPLUG-large, DSG-1K mPLUG-large, InstructBLIP, GPT-4o or PaLI; BLIP is a
    substitute for them, and results say so.

    Args:
        checkpoint: folder of a BLIP model for question answering in the transformers layout
            (Salesforce/blip-vqa-base, say), weights as safetensors.
        batch_size: questions in one pass.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is missing, damaged or of another model.
        ConfigError: a batch below 1, an unknown dtype or a device that is not there.
    """

    def __init__(
        self,
        checkpoint: str,
        batch_size: int = 16,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import BlipForQuestionAnswering, BlipImageProcessorPil

        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        setting = "answerer.checkpoint"
        folder = require_judge(checkpoint, setting, "blip")
        self._processor = load_part(BlipImageProcessorPil, folder, setting)
        self._tokenizer = load_tokenizer(folder, setting)
        self._model = load_judge(BlipForQuestionAnswering, folder, setting, device, dtype)
        self._checkpoint, self._batch_size = checkpoint, batch_size

    def __call__(self, questions: Sequence[PictureQuestion]) -> list[bool | None]:
        """True where the answer is the word yes, else False."""
        answers: list[bool | None] = []
        for start in range(0, len(questions), self._batch_size):
            words = self._said(questions[start : start + self._batch_size])
            answers += [word.strip().casefold() == "yes" for word in words]
        return answers

    def describe(self) -> dict[str, Any]:
        """The model."""
        return {"answerer": "transformers BLIP", "model": self._checkpoint, "official": []}

    @torch.no_grad()
    def _said(self, questions: Sequence[PictureQuestion]) -> list[str]:
        shown = [PillowImage.fromarray(question.pixels) for question in questions]
        pixels = self._processor(images=shown, return_tensors="pt")["pixel_values"]
        words = self._tokenizer(
            [question.text for question in questions],
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        device = self._model.device
        ids = self._model.generate(
            input_ids=words["input_ids"].to(device),
            attention_mask=words["attention_mask"].to(device),
            pixel_values=pixels.to(device, self._model.dtype),
            max_new_tokens=_ANSWER_TOKENS,
            do_sample=False,
            num_beams=1,
        )
        # the first is the token that begins every answer, which not every tokenizer hides
        return self._tokenizer.batch_decode(ids[:, 1:], skip_special_tokens=True)


def yes_or_no(reply: str) -> bool | None:
    """True for yes, False for no, None for any other reply."""
    if len(reply) > REPLY_LIMIT:
        return None
    return {"yes": True, "no": False}.get(reply.strip().strip(_MARKS).casefold())
