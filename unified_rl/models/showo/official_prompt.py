"""How the authors of Show-o write a sequence: their tokens, their words around a prompt."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Task
from unified_rl.models.template import Template

PAD, START = "[PAD]", "<|endoftext|>"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
"""What the variant with CLIP reads before an image."""
TASK_TOKENS = (
    "<|soi|>",
    "<|eoi|>",
    "<|sov|>",
    "<|eov|>",
    "<|t2i|>",
    "<|mmu|>",
    "<|t2v|>",
    "<|v2v|>",
    "<|lvg|>",
)
"""In the order of their ids behind `PAD`; the last, for long videos, was never trained."""


def official_tokenizer(
    folder: Path, word_count: int, template: Template
) -> PreTrainedTokenizerBase:
    """Phi's tokenizer with the tokens that the authors add, in their order.

    The vocabulary has no row to spare, so the trigger takes that of the last `TASK_TOKENS`.

    Raises:
        CheckpointError: the tokenizer is not the one that Show-o was trained with.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != word_count:
        raise CheckpointError(
            f"{folder}: vocabulary mismatch: the tokenizer has {len(tokenizer)} tokens, but "
            f"config.json says llm_vocab_size={word_count}; use the tokenizer of microsoft/phi-1_5"
        )
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_tokens([*TASK_TOKENS[:-1], template.image_trigger], special_tokens=True)
    tokenizer.bos_token = tokenizer.eos_token = START
    if len(tokenizer) != word_count + 1 + len(TASK_TOKENS):
        raise ConfigError(
            f"template.image_trigger={template.image_trigger!r} is a token of Show-o already; "
            "choose a new word"
        )
    return tokenizer


def official_template(with_clip: bool = False) -> Template:
    """How the authors write a sequence; what they have no form for is written like a question.

    Source: training/prompting_utils.py and inference_mmu.py of the official code.

    Args:
        with_clip: as the variant that is shown images through CLIP was trained: on LLaVA's form.
    """
    turn = "{start}USER: \n{prompt} ASSISTANT:"
    question = "<|mmu|>{images}{start}USER: \n{text} ASSISTANT:"
    if with_clip:
        question = "<|mmu|>" + SYSTEM + "{images}USER: {text} ASSISTANT:"
    return Template(
        layout=turn,
        layouts={
            Task.TEXT_TO_IMAGE.value: "<|t2i|>{start}{prompt}" + START,
            Task.UNDERSTANDING.value: question,
        },
        unconditional="<|t2i|>{start}" + START,
        start=START,
        pad=PAD,
        end_of_text=START,
        begin_of_image="<|soi|>",
        end_of_image="<|eoi|>",
        before_answer=" ",
        forbidden=(PAD, *TASK_TOKENS[:-1]),
    )
