"""New words for a trained policy, whose tokenizer lacks them."""

from collections.abc import Sequence

import torch
from tokenizers import AddedToken
from torch import nn

from unified_rl.models.base import UnifiedPolicy


@torch.no_grad()
def add_words(policy: UnifiedPolicy, words: Sequence[str], seed: int = 0) -> int:
    """Adds those words to the tokenizer that it lacks, each as one token, with rows to be trained.

    Their ids follow the tokenizer's. A head that is padded beyond it has some of their rows
    already, which nothing has trained: they are filled as the others are, and only what is lacking
    is appended.

    The embedding of a new word is drawn around the mean of all others, with their spread; its row
    of the head is the mean of all others, so that it is chosen about as often as the average word
    is until it is trained.

    Args:
        policy: grown in place.
        words: a tokenizer that splits at white space reads them where they stand by themselves.
        seed: of the embeddings.

    Returns:
        How many were new.

    Raises:
        CapabilityError: the family cannot grow.
    """
    known = policy.tokenizer.get_vocab()
    new = [word for word in dict.fromkeys(words) if word not in known]
    if not new:
        return 0
    first = len(policy.tokenizer)
    rows = slice(first, first + len(new))
    policy.grow_text(max(0, rows.stop - policy.text_vocabulary_size))
    policy.tokenizer.add_tokens([AddedToken(word, single_word=True) for word in new])
    embeddings, head = policy.text_rows()
    generator = torch.Generator().manual_seed(seed)
    _draw(embeddings.weight, rows, generator)
    head.weight[rows] = head.weight[:first].mean(0)
    if isinstance(head, nn.Linear) and head.bias is not None:
        head.bias[rows] = head.bias[:first].mean(0)
    policy.refresh_allowed_text()
    return len(new)


def _draw(weight: torch.Tensor, rows: slice, generator: torch.Generator) -> None:
    old = weight[: rows.start].float()
    noise = torch.randn(rows.stop - rows.start, weight.shape[1], generator=generator)
    drawn = old.mean(0) + old.std(0) * noise.to(old.device)
    weight[rows] = drawn.to(weight.dtype)
