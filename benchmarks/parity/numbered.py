"""A text tokenizer whose words are its ids, for recorded tensors that never had any text."""

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def numbered_tokenizer(size: int, names: Mapping[int, str]) -> PreTrainedTokenizerBase:
    """The ids below `size`, each its own word: "17" is 17.

    Args:
        size: number of ids.
        names: special tokens in place of the numbers of some ids; they need no space around them.
    """
    vocabulary = {names.get(number, str(number)): number for number in range(size)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=list(names.values()),
        clean_up_tokenization_spaces=False,
    )


def words(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of some ids."""
    return " ".join(tokenizer.convert_ids_to_tokens(list(ids)))
