"""Conversations about pictures in the JSON layout of LLaVA, which EMOVA and many others share."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image, Sample, Segment, Task, Text
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.cells import text_of
from unified_rl.data.json_elements import JsonDamageError, Places, json_records
from unified_rl.data.jsonl import existing_file
from unified_rl.data.quarantine import BrokenRowError

PLACEHOLDER = "<image>"
SPEAKERS = {"human": "asks", "user": "asks", "gpt": "answers", "assistant": "answers"}
TURNS = ("history", "alone", "first")
MESSAGES = 512
"""A longer conversation is broken: each of its answers is read with all that goes before."""


class Turn(NamedTuple):
    """A question and its answer; the question's images are still marked by `PLACEHOLDER`."""

    question: str
    answer: str


class LlavaConversations(DatasetAdapter):
    r"""Answers of conversations: one sample each, a question about a picture or a text.

    The file is a JSON array, or has one object a line (.jsonl), of `{"id": .., "image": path or
    list of paths, "conversations": [{"from": "human", "value": "<image>\n.."}, {"from": "gpt",
    "value": ".."}, ..]}`. An image stands where its `<image>` does; without any, images stand in
    front. A record without an image makes samples of the task text. What a "system" turn says at
    the start stands in front of the first question. Facts: "answer", "record" (its id).

    Source: the layout of llava_v1_5_mix665k.json (LLaVA, arXiv 2304.08485).

    Args:
        path: of the file.
        turns: "history" makes a sample of each answer, with the turns before it in the prompt;
            "alone" of each answer too, but with the images and its own question only; "first" of
            the first answer only.
        asked: put before questions where there is a history.
        answered: put before answers where there is a history, and before the one to give.
        max_text_length: most characters of a turn; a longer one breaks the samples that show it.
        image_root: folder that image paths are relative to; None is the folder of the file.
        quarantine: see `adapter.DatasetAdapter`, as for the settings that follow.
        image_size: side in pixels.
        image_fit: how pictures are made squares.
        max_broken: share of broken rows.

    Raises:
        ConfigError: a setting outside of its range.
        DataError: no such file, another layout, or too many broken rows.
    """

    def __init__(
        self,
        path: str,
        turns: Literal["history", "alone", "first"] = "history",
        asked: str = "User: ",
        answered: str = "Assistant: ",
        max_text_length: int = 32768,
        image_root: str | None = None,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        if turns not in TURNS:
            raise ConfigError(f"turns={turns!r} is none of {', '.join(TURNS)}")
        if max_text_length < 1:
            raise ConfigError(f"max_text_length={max_text_length} must be at least 1")
        super().__init__(path, image_root, quarantine, image_size, image_fit, max_broken)
        existing_file(self.path)
        self._turns, self._asked, self._answered = turns, asked, answered
        self._max_text_length = max_text_length
        self._records, self._record_of, self._turn_of = Places(), array("Q"), array("L")
        self._find_rows()
        self._check_rows()

    def __len__(self) -> int:
        """Number of answers; a record without any counts as one."""
        return len(self._record_of)

    def place(self, index: int) -> str:
        """Which record and answer, each from 1."""
        return f"record {self._record_of[index] + 1} answer {self._turn_of[index] + 1}"

    def load(self, index: int) -> Sample:
        """An answer, asked for as the settings say.

        Raises:
            BrokenRowError: a record of another form, or an image that is broken.
        """
        number, turn = self._record_of[index], self._turn_of[index]
        record = self._records.read(self.path, number)
        turns = self._turns_of(record)
        if turn >= len(turns):
            raise BrokenRowError("is not there any more")
        prompt = self._prompt(turns, turn, self._images_of(record))
        if not prompt:
            raise BrokenRowError("asks nothing")
        shows = any(not isinstance(segment, Text) for segment in prompt)
        answer = turns[turn].answer
        record_id = record.get("id")
        return Sample(
            id=f"{self.path.stem}/{number + 1}/{turn + 1}",
            task=Task.UNDERSTANDING if shows else Task.TEXT,
            prompt=prompt,
            target=(Text(answer),),
            facts={"answer": answer, "record": record_id if _is_name(record_id) else None},
        )

    def _images_of(self, record: Mapping[str, Any]) -> list[str]:
        """Paths of a record's images; subclasses say where else they stand."""
        images = record.get("image") or []
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
            raise BrokenRowError("'image' is neither a path nor a list of paths")
        return images

    def _turns_of(self, record: Mapping[str, Any]) -> list[Turn]:
        """Questions and answers of a record in order."""
        messages = record.get("conversations")
        if not isinstance(messages, list) or not messages:
            raise BrokenRowError("has no 'conversations'")
        if len(messages) > MESSAGES:
            raise BrokenRowError(f"has {len(messages)} messages, over {MESSAGES}")
        said = [self._message(number, message) for number, message in enumerate(messages)]
        front = ""
        if said[0][0] == "system":
            front, said = f"{said[0][1]}\n", said[1:]
        turns = []
        for number in range(0, len(said) - 1, 2):
            (asks, question), (answers, answer) = said[number : number + 2]
            if (asks, answers) != ("asks", "answers"):
                raise BrokenRowError("has turns that are not a question and an answer in turn")
            turns.append(Turn(front + question if not turns else question, answer))
        if not turns:
            raise BrokenRowError("has no answer")
        if len(said) % 2 and said[-1][0] != "asks":  # a last question may lack its answer
            raise BrokenRowError("has turns that are not a question and an answer in turn")
        return turns

    def _message(self, number: int, message: Any) -> tuple[str, str]:
        where = f"conversations[{number}]"
        if not isinstance(message, dict):
            raise BrokenRowError(f"{where} is not an object")
        speaker = message.get("from")
        if speaker == "system" and number == 0:
            role = "system"
        elif isinstance(speaker, str) and speaker in SPEAKERS:
            role = SPEAKERS[speaker]
        else:
            raise BrokenRowError(f"{where} is from {str(speaker)[:40]!r}, none of human and gpt")
        return role, text_of(message.get("value"), f"{where}.value", self._max_text_length)

    def _prompt(self, turns: Sequence[Turn], turn: int, names: list[str]) -> tuple[Segment, ...]:
        """What is shown before the answer of a turn is given."""
        marks = [each.question.count(PLACEHOLDER) for each in turns]
        if sum(marks) not in (0, len(names)):
            raise BrokenRowError(f"marks {sum(marks)} images and names {len(names)}")
        shown = turns[: turn + 1]
        marked = sum(marks[: turn + 1])
        images = self._images(names[:marked] if sum(marks) else names)
        here = images[len(images) - marks[turn] :]
        if self._turns == "alone" or turn == 0:
            return (*images[: len(images) - len(here)], *_shown(shown[-1].question, here))
        parts: list[Segment] = [] if sum(marks) else list(images)
        left = iter(images)
        for each, count in zip(shown, marks, strict=False):
            parts += _shown(self._asked + each.question, [next(left) for _ in range(count)])
            parts.append(Text(f"\n{self._answered}{each.answer}\n"))
        return (*parts[:-1], Text(f"\n{self._answered.rstrip()}"))

    def _find_rows(self) -> None:
        try:
            for element in json_records(self.path):
                for turn in range(self._count(element.value)):
                    self._record_of.append(len(self._records))
                    self._turn_of.append(turn)
                self._records.append(element)
        except JsonDamageError as error:
            self._lost("the file", str(error))

    def _count(self, record: Any) -> int:
        """How many samples a record makes; one where it is broken, which loading it will tell."""
        try:
            turns = self._turns_of(record if isinstance(record, dict) else {})
        except BrokenRowError:
            return 1
        return 1 if self._turns == "first" else len(turns)


def _shown(question: str, images: Sequence[Image]) -> list[Segment]:
    """A question with its images where they are marked."""
    parts: list[Segment] = []
    for number, text in enumerate(question.split(PLACEHOLDER)):
        if number:
            parts.append(images[number - 1])
        if text.strip():
            parts.append(Text(text.strip()))
    return parts


def _is_name(value: Any) -> bool:
    return isinstance(value, int | str)
