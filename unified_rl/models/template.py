"""How a family writes a conversation: its special tokens, by name, never by id."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from unified_rl.core.errors import CheckpointError
from unified_rl.core.sample import VISUALISE

FILE = "template.json"


@dataclass(frozen=True)
class Template:
    """Names of a tokenizer's tokens and the words around a prompt.

    Attributes:
        user: what precedes the user's words.
        assistant: what follows them.
        start: first token of every sequence; kept in unconditional prompts.
        pad: fills unconditional prompts.
        end_of_text: ends an answer.
        image_trigger: the token by which the policy asks for an image.
        begin_of_image: forced before an image.
        end_of_image: forced behind an image when text may follow.
        forbidden: tokens that the policy may never choose itself.
    """

    user: str = "<user>"
    assistant: str = "<assistant>"
    start: str = "<bos>"
    pad: str = "<pad>"
    end_of_text: str = "<eos>"
    image_trigger: str = VISUALISE
    begin_of_image: str = "<begin_of_image>"
    end_of_image: str = "<end_of_image>"
    forbidden: tuple[str, ...] = (
        "<pad>",
        "<bos>",
        "<unk>",
        "<user>",
        "<assistant>",
        "<begin_of_image>",
        "<end_of_image>",
    )

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
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path} is not a template ({error})") from error
