"""How a state becomes a file: straight to its place, and to the disk."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class CheckpointFile(TorchCheckpointIO):
    """Writes where it is told to.

    Lightning's own first holds the file in memory a second time, then writes it into the folder for
    temporary files, which may be another disk, and where a kill leaves it behind for ever.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes and flushes.

        Raises:
            OSError: the disk is full, for one; torch hides that behind an error of its own.
        """
        with Path(path).open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
            file.flush()
            os.fsync(file.fileno())
