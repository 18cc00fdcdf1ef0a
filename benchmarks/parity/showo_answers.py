"""Answers of Show-o to questions about a picture."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.parity.checks import GIVEN, Check, Golden, exact
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.decoding.interleaved import interleave
from unified_rl.decoding.sampling import draw
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Columns, Kind, Tape, stack
from unified_rl.models.showo.policy import ShowoPolicy


def answer_checks(policy: ShowoPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `mmu_gen.*`."""
    io = golden.io
    count = io["mmu_gen.tokens"].shape[0]
    prompt = _prompt(policy, golden)
    session = _session(policy, prompt, count)
    row, segment = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    tokens, logits = [], []
    for step in range(count):
        if step:
            session.push(tokens[-1][None, :, None], segment.new_tensor([Kind.TEXT]), row, segment)
        logits.append(policy.text_logits(session.conditional)[0])
        log_probs = policy.text_log_distribution(session.conditional, session.behaviour)
        tokens.append(draw(log_probs, session.generator)[0])
    seen = policy.visibility(session.kind, session.segment, 0)[0]
    seen = seen[: session.cursor, : session.cursor]
    recorded = io["mmu_gen.last_attention_mask"]
    hidden = torch.where(recorded == 0, 1.0, recorded)  # any number that is not 0 hides
    yield "mmu_gen.input_ids", GIVEN
    yield (
        "mmu_gen.attention_mask_bool",
        exact(policy.visibility(prompt.kind, prompt.segment, 0)[None]),
    )
    yield "mmu_gen.step_logits", Check(torch.stack(logits))
    yield "mmu_gen.tokens", exact(torch.cat(tokens))
    yield "mmu_gen.last_attention_mask", exact(torch.where(seen, 0.0, hidden))
    yield "mmu_gen.stop_token", GIVEN
    yield (
        "mmu_gen.tokens_until_stop",
        exact(_until(policy, prompt, io["mmu_gen.stop_token"], count)),
    )


def _prompt(policy: ShowoPolicy, golden: Golden) -> Tape:
    """The question laid out anew behind the picture that the record's image ids are of."""
    io = golden.io
    question = policy.tokenize(golden.config["cfg"]["question"])
    mmu = policy.tokenizer.convert_tokens_to_ids("<|mmu|>")
    columns = Columns(1).text([mmu, policy.begin_of_image_id]).shown_image(policy.image_positions)
    columns.text([policy.end_of_image_id, policy.start_id, *question])
    return stack([columns], io["vq.pixel_values"][None, :1])


def _session(policy: ShowoPolicy, prompt: Tape, count: int) -> Session:
    behaviour = Behaviour(text=Sampling(temperature=0.0), constrained=False, max_text_tokens=count)
    return Session(policy, prompt, behaviour, torch.Generator(), count)


def _until(policy: ShowoPolicy, prompt: Tape, stop: Tensor, count: int) -> Tensor:
    """(T,): the answer of a policy that takes `stop` for the end of text."""
    stopping = copy.copy(policy)  # the weights are shared
    stopping.end_of_text_id = stopping.image_trigger_id = int(stop)
    session = _session(stopping, prompt, count)
    nobody = torch.zeros(1, dtype=torch.bool)
    interleave(session, nobody, nobody)
    trajectory = session.trajectory()
    return trajectory.tape["ids"][trajectory.action_mask]
