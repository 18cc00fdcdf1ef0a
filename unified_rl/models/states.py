"""Where a prompt's words and its image stand, and the hidden states of any layer there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.decoding.tape import Columns, Kind, Tape
from unified_rl.models.template import Shown, Words

if TYPE_CHECKING:
    from unified_rl.models.base import UnifiedPolicy

MARK = "\0"
"""Stands for a prompt's words to find their place; no layout has it."""


class Places(NamedTuple):
    """Columns of one row, in the order of `TokenStates`."""

    text: slice
    image: slice
    behind: slice


def find_places(policy: "UnifiedPolicy", sample: Sample, row: Columns) -> Places:
    """Where the words and the image of a prompt stand.

    The words are often tokenised in one run with the layout's words around them, so that a token
    may hold parts of both; it counts as the prompt's.

    Args:
        policy: lays prompts out.
        sample: a question about an image.
        row: its prompt as the policy lays it out, with or without padding on the left.

    Raises:
        ValueError: the prompt is not an image and a text.
    """
    kinds = [type(segment).__name__ for segment in sample.prompt]
    if sample.task != Task.UNDERSTANDING or sorted(kinds) != ["Image", "Text"]:
        raise ValueError(
            f"{sample.task} sample {sample.id!r} with a prompt of {kinds}; states are of a "
            "question about one image, its prompt an Image and a Text"
        )
    image = row.kind.index(Kind.PIXEL)
    end = image + policy.shown_positions
    return Places(_find_words(policy, sample, row), slice(image, end), slice(end, len(row)))


def hidden_states(
    policy: "UnifiedPolicy", tape: Tape, layer: int | Literal["embeddings"]
) -> Tensor:
    """(B, C, width): states of a tape with images; `layer` as in `Represents.states`.

    Raises:
        ConfigError: there is no such layer.
    """
    blocks = policy.parameter_groups()["language_model"][0]
    if layer == "embeddings":
        return policy.embed(tape.ids, tape.kind, policy.image_features(tape.shown))
    if layer == -1:
        return policy.read(tape)
    if not (isinstance(layer, int) and 1 <= layer <= len(blocks)):
        raise ConfigError(
            f"layer={layer!r} is none of this policy's: -1 (the last, behind the final norm), 1 to "
            f"{len(blocks)} (the output of that block) or 'embeddings'"
        )
    outputs: list[Tensor] = []
    hook = blocks[layer - 1].register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        policy.read(tape)
    finally:
        hook.remove()
    return outputs[0]


def _find_words(policy: "UnifiedPolicy", sample: Sample, row: Columns) -> slice:
    (words,) = (segment.text for segment in sample.prompt if isinstance(segment, Text))
    if not words:
        return slice(0, 0)
    marked = [Text(MARK) if isinstance(s, Text) else s for s in sample.prompt]
    laid = policy.template.pieces(sample.task, marked)
    index = next(i for i, p in enumerate(laid) if isinstance(p, Words) and MARK in p.text)
    begin = laid[index].text.index(MARK)
    pieces = policy.template.pieces(sample.task, sample.prompt)
    run, first = pieces[index].text, len(policy.lay_out(pieces[:index]))
    if index and isinstance(pieces[index - 1], Shown):  # read with the border, as in `lay_out`
        border = policy.template.end_of_image
        run, begin, first = border + run, begin + len(border), first - 1
    first += len(row) - len(policy.lay_out(pieces))  # padding on the left
    spans = policy.tokenizer(run, add_special_tokens=False, return_offsets_mapping=True)
    touched = _touching(spans["offset_mapping"], begin, begin + len(words))
    return slice(first + touched.start, first + touched.stop)


def _touching(spans: Sequence[tuple[int, int]], begin: int, end: int) -> slice:
    """The tokens, first to last, whose characters are among those from `begin` to `end`."""
    touched = [i for i, (start, stop) in enumerate(spans) if start < end and stop > begin]
    return slice(touched[0], touched[-1] + 1) if touched else slice(0, 0)
