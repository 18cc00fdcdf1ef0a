"""Pictures that a policy draws for a benchmark, as files; none is drawn twice."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as PillowImage

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.durable import write_text
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.data.images import ImageError, read_image
from unified_rl.decoding.modes import evaluation_mode
from unified_rl.evaluation.asking import Progress, device_of

PROTOCOL = "protocol.json"
"""The file that says how the pictures of a folder were drawn."""
_PROBED = 512
"""Numbers of each weight that `fingerprint` reads."""


class Wanted(NamedTuple):
    """A picture to draw.

    Attributes:
        name: of its file, relative to the folder, ending in ".png".
        prompt: what to draw.
    """

    name: str
    prompt: str


class PictureFolder:
    """A folder of pictures of one policy, drawn in one way.

    Pictures are drawn in batches that depend on the whole list alone, each batch with randomness of
    its own. So a run that was stopped goes on where it was, and ends with the very pictures of a
    run that was not. A file appears whole or not at all.

    Args:
        folder: made if it is missing.
        behaviour: how pictures are drawn.
        batch_size: pictures at once; it shapes the randomness.
        seed: of the sampling.

    Raises:
        ConfigError: a batch below 1.
    """

    def __init__(self, folder: str, behaviour: Behaviour, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        self.path = Path(folder)
        self._behaviour, self._batch_size, self._seed = behaviour, batch_size, seed

    def protocol(self) -> dict[str, Any]:
        """How the pictures are drawn, JSON-able."""
        return {
            "pictures": str(self.path),
            "seed": self._seed,
            "batch_size": self._batch_size,
            "behaviour": dataclasses.asdict(self._behaviour),
        }

    def draw(
        self, policy: Policy, wanted: Sequence[Wanted], progress: Progress | None = None
    ) -> None:
        """Draws what is missing.

        Args:
            policy: left in the mode that it was in.
            wanted: all pictures of the benchmark, in an order that does not change.
            progress: called with the number of pictures there and in all.

        Raises:
            ConfigError: the folder holds pictures of another policy, or drawn in another way.
        """
        self._claim(policy, wanted)
        with evaluation_mode(policy):
            for start in range(0, len(wanted), self._batch_size):
                batch = wanted[start : start + self._batch_size]
                missing = [not (self.path / item.name).is_file() for item in batch]
                if any(missing):
                    pictures = self._drawn(policy, batch, start)
                    for item, pixels, absent in zip(batch, pictures, missing, strict=True):
                        if absent:
                            save_picture(self.path / item.name, pixels)
                if progress is not None:
                    progress(start + len(batch), len(wanted))

    def read(self, name: str) -> np.ndarray:
        """The picture of a name, uint8 (height, width, 3).

        Raises:
            DataError: it is missing or damaged.
        """
        return read_picture(self.path / name)

    def _drawn(self, policy: Policy, batch: Sequence[Wanted], start: int) -> list[np.ndarray]:
        (state,) = np.random.SeedSequence([self._seed, start]).generate_state(1)
        generator = torch.Generator(device_of(policy)).manual_seed(int(state))
        samples = [Sample(w.name, Task.TEXT_TO_IMAGE, (Text(w.prompt),)) for w in batch]
        completions = policy.sample(samples, self._behaviour, generator)[1]
        return [completion.images[0] for completion in completions]

    def _claim(self, policy: Policy, wanted: Sequence[Wanted]) -> None:
        """Writes how the pictures are drawn, or checks that those there are drawn so."""
        listed = "\n".join(f"{item.name}\t{item.prompt}" for item in wanted)
        protocol = {
            **self.protocol(),
            "pictures": len(wanted),
            "prompts_sha256": hashlib.sha256(listed.encode()).hexdigest(),
            "policy": fingerprint(policy),
        }
        protocol = json.loads(json.dumps(protocol))
        path = self.path / PROTOCOL
        if not path.is_file():
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(protocol, indent=2) + "\n")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            different = sorted(key for key in protocol if found.get(key) != protocol[key])
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"{path} cannot be read; remove {self.path}") from error
        if different:
            raise ConfigError(
                f"pictures={self.path} holds pictures drawn with another {', '.join(different)}; "
                "give another folder, or remove this one"
            )


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes a PNG, whole or not at all; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    PillowImage.fromarray(pixels).save(beside, format="PNG")
    beside.replace(path)


def read_picture(path: Path) -> np.ndarray:
    """An image file as uint8 (height, width, 3).

    Raises:
        DataError: it is missing, damaged, too large or of another format.
    """
    try:
        return np.array(read_image(path))
    except ImageError as error:
        raise DataError(f"{path} {error}; remove it to have it drawn again") from error


def fingerprint(policy: Policy) -> str:
    """16 hexadecimal digits that tell one policy's weights from another's.

    They stand for names, shapes and some numbers of each weight, so that a model of billions of
    weights takes no time. "" for a policy that is no module.
    """
    if not isinstance(policy, torch.nn.Module):
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in policy.named_parameters():
        numbers = weight.detach().reshape(-1)
        stride = max(1, numbers.numel() // _PROBED)
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(numbers[::stride].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def numbered(items: Mapping[str, str], count: int) -> Iterator[Wanted]:
    """`count` pictures of each prompt by its id: "<id>/0.png" and so on."""
    for name, prompt in items.items():
        for number in range(count):
            yield Wanted(f"{name}/{number}.png", prompt)
