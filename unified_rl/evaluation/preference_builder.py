"""Preferences that a policy makes of its own drawings and answers, as HermesFlow does."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import DrawnImage, Image, Sample, Segment, Task, Text
from unified_rl.core.trajectory import Rollout
from unified_rl.data.preferences import PreferenceFolder
from unified_rl.data.ranked import Choice, Ranked
from unified_rl.data.self_questions import ask_about
from unified_rl.decoding.modes import evaluation_mode
from unified_rl.evaluation.asking import Progress
from unified_rl.rewards.hybrid import HybridReward

REPEATS = 10_000
"""Draws in a row without a new prompt after which the data is taken to have no more."""


class PreferenceBuilder:
    """Draws each prompt many times and answers its question many times; keeps best and worst.

    A drawing is scored by the policy's own answers to the prompt's question about it, an answer by
    how near it comes to the gold one. A prompt's drawings and answers owe nothing to the others'.

    In a further round what was best before is met again. A new best that scores higher is preferred
    to the old one, else the old pair stays as it was; answers are about the same picture as before.

    Source: HermesFlow (arXiv 2502.12148), the numbers from its released code.
    Departs: its captions are of real pictures, and here answers are about the policy's own best
        drawing. One that scores no more than `threshold` may not show what the gold answer says, so
        that no answers are asked for. In a further round its code prefers a new best that is no
        better than the old one to the old worst, even where it scores less than that.

    Args:
        drawing_reward: of an answer about a drawing, from 0 to 1 where `threshold` is; raw sums.
        answer_reward: of an answer among others; raw sums.
        behaviour_image: how drawings are drawn.
        behaviour_judge: how the answers that score them are drawn.
        behaviour_answer: how answers to prefer are drawn, its top_k aside.
        image_count: drawings of a prompt.
        judgement_count: answers about each of them, whose mean scores it; 1 where they are greedy.
        threshold: the best drawing has to score more.
        top_ks: of the answers, each tried in turn; 1 is the most likely answer.
        answer_count: answers with each top_k but 1, which gives one.
        batch_size: drawings or answers at once; 0 takes all of a prompt's.
        seed: of all draws, together with the prompt.

    Raises:
        ConfigError: a count out of its range, or a reward that changes with who is beside.
    """

    def __init__(
        self,
        drawing_reward: HybridReward,
        answer_reward: HybridReward,
        behaviour_image: Behaviour,
        behaviour_judge: Behaviour,
        behaviour_answer: Behaviour,
        image_count: int = 16,
        judgement_count: int = 1,
        threshold: float = 0.6,
        top_ks: Sequence[int] = (1, 2, 3, 4),
        answer_count: int = 4,
        batch_size: int = 0,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("image_count", image_count, 2),
            ("judgement_count", judgement_count, 1),
            ("answer_count", answer_count, 1),
            ("batch_size", batch_size, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ConfigError(f"builder.{name}={value} must be at least {least}")
        if not top_ks or min(top_ks) < 1 or len(set(top_ks)) < len(top_ks):
            raise ConfigError(f"builder.top_ks={list(top_ks)} must list numbers from 1 on, once")
        if judgement_count > 1 and behaviour_judge.text.temperature == 0:
            raise ConfigError(
                f"builder.judgement_count={judgement_count} greedy answers would all be one; set "
                "it to 1, or builder.behaviour_judge.text.temperature above 0"
            )
        for reward in (drawing_reward, answer_reward):
            if reward.normalisation != "sum":
                raise ConfigError(
                    f"builder takes scores as they are, not normalisation={reward.normalisation!r} "
                    "over those beside; set it to sum"
                )
        self.drawing_reward, self.answer_reward = drawing_reward, answer_reward
        self.behaviour_image, self.behaviour_judge = behaviour_image, behaviour_judge
        self.image_count, self.judgement_count = image_count, judgement_count
        self.threshold, self.batch_size, self.seed = threshold, batch_size, seed
        self._answering: list[tuple[Behaviour, int]] = []  # and how many answers are drawn so
        for top_k in top_ks:
            text = replace(behaviour_answer.text, top_k=top_k)
            count = 1 if top_k == 1 else answer_count
            self._answering.append((replace(behaviour_answer, text=text), count))

    def build(
        self,
        make_policy: Callable[[], Policy],
        samples: Sequence[Sample],
        folder: PreferenceFolder,
        previous: PreferenceFolder | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Ranks what is not ranked in the folder yet, and finishes the folder.

        Args:
            make_policy: makes the policy that draws and answers; not called where all is there.
            samples: prompts with questions, of different ids; see `distinct`.
            folder: that was begun.
            previous: that of the round before, finished; None in the first round.
            progress: called with the number of prompts done, and of those that were to be done.

        Returns:
            The folder's summary; see `PreferenceFolder.finish`.

        Raises:
            DataError: nothing that is to be preferred.
            RewardError: a reward that fails.
        """
        if previous is not None:
            previous.summary()  # refuses one that is unfinished
        ranked = ((sample.id, folder.read(sample.id)) for sample in samples)
        found = {sample_id: known.halves for sample_id, known in ranked if known is not None}
        missing = [sample for sample in samples if sample.id not in found]
        policy = self._bound(make_policy()) if missing else None
        for number, sample in enumerate(missing, start=1):
            before = None if previous is None else previous.read(sample.id)
            new = self.rank(policy, sample, before)
            folder.write(new)
            found[sample.id] = new.halves
            if progress is not None:
                progress(number, len(missing))
        return folder.finish({sample.id: found[sample.id] for sample in samples})

    def _bound(self, policy: Policy) -> Policy:
        """The policy, given to the rewards that ask it; they are tested first of all."""
        for reward in (self.drawing_reward, self.answer_reward):
            reward.bind(policy, lambda: policy)
            reward.self_test()
        return policy

    def rank(self, policy: Policy, sample: Sample, before: Ranked | None = None) -> Ranked:
        """Best and worst drawing and answer of one prompt.

        Args:
            policy: that draws and answers.
            sample: the prompt, with its question.
            before: what was best and worst in the round before.
        """
        entropy = [self.seed, _number(sample.id)]
        if before is not None:  # else a round would draw what the one before drew
            entropy.append(_number(json.dumps(before.to_json())))
        (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        device = next(policy.parameters()).device
        generator = torch.Generator(device).manual_seed(int(state >> 1))
        with evaluation_mode(policy):
            codes, pictures = self._draw(policy, sample, generator)
            scores = self._judge(policy, sample, pictures, generator)
            best = int(np.argmax(scores))
            drawings = _choice(codes, scores, self.threshold, before and before.drawings)
            picture, old = pictures[best], None
            if before is not None and before.answers is not None:
                picture, old = before.picture, before.answers
            elif scores[best] <= self.threshold:
                return Ranked(sample, drawings, None, None)
            answers, scores = self._answer(policy, sample, picture, generator)
        chosen = _choice(answers, scores, float("-inf"), old)
        return Ranked(sample, drawings, None if chosen is None else picture, chosen)

    def _draw(
        self, policy: Policy, sample: Sample, generator: torch.Generator
    ) -> tuple[list[DrawnImage], list[Image | DrawnImage]]:
        """Drawings as codes, and as the policy is shown them."""
        codes, pictures = [], []
        prompts = [sample] * self.image_count
        for part in self._rollouts(policy, prompts, self.behaviour_image, generator):
            codes += policy.drawn_images(part.trajectory)
            pictures += policy.own_pictures(part.trajectory, part.completions)
        return codes, pictures

    def _judge(
        self,
        policy: Policy,
        sample: Sample,
        pictures: Sequence[Image | DrawnImage],
        generator: torch.Generator,
    ) -> list[float]:
        """The mean score of the answers about each picture."""
        asked = [ask_about(sample, p) for p in pictures for _ in range(self.judgement_count)]
        parts = self._rollouts(policy, asked, self.behaviour_judge, generator)
        scores = torch.cat([self.drawing_reward(part).outcome for part in parts])
        return _decimal(scores.double().view(len(pictures), -1).mean(1))

    def _answer(
        self,
        policy: Policy,
        sample: Sample,
        picture: Image | DrawnImage,
        generator: torch.Generator,
    ) -> tuple[list[Text], list[float]]:
        """Answers about a picture and their scores."""
        texts: list[Text] = []
        scores: list[float] = []
        for behaviour, count in self._answering:
            asked = [ask_about(sample, picture)] * count
            for part in self._rollouts(policy, asked, behaviour, generator):
                texts += [Text(" ".join(answer.texts)) for answer in part.completions]
                scores += _decimal(self.answer_reward(part).outcome)
        return texts, scores

    def _rollouts(
        self,
        policy: Policy,
        samples: Sequence[Sample],
        behaviour: Behaviour,
        generator: torch.Generator,
    ) -> Iterator[Rollout]:
        """What the policy makes of the samples, `batch_size` at a time."""
        size = self.batch_size or len(samples)
        for start in range(0, len(samples), size):
            part = tuple(samples[start : start + size])
            trajectory, completions = policy.sample(part, behaviour, generator)
            yield Rollout(part, completions, trajectory, group_size=1)


def distinct(samples: Iterable[Any], count: int) -> list[Sample]:
    """The first `count` prompts of a stream that differ in their ids.

    Raises:
        ConfigError: items that are no prompts to draw, or fewer different ones.
        DataError: a prompt without a question.
    """
    if count < 1:
        raise ConfigError(f"count={count} must be at least 1")
    found: dict[str, Sample] = {}
    repeats = 0
    for sample in samples:
        if not isinstance(sample, Sample) or sample.task is not Task.TEXT_TO_IMAGE:
            raise ConfigError(
                f"the data gave {sample.id!r}, which is no prompt to draw; choose data with "
                "questions about one's own drawings, such as data=self_questions"
            )
        ask_about(sample, Text(""))  # refuses a prompt without a question
        repeats = repeats + 1 if sample.id in found else 0
        found.setdefault(sample.id, sample)
        if len(found) == count:
            break
        if repeats == REPEATS:
            raise ConfigError(
                f"count={count}, but the data gave {len(found)} different prompts and none in "
                f"{REPEATS} draws since; lower count"
            )
    return list(found.values())


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _decimal(scores: Tensor) -> list[float]:
    """To six digits: a float32 of 0.6 is a little more than a threshold of 0.6."""
    return [round(score, 6) for score in scores.tolist()]


def _choice(
    candidates: Sequence[Segment], scores: Sequence[float], least: float, old: Choice | None
) -> Choice | None:
    """Best and worst, the first of equals; None where they are not apart, or none is good enough.

    With those of an earlier round, the new best against the old one if it scores higher, else the
    old pair.
    """
    best, worst = int(np.argmax(scores)), int(np.argmin(scores))
    if old is not None:
        if scores[best] <= old.win_score:
            return old
        return Choice(candidates[best], old.win, scores[best], old.win_score)
    if not scores[best] > max(least, scores[worst]):
        return None
    return Choice(candidates[best], candidates[worst], scores[best], scores[worst])
