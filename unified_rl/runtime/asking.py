"""Requests put to a policy, batch by batch."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Sample
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.data.requests import BrokenRow, Request, check_length
from unified_rl.models.base import UnifiedPolicy
from unified_rl.runtime.gallery import Answer

SetAside = Callable[[BrokenRow], None]
"""What is done with a row that turns out not to be askable."""


def askable(
    policy: UnifiedPolicy, requests: Sequence[Request], behaviour: Behaviour, set_aside: SetAside
) -> list[Request]:
    """The requests that fit the policy's context together with their longest answers.

    Args:
        policy: to be asked.
        requests: those that come from a file are set aside if they are too long.
        behaviour: how answers are drawn.
        set_aside: gets the rows that are too long.

    Raises:
        DataError: a prompt of the command line is too long.
        ConfigError: the answers alone are too long.
    """
    fitting = []
    for request in requests:
        length = len(policy.prompt_ids(request.outline()))
        longest = policy.longest_answer(request.task, behaviour)
        try:
            check_length(length, longest, policy.context_length)
            fitting.append(request)
        except BrokenRowError as error:
            _pass_over(request, error, set_aside)
    return fitting


def unknown_count(policy: UnifiedPolicy, request: Request) -> int:
    """Tokens of a prompt that the policy's tokenizer has no entry for; most have one for all."""
    unknown = policy.tokenizer.unk_token_id
    texts = [segment for segment in request.prompt if isinstance(segment, str)]
    return sum(policy.tokenize(text).count(unknown) for text in texts)


def ask(
    policy: UnifiedPolicy,
    requests: Sequence[Request],
    behaviour: Behaviour,
    count: int,
    batch_size: int,
    seed: int,
    set_aside: SetAside,
) -> Iterator[list[Answer]]:
    """Batches of answers, prompt by prompt; a batch in which nothing could be asked is empty.

    Each batch has randomness of its own, so that what it holds does not depend on those before.

    Args:
        policy: in evaluation mode.
        requests: that fit its context.
        behaviour: how answers are drawn.
        count: answers to each request.
        batch_size: answers drawn at once.
        seed: at least 0.
        set_aside: gets rows whose images turn out damaged.

    Raises:
        DataError: an image of the command line is damaged.
        ConfigError: the batch is too large for the GPU.
    """
    turns = [(request, turn) for request in requests for turn in range(1, count + 1)]
    samples: dict[int, Sample | None] = {}
    for index, start in enumerate(range(0, len(turns), batch_size)):
        batch = turns[start : start + batch_size]
        once = {request.number: request for request, _ in batch}
        samples = {  # a prompt's images are read once, though its turns may lie in two batches
            number: samples[number] if number in samples else _sample(policy, request, set_aside)
            for number, request in once.items()
        }
        asked = [(r, turn, samples[r.number]) for r, turn in batch if samples[r.number] is not None]
        (state,) = np.random.SeedSequence([seed, index]).generate_state(1)
        generator = torch.Generator(policy.device).manual_seed(int(state))
        try:
            shown = [sample for *_, sample in asked]
            completions = policy.sample(shown, behaviour, generator)[1] if shown else ()
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"batch_size={batch_size} does not fit the GPU's memory; halve it"
            ) from error
        yield [
            Answer(request.number, turn, sample, tuple(map(str, request.images)), completion)
            for (request, turn, sample), completion in zip(asked, completions, strict=True)
        ]


def _sample(policy: UnifiedPolicy, request: Request, set_aside: SetAside) -> Sample | None:
    """What the policy is shown; None if an image is damaged behind its header."""
    capabilities = policy.capabilities
    try:
        return request.sample(capabilities.image_size, capabilities.image_fit)
    except BrokenRowError as error:
        _pass_over(request, error, set_aside)
        return None


def _pass_over(request: Request, error: BrokenRowError, set_aside: SetAside) -> None:
    if request.line is None:
        raise DataError(f"the prompt {error}") from error
    set_aside(BrokenRow(request.line, request.id, str(error)))
