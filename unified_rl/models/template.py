"""How a family writes a conversation: its special tokens, by name, never by id."""

from dataclasses import dataclass

from unified_rl.core.sample import VISUALISE


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
