"""How a family writes a conversation: its special tokens, by name, never by id."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from unified_rl.core.errors import CheckpointError
from unified_rl.core.sample import VISUALISE, DrawnImage, Image, Segment, Task, Text

FILE = "template.json"
START, PROMPT, IMAGES, TEXT = "{start}", "{prompt}", "{images}", "{text}"


class Words(NamedTuple):
    """A run of text that is tokenised as one."""

    text: str


class Start(NamedTuple):
    """The first token of a sequence; what stands before it is tokenised by itself."""


class Shown(NamedTuple):
    """An image that the policy is shown, with its borders."""

    image: Image | DrawnImage


@dataclass(frozen=True)
class Template:
    """Names of a tokenizer's tokens and the words around a prompt.

    Attributes:
        layout: what a prompt is wrapped in. `{start}` is the start token; `{prompt}` the segments
            of the prompt in their order, or `{images}` and `{text}` apart.
        layouts: by `Task`, where a task's layout differs.
        unconditional: layout of the unconditional twin of every prompt, whose answers then lack
            the words between images; None keeps the prompt's length and writes `pad` over all but
            its start and the borders of images.
        start: first token of a sequence.
        pad: fills unconditional prompts.
        end_of_text: ends an answer.
        image_trigger: the token by which the policy asks for an image.
        begin_of_image: forced before an image.
        end_of_image: forced behind an image when text may follow.
        before_answer: what a gold answer that begins with text begins with. A byte-level tokenizer
            reads " red" and "red" as different words, and a model answers with the first.
        behind_shown_image: text behind an image that the policy is shown.
        forbidden: tokens that the policy may never choose itself.
    """

    layout: str = "{start}<user>{prompt}<assistant>"
    layouts: Mapping[str, str] = field(default_factory=dict)
    unconditional: str | None = None
    start: str = "<bos>"
    pad: str = "<pad>"
    end_of_text: str = "<eos>"
    image_trigger: str = VISUALISE
    begin_of_image: str = "<begin_of_image>"
    end_of_image: str = "<end_of_image>"
    before_answer: str = ""
    behind_shown_image: str = ""
    forbidden: tuple[str, ...] = (
        "<pad>",
        "<bos>",
        "<unk>",
        "<user>",
        "<assistant>",
        "<begin_of_image>",
        "<end_of_image>",
    )

    def __post_init__(self) -> None:
        tasks = [task.value for task in Task]
        for task, layout in {**self.layouts, "": self.layout}.items():
            if task and task not in tasks:
                raise ValueError(f"layouts names {task!r}, which is no task; tasks are {tasks}")
            if PROMPT not in layout and TEXT not in layout:
                raise ValueError(f"layout {layout!r} has neither {PROMPT} nor {TEXT}")

    def pieces(self, task: Task, prompt: Sequence[Segment]) -> list[Words | Start | Shown]:
        """A prompt in its layout; neighbouring words are one run."""
        images = [s for s in prompt if isinstance(s, Image | DrawnImage)]
        texts = [s for s in prompt if isinstance(s, Text)]
        fills = {PROMPT: prompt, IMAGES: images, TEXT: texts, START: [Start()]}
        return list(_runs(self._flow(self.layouts.get(task.value, self.layout), fills)))

    def twin_pieces(self) -> list[Words | Start | Shown]:
        """The unconditional prompt where it has a layout of its own."""
        return list(_runs(self._flow(self.unconditional or "", {START: [Start()]})))

    def _flow(
        self, layout: str, fills: Mapping[str, Sequence[Segment | Start]]
    ) -> Iterator[Words | Start | Shown]:
        while layout:
            places = [(layout.find(name), name) for name in fills if name in layout]
            if not places:
                yield Words(layout)
                return
            place, name = min(places)
            yield Words(layout[:place])
            for fill in fills[name]:
                if isinstance(fill, Image | DrawnImage):
                    yield Shown(fill)
                    yield Words(self.behind_shown_image)
                else:
                    yield Words(fill.text) if isinstance(fill, Text) else Start()
            layout = layout[place + len(name) :]

    def save(self, folder: Path) -> None:
        """Writes the template beside the weights that were trained with it."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Template | None":
        """The template that a folder was saved with; None where it has none.

        Raises:
            CheckpointError: the file is not a template.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "forbidden": tuple(values["forbidden"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path} is not a template ({error})") from error


def _runs(flow: Iterator[Words | Start | Shown]) -> Iterator[Words | Start | Shown]:
    text = ""
    for piece in flow:
        if isinstance(piece, Words):
            text += piece.text
            continue
        if text:
            yield Words(text)
        text = ""
        yield piece
    if text:
        yield Words(text)
