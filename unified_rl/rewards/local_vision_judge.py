"""A judge that is a vision-language model in a local folder."""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image as PillowImage

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Image
from unified_rl.rewards.judge_tally import JudgeTally
from unified_rl.rewards.judging import JudgeQuestion
from unified_rl.rewards.local_model import load_judge, load_part, require_judge


class LocalVisionJudge:
    """Asks a transformers model that reads pictures and texts, greedily and in batches.

    Questions are put through the chat template of the folder's processor. Tokens that the tokenizer
    has beyond its words (turns, pictures, ends) are blanked out of every text, whoever wrote it.
    A reply that is cut off at `max_new_tokens` is a failure, as is a question that is longer than
    the model's context. A model's batches round, so a reply may depend on its neighbours where two
    words are all but equally likely.

    Args:
        checkpoint: folder of an image-text-to-text model as transformers saves it, such as a
            converted LLaVA-OneVision or a Qwen2.5-VL, in safetensors, with its processor and its
            chat template; none of its code is run. Processors of models that also take videos need
            torchvision, which the extra `lpips` installs.
        max_new_tokens: limit of a reply.
        batch_size: questions in one pass.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is no such model.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        checkpoint: str,
        max_new_tokens: int = 512,
        batch_size: int = 4,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        setting = "judge.checkpoint"
        folder = require_judge(checkpoint, setting)
        self._processor = _loaded_processor(AutoProcessor, folder, setting)
        if not getattr(self._processor, "chat_template", None):
            raise CheckpointError(
                f"{setting}={checkpoint} has no chat_template.jinja; add the file"
            )
        self._model = load_judge(AutoModelForImageTextToText, folder, setting, device, dtype)
        self._tokenizer = self._processor.tokenizer
        self._tokenizer.padding_side = "left"
        marks = sorted(
            map(re.escape, filter(str.strip, self._tokenizer.get_added_vocab())), key=len
        )
        self._marks = re.compile("|".join(reversed(marks)) or r"(?!)")
        self.checkpoint, self.max_new_tokens = checkpoint, max_new_tokens
        self.batch_size = batch_size
        self.tally = JudgeTally()

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[str | None]:
        """One reply a question, in order; None where there is none, counted in `tally`."""
        self.tally.add("questions", len(questions))
        replies: list[str | None] = []
        for start in range(0, len(questions), self.batch_size):
            replies += self._replies(questions[start : start + self.batch_size])
        return replies

    def counts(self) -> dict[str, int]:
        """What became of all questions; see `JudgeTally`."""
        return self.tally.counts()

    def describe(self) -> Mapping[str, Any]:
        """Folder, kind of model and settings."""
        return {
            "judge": "LocalVisionJudge",
            "checkpoint": self.checkpoint,
            "model_type": self._model.config.model_type,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "max_new_tokens": self.max_new_tokens,
        }

    @torch.inference_mode()
    def _replies(self, questions: Sequence[JudgeQuestion]) -> list[str | None]:
        from transformers import GenerationConfig

        texts = [self._prompt(question) for question in questions]
        pictures = [
            PillowImage.fromarray(part.pixels)
            for question in questions
            for part in question.parts
            if isinstance(part, Image)
        ]
        inputs = self._processor(
            text=texts, images=pictures or None, padding=True, return_tensors="pt"
        )
        length = inputs["input_ids"].shape[1]
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length + self.max_new_tokens > limit:
            if len(questions) > 1:  # only the longest of them need be too long
                return [reply for question in questions for reply in self._replies([question])]
            self.tally.fail("length", f"a question of {length} tokens for {limit} positions")
            return [None]
        ends = self._ends()
        settings = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=ends,
            pad_token_id=ends[0],
        )
        inputs = inputs.to(self._model.device, self._model.dtype)
        output = self._model.generate(**inputs, generation_config=settings)
        self.tally.add("requests", len(questions))
        return [self._read(row, ends) for row in output[:, length:].tolist()]

    def _read(self, said: list[int], ends: Sequence[int]) -> str | None:
        end = next((place for place, token in enumerate(said) if token in ends), None)
        if end is None:
            self.tally.fail("length", f"a reply of over max_new_tokens={self.max_new_tokens}")
            return None
        reply = self._tokenizer.decode(said[:end], skip_special_tokens=False)
        if not reply.strip():
            self.tally.fail("garbage", "the reply has no text")
            return None
        return reply

    def _prompt(self, question: JudgeQuestion) -> str:
        """The text of all turns, as the template writes it."""
        content = [
            {"type": "image"}
            if isinstance(part, Image)
            else {"type": "text", "text": self._marks.sub(" ", part.text)}
            for part in question.parts
        ]
        turns = [{"role": "user", "content": content}]
        if question.instruction:
            told = [{"type": "text", "text": self._marks.sub(" ", question.instruction)}]
            turns.insert(0, {"role": "system", "content": told})
        return self._processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False
        )

    def _ends(self) -> list[int]:
        own = self._model.generation_config.eos_token_id
        ends = self._tokenizer.eos_token_id if own is None else own
        return list(ends) if isinstance(ends, list | tuple) else [ends]


def _loaded_processor(family: Any, folder: Path, setting: str) -> Any:
    try:
        return load_part(family, folder, setting)
    except CheckpointError as error:
        if importlib.util.find_spec("torchvision") is not None:
            raise
        raise CheckpointError(
            f"{error}; if the model takes videos too, its processor needs torchvision: pip install "
            "'unified-rl[lpips]'"
        ) from error
