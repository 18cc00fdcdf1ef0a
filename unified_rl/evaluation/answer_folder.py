"""Interleaved answers of one policy on disk, kept item by item, so that a killed run goes on."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as PillowImage

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import THINK, VISUALISE, Completion, Sample, Text
from unified_rl.data.images import ImageError, path_inside
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.data.requests import Request, check_length
from unified_rl.decoding.modes import evaluation_mode
from unified_rl.evaluation.kept_rows import KeptRows
from unified_rl.models.base import UnifiedPolicy

ANSWERS, IMAGES = "answers.jsonl", "images"


class Answered(NamedTuple):
    """What a policy answered.

    Attributes:
        parts: texts without the tags of the grammar, and files of images, in order.
        finished: False where a length limit cut the answer off.
        unasked: why the policy was not asked; "" where it was.
    """

    parts: tuple[str | Path, ...]
    finished: bool = True
    unasked: str = ""

    @property
    def text(self) -> str:
        """All that was said."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[Path, ...]:
        """The files of what was drawn."""
        return tuple(part for part in self.parts if isinstance(part, Path))


class AnswerFolder:
    """A folder of answers that all came about in one way.

    Each batch has randomness of its own, so that what it holds does not depend on where a run was
    interrupted; on the disk an answer's images are there before its line is.

    Args:
        folder: made if it is missing.
        origin: JSON-able; all that decides the answers. Answers of another origin are refused.

    Raises:
        ConfigError: the folder holds answers of another origin, or damaged ones.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any]) -> None:
        self._folder, self._answers = folder, folder / ANSWERS
        self._known: dict[str, Answered] = {}
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        self._kept = KeptRows(self._answers, origin, ["id"], "paths.output")
        for line in self._kept.found:
            self._known[line["id"]] = self._read(line)

    def ask(
        self,
        policy: UnifiedPolicy,
        requests: Sequence[Request],
        behaviour: Behaviour,
        batch_size: int,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Answered]:
        """The answer to each request by its id; those that are there already are not asked again.

        Args:
            policy: each of its modules is left in the mode it was in.
            requests: numbered from 1.
            behaviour: how answers are drawn.
            batch_size: requests at once.
            seed: of the sampling.
            progress: called with the number of requests answered and in all.
        """
        with evaluation_mode(policy):
            for index, start in enumerate(range(0, len(requests), batch_size)):
                batch = requests[start : start + batch_size]
                if not all(request.id in self._known for request in batch):
                    self._ask_batch(policy, batch, behaviour, [seed, index])
                if progress is not None:
                    progress(start + len(batch), len(requests))
        return {request.id: self._known[request.id] for request in requests}

    def _ask_batch(
        self,
        policy: UnifiedPolicy,
        batch: Sequence[Request],
        behaviour: Behaviour,
        seed: Sequence[int],
    ) -> None:
        samples: dict[int, Sample] = {}
        unasked: dict[int, str] = {}
        for request in batch:
            try:
                samples[request.number] = _sample(policy, request, behaviour)
            except BrokenRowError as error:
                unasked[request.number] = str(error)
        (state,) = np.random.SeedSequence(list(seed)).generate_state(1)
        generator = torch.Generator(policy.device).manual_seed(int(state))
        shown = list(samples.values())
        completions = policy.sample(shown, behaviour, generator)[1] if shown else ()
        answers = dict(zip(samples, completions, strict=True))
        for request in batch:
            if request.id in self._known:
                continue
            if request.number in unasked:
                line = {"id": request.id, "unasked": unasked[request.number]}
            else:
                line = self._written(request, answers[request.number])
            self._kept.append([line])
            self._known[request.id] = self._read(line)

    def _written(self, request: Request, completion: Completion) -> dict[str, Any]:
        segments: list[dict[str, str]] = []
        for segment in completion.segments:
            if isinstance(segment, Text):
                segments.append({"text": segment.text})
                continue
            name = f"{IMAGES}/{request.number:05d}-{len(segments)}.png"
            path = self._folder / name
            with path.open("wb") as file:
                PillowImage.fromarray(segment.pixels).save(file, format="PNG")
                file.flush()
                os.fsync(file.fileno())
            segments.append({"image": name})
        return {"id": request.id, "segments": segments, "finished": completion.finished}

    def _read(self, line: Mapping[str, Any]) -> Answered:
        if "unasked" in line:
            return Answered((), unasked=line["unasked"])
        parts: list[str | Path] = []
        for segment in line["segments"]:
            if "text" in segment:
                words = segment["text"].replace(THINK, " ").replace(VISUALISE, " ").strip()
                parts += [words] if words else []
            else:
                parts.append(self._image(segment["image"]))
        return Answered(tuple(parts), line["finished"])

    def _image(self, name: str) -> Path:
        try:
            return path_inside(self._folder, name)
        except ImageError as error:
            raise ConfigError(f"{self._answers} names image {name!r}, which {error}") from error


def weights_digest(policy: torch.nn.Module) -> str:
    """A short text that other weights would not have: sums and some values of each tensor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // 16)].double().tolist()
        total = float(flat.sum(dtype=torch.float64))
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {total:.5e}".encode())
        digest.update(" ".join(f"{value:.5e}" for value in some).encode())
    return digest.hexdigest()[:16]


def _sample(policy: UnifiedPolicy, request: Request, behaviour: Behaviour) -> Sample:
    """Raises BrokenRowError for a prompt that is too long, or an image that is damaged."""
    length = len(policy.prompt_ids(request.outline()))
    longest = policy.longest_answer(request.task, behaviour)
    check_length(length, longest, policy.context_length)
    capabilities = policy.capabilities
    return request.sample(capabilities.image_size, capabilities.image_fit)
