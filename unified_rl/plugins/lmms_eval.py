"""Our policies as a model of lmms-eval, found there by the entry point `unified_rl`.

lmms_eval --model unified_rl --model_args model=janus_pro_1b,checkpoint=FOLDER --tasks pope,mme
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Sample, Text
from unified_rl.core.trajectory import Modality
from unified_rl.data.images import ImageError
from unified_rl.runtime.answerer import Answerer, cut_at
from unified_rl.runtime.open_policy import open_policy

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.registry_v2 import ModelManifest

logger = logging.getLogger(__name__)

NAME = "unified_rl"
TOKEN_LIMIT = 1024
"""Tokens of an answer where the task does not say how many."""
GREEDY = {"do_sample": (False, None), "temperature": (0, None), "num_beams": (1, None)}
"""What a task may ask of decoding; anything else is answered greedily all the same."""


class UnifiedModel(lmms):
    """A policy behind lmms-eval's interface: answers are greedy, pictures are the policy's size.

    Args:
        model: an option of `conf/model`.
        checkpoint: folder of a model or of an adapter; None is what the option names.
        behaviour: an option of `conf/behaviour`; its text is made greedy.
        batch_size: questions at once.
        device: as torch names it; "auto", and "cuda" where there is none, is settled here.
        max_batch_size: of lmms-eval's automatic sizes, which there are none of here.
        settings: further ones with ";" between, as `model.dtype=bfloat16;threads=4`.

    Raises:
        ConfigError: unknown settings, or several processes.
        CheckpointError: weights that do not fit the model.
    """

    is_simple = True

    def __init__(
        self,
        model: str = "micro_janus",
        checkpoint: str | None = None,
        behaviour: str = "micro",
        batch_size: int | str = 1,
        device: str = "auto",
        max_batch_size: int | None = None,
        settings: str = "",
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal():
            raise ConfigError(
                f"batch_size={batch_size} is not a number; automatic sizes are not offered"
            )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise ConfigError(
                "unified_rl answers in one process; start lmms_eval without a launcher"
            )
        overrides = [part.strip() for part in settings.split(";") if part.strip()]
        policy, how = open_policy(model, checkpoint, behaviour, device, overrides)
        self._answerer = Answerer(policy, how, int(batch_size))
        self._told: set[str] = {""}

    def generate_until(self, requests: "Sequence[Instance]") -> list[str]:
        """An answer to each request, cut where its `until` stands; "" if it cannot be asked."""
        answers: list[str] = []
        for group in _alike(requests):
            settings = group[0].args[1]
            samples = [self._question(request) for request in group]
            asked = [sample for sample in samples if sample is not None]
            said = self._answerer.answer(asked, self._token_limit(settings))
            for request, sample in zip(group, samples, strict=True):
                text = "" if sample is None else next(said)
                answers.append(cut_at(text, _ends(settings)))
                self.cache_hook.add_partial(
                    "generate_until", (request.args[0], settings), answers[-1]
                )
        return answers

    def loglikelihood(self, requests: "Sequence[Instance]") -> list[GenerationResult]:
        """The loss of each continuation, and whether greedy decoding would have given it.

        The loss is the mean of its tokens' negative log-probabilities: lmms-eval 0.7.3 takes the
        least, as its own models give losses. It makes texts of bare pairs, so these are wrapped.
        """
        return [GenerationResult(self._score(request)) for request in requests]

    def generate_until_multi_round(self, requests: "Sequence[Instance]") -> list[list[str]]:
        """The answers of each round; the task's `doc_to_text` says what the next one asks."""
        return [self._rounds(request) for request in requests]

    def _question(self, request: "Instance") -> Sample | None:
        """What a request shows; None, with a warning, if its picture cannot be read in bounds."""
        context, _, doc_to_visual, doc_id, task, split = request.args
        try:
            visuals = doc_to_visual(self.task_dict[task][split][doc_id])
            return self._sample(f"{task} {doc_id}", context, visuals)
        except (ImageError, OSError) as error:
            logger.warning("%s %s is not asked: its picture %s", task, doc_id, error)
            return None

    def _sample(self, name: str, context: str, visuals: Any) -> Sample:
        pictures = list(_flat(visuals))
        for picture in pictures:
            if not isinstance(picture, PillowImage.Image):
                raise ConfigError(
                    f"{name} shows a {type(picture).__name__}; policies are shown pictures alone"
                )
        return self._answerer.question(name, context, pictures)

    def _rounds(self, request: "Instance") -> list[str]:
        context, settings, doc_to_visual, doc_to_text, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        visuals, answers, info = doc_to_visual(doc), [], None
        while True:
            sample = self._sample(f"{task} {doc_id} round {len(answers)}", context, visuals)
            (text,) = self._answerer.answer([sample], self._token_limit(settings))
            answers.append(cut_at(text, _ends(settings)))
            visuals, context, finished, said, info = doc_to_text(
                doc,
                previous_output=answers,
                round_idx=len(answers),
                previous_round_info=info,
            )
            answers = list(said)
            if finished:
                return answers

    @torch.no_grad()
    def _score(self, request: "Instance") -> tuple[float, bool]:
        context, target, doc_to_visual, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        text = target(doc) if callable(target) else target
        asked = self._sample(f"{task} {doc_id}", context, doc_to_visual(doc))
        sample = Sample(asked.id, asked.task, asked.prompt, target=(Text(str(text).strip()),))
        policy = self._answerer.policy
        trajectory = policy.encode([sample], torch.Generator(policy.device).manual_seed(0))
        said = trajectory.mask_of(Modality.TEXT)[0, :, 0].nonzero()[:-1, 0]  # without its end
        likely = policy.logprobs(trajectory)[0, said, 0]
        greedy = policy.logprobs(trajectory._replace(behaviour=self._answerer.greedy))
        return float(-likely.double().mean()), bool((greedy[0, said, 0] == 0).all())

    def _token_limit(self, settings: Mapping[str, Any]) -> int:
        for name, plain in GREEDY.items():
            value = settings.get(name, plain[0])
            if value not in plain and name not in self._told:
                self._told.add(name)
                print(f"unified_rl: {name}={value} of the task is not followed; answers are greedy")
        return max(1, int(settings.get("max_new_tokens") or TOKEN_LIMIT))


def manifest() -> "ModelManifest":
    """What the entry point gives lmms-eval."""
    from lmms_eval.models.registry_v2 import ModelManifest

    path = f"{UnifiedModel.__module__}.{UnifiedModel.__qualname__}"
    return ModelManifest(NAME, simple_class_path=path)


def _alike(requests: "Sequence[Instance]") -> "Iterator[list[Instance]]":
    """Neighbours that are decoded in the same way."""
    group: list[Instance] = []
    for request in requests:
        if group and group[0].args[1] != request.args[1]:
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def _ends(settings: Mapping[str, Any]) -> list[str]:
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _flat(visuals: Any) -> Iterator[Any]:
    """The pictures of a document: none, one, a list, or lists of them."""
    if isinstance(visuals, list | tuple):
        for visual in visuals:
            yield from _flat(visual)
    elif visuals is not None:
        yield visuals
