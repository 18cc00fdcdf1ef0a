"""A policy that answers by a function, and a judge that grades by one."""

import numpy as np
import torch

from unified_rl.core.protocols import Capabilities
from unified_rl.core.sample import Completion, Image, Text
from unified_rl.rewards.judging import JudgeQuestion


class Telling(torch.nn.Module):
    """Answers through a function and keeps the ids that it was asked, batch by batch."""

    capabilities = Capabilities("next_token", False, 24, 9, 1, 16)
    context_length = 1000
    device = torch.device("cpu")

    def __init__(self, answer, weight=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight]))
        self.answer, self.asked, self.shown = answer, [], []

    def prompt_ids(self, sample):
        return list(range(len(sample.prompt_text)))

    def longest_answer(self, task, behaviour):
        return 50

    def sample(self, samples, behaviour, generator):
        assert not self.training
        self.asked.append([sample.id for sample in samples])
        self.shown += samples
        return None, tuple(self.answer(sample, generator) for sample in samples)


def colour(value):
    return Image(np.full((24, 24, 3), value, np.uint8))


def story(sample, generator=None):
    segments = (
        Text("<think> first it is red <vis>"),
        colour(50),
        Text("<think> then it is blue <vis>"),
        colour(90),
        Text(""),
    )
    return Completion(segments, finished=True)


class Grading:
    """Replies by a function of the question and keeps what it was asked."""

    def __init__(self, reply, name="grading"):
        self.reply, self.name, self.asked = reply, name, []

    def ask(self, questions):
        self.asked += questions
        return [self.reply(question) for question in questions]

    def describe(self):
        return {"name": self.name}


def answer_of(question: JudgeQuestion) -> list:
    """What stands between the delimiters: texts as they are, pictures as arrays."""
    parts = [p.text if isinstance(p, Text) else p.pixels for p in question.parts]
    texts = [part if isinstance(part, str) else "" for part in parts]
    return parts[texts.index("[ANSWER]") + 1 : texts.index("[/ANSWER]")]


def score(number):
    return f"### Feedback\nsome words\n### Score\n{number}"
