"""Keeps the terminal for what is worth reading."""

import logging
import os
import warnings

import torch
from transformers.utils import logging as transformers_logging


def quieten() -> None:
    """Silences what libraries say of choices that are ours."""
    os.environ.setdefault("WANDB_SILENT", "true")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers_logging.disable_progress_bar()
    for message in (
        ".*does not have many workers.*",
        ".*`IterableDataset` has `__len__`.*",
        ".*GPU available but not used.*",
        ".*exists and is not empty.*",
        ".*LeafSpec.*is deprecated.*",
        ".*in eval mode at the start of training.*",  # frozen codecs, and policies in RL
        ".*torch.distributed.* is deprecated.*",  # DeepSpeed's own use of torch
    ):
        warnings.filterwarnings("ignore", message=message)
    # "compilers" tells of DeepSpeed's tries of the compiler
    for name in (
        "lightning.pytorch",
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric",
        "compilers",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
