"""VILA-U against the tensors that the official code gave."""

from collections.abc import Iterator

import torch

from benchmarks.parity.checks import GIVEN, Check, Golden, exact
from benchmarks.parity.vila_u_codec import codec_checks
from benchmarks.parity.vila_u_drawing import depth_checks, run_checks
from benchmarks.parity.vila_u_policy import OfficialBatch, golden_policy
from benchmarks.parity.vila_u_training import training_checks
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.decoding.interleaved import interleave
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Tape
from unified_rl.models.vila_u.policy import VilaUPolicy


def checks(golden: Golden) -> Iterator[tuple[str, Check]]:
    """Every tensor of a VILA-U folder."""
    policy = golden_policy(golden)
    with torch.no_grad():
        yield from codec_checks(policy, golden)
        yield from depth_checks(policy, golden)
        yield from run_checks(policy, golden)
        yield from _answers(policy, golden)
    yield from training_checks(policy, golden)


def _answers(policy: VilaUPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """A greedy answer by interleaved decoding; its logits by replay without a cache."""
    io, config = golden.io, golden.config
    ids, count = io["und.input_ids"], io["und.step_logits"].shape[1]
    everything = torch.ones_like(ids, dtype=torch.bool)
    question = OfficialBatch(
        policy, ids, everything, ~everything, io["und.image"], config["image_token_index"]
    )
    behaviour = Behaviour(text=Sampling(temperature=0.0), constrained=False, max_text_tokens=count)
    prompt = question.tape(~everything, left=True)
    session = Session(policy, prompt, behaviour, torch.Generator(), count)
    nobody = torch.zeros(session.rows, dtype=torch.bool)
    interleave(session, nobody, nobody)
    trajectory = session.trajectory()
    tape = Tape(*(trajectory.tape[name] for name in Tape._fields))
    rows, columns = trajectory.action_mask[..., 0].nonzero(as_tuple=True)
    logits = policy.text_logits(policy.read(tape))[rows, columns - 1]
    tokens = tape.ids[rows, columns, 0].view(session.rows, -1)
    # the official code puts a start token in front that it never read
    start = tokens.new_full((session.rows, 1), policy.start_id)
    yield "und.image", GIVEN
    yield "und.input_ids", GIVEN
    yield "und.tokens", exact(torch.cat([start, tokens], dim=1))
    yield "und.step_logits", Check(logits.unflatten(0, tokens.shape))
