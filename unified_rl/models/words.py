"""A word-level text tokenizer for small closed worlds, as a standard `PreTrainedTokenizerFast`."""

import re
from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unified_rl.core.sample import THINK, VISUALISE
from unified_rl.models.template import Template

MARK = re.compile(r"<[^<>{}\s]+>")
"""A special token within a layout."""


def word_tokenizer(words: Sequence[str], template: Template) -> PreTrainedTokenizerFast:
    """One id a word, the template's tokens first; unknown words become `<unk>`.

    Args:
        words: the closed vocabulary, lower case, without white space.
        template: its tokens become special tokens.
    """
    named = [template.pad, template.start, template.end_of_text, "<unk>"]
    layouts = [template.layout, *template.layouts.values(), template.unconditional or ""]
    special = named + [token for layout in layouts for token in MARK.findall(layout)]
    special += [template.begin_of_image, template.end_of_image]
    special += [THINK, VISUALISE, template.image_trigger]
    special = list(dict.fromkeys(special))
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*special, *words]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=template.pad,
        bos_token=template.start,
        eos_token=template.end_of_text,
        unk_token="<unk>",
        extra_special_tokens=[token for token in special if token not in named],
        clean_up_tokenization_spaces=False,
    )
