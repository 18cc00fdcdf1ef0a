"""A word-level text tokenizer for small closed worlds, as a standard `PreTrainedTokenizerFast`."""

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unified_rl.core.sample import THINK, VISUALISE
from unified_rl.models.template import Template


def word_tokenizer(words: Sequence[str], template: Template) -> PreTrainedTokenizerFast:
    """One id a word, the template's tokens first; unknown words become `<unk>`.

    Args:
        words: the closed vocabulary, lower case, without white space.
        template: its tokens become special tokens.
    """
    special = [template.pad, template.start, template.end_of_text, "<unk>"]
    special += [template.user, template.assistant, template.begin_of_image, template.end_of_image]
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
        extra_special_tokens=special[4:],
        clean_up_tokenization_spaces=False,
    )
