"""ULM-R1's trainer on Janus weights: what it computes, by our parts put together its way."""

import math
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from benchmarks.parity.checks import GIVEN, REPLAYED, Check, Golden, exact
from benchmarks.parity.janus_drawing import ReplayedJanus, drawn, pictures
from benchmarks.parity.janus_forward import no_pixels, plain_embeds, plain_forward
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Columns, Kind, Tape, stack
from unified_rl.objectives.grpo import GrpoObjective

INPUTS = (
    *("t2i_input_ids", "t2i_attention_mask"),
    *("mm2t_input_ids", "mm2t_attention_mask", "mm2t_completion_mask", "mm2t_images_seq_mask"),
    *("grpo_t2i_old_per_token_logps", "grpo_t2i_ref_per_token_logps", "grpo_t2i_advantages"),
    *("grpo_mm2t_old_per_token_logps", "grpo_mm2t_ref_per_token_logps", "grpo_mm2t_advantages"),
    "grpo_unified_advantages",
)
MM2T_SHARE = 0.8
"""Weight of the advantages of answers where ULM-R1 unifies advantages."""

Checks = Generator[tuple[str, Check], None, Tensor]


def ulm_checks(policy: ReplayedJanus, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `ulm.*`."""
    for name in INPUTS:
        yield f"ulm.{name}", GIVEN
    of_images = yield from _images(policy, golden)
    of_answers = yield from _answers(policy, golden)
    for name, loss in losses(golden, of_images, of_answers).items():
        yield name, Check(loss, 1e-5, 0.0)
    for run in ("greedy", "sampled"):
        yield from _parallel(policy, golden, run)


def _prompts(io: dict[str, Tensor]) -> list[list[int]]:
    """Ids of the prompts of images, without padding."""
    pairs = zip(io["ulm.t2i_input_ids"], io["ulm.t2i_attention_mask"].bool(), strict=True)
    return [ids[valid].tolist() for ids, valid in pairs]


def released(golden: Golden) -> Behaviour:
    """How the released trainer scores what it drew: unguided, images by states that saw them."""
    sampling = Sampling(temperature=golden.config["ulm"]["grpo"]["temperature"])
    return Behaviour(
        text=sampling,
        image=sampling,
        logprob="conditional",
        image_logprob_shift="released_off_by_one",
        constrained=False,
    )


def drawings(golden: Golden, behaviour: Behaviour) -> Trajectory:
    """The recorded images behind their prompts, left padded, to be scored under a behaviour."""
    codes = golden.io["t2i.image_ids"][..., None]
    rows = zip(_prompts(golden.io), codes.tolist(), strict=True)
    columns = [Columns(1).text(p).codes(c, 0) for p, c in rows]
    tape = stack(columns, no_pixels(len(codes)), left=True)
    modality = torch.where(tape.kind == Kind.CODE, int(Modality.IMAGE), int(Modality.TEXT))
    nothing = torch.zeros(tape.action_mask.shape)
    return Trajectory(behaviour, nothing, tape.action_mask, modality, tape.segment, tape._asdict())


def image_logprobs(policy: ReplayedJanus, golden: Golden, behaviour: Behaviour) -> Tensor:
    """(B, N) log-probs of the recorded images, as our policy replays them."""
    trajectory = drawings(golden, behaviour)
    scores = policy.logprobs(trajectory)[trajectory.action_mask]
    return scores.view(golden.io["t2i.image_ids"].shape)


def _images(policy: ReplayedJanus, golden: Golden) -> Checks:
    """(B, N) log-probs of images, each code by the state that has read it already."""
    tape = Tape(*(drawings(golden, released(golden)).tape[name] for name in Tape._fields))
    late = policy.read(tape)[:, -policy.image_positions :]
    logits = policy.janus.model.generation_head(late)
    scores = image_logprobs(policy, golden, released(golden))
    yield "ulm.joint_t2i_logits", Check(logits)
    yield "ulm.generation_t2i_logits", Check(logits)
    yield "ulm.t2i_per_token_logps", Check(scores, 1e-5, 0.0)
    return scores


def answer_logprobs(policy: ReplayedJanus, golden: Golden) -> tuple[Tensor, Tensor]:
    """(B, T) log-probs of answers, and the (B, T + 1, width) states from the prompt's last on."""
    io = golden.io
    ids, count = io["ulm.mm2t_input_ids"], io["ulm.mm2t_completion_mask"].shape[1]
    embeds = plain_embeds(policy, ids, io["ulm.mm2t_images_seq_mask"], io["und.pixel_values"])
    hidden = plain_forward(policy, embeds, io["ulm.mm2t_attention_mask"].bool())
    hidden = hidden[:, -count - 1 :]
    scores = policy.text_log_distribution(hidden[:, :-1], released(golden))
    return scores.gather(-1, ids[:, -count:, None]).squeeze(-1), hidden


def _answers(policy: ReplayedJanus, golden: Golden) -> Checks:
    scores, hidden = answer_logprobs(policy, golden)
    yield "ulm.joint_mm2t_logits", Check(policy.text_logits(hidden))
    yield "ulm.mm2t_per_token_logps", Check(scores, 1e-5, 0.0)
    return scores


def losses(golden: Golden, of_images: Tensor, of_answers: Tensor) -> dict[str, Tensor]:
    """The loss of images plus that of answers, under each of its ways to spread rewards.

    Args:
        golden: has the advantages, and the log-probs of the old policy and of the reference.
        of_images: (B, N) log-probs.
        of_answers: (B, T) log-probs.
    """
    io = golden.io
    unified = io["ulm.grpo_unified_advantages"]
    image, text = io["ulm.grpo_t2i_advantages"], io["ulm.grpo_mm2t_advantages"]
    joined = image + MM2T_SHARE * text
    found = {}
    for name, image_advantages, text_advantages, is_first in (
        ("unify_reward", unified, unified, False),
        ("unify_reward_iter1", unified, unified, True),
        ("unify_advantage", joined, joined, False),
        ("separate", image, text, False),
    ):
        loss = _loss(golden, "t2i", of_images, image_advantages, is_first)
        loss = loss + _loss(golden, "mm2t", of_answers, text_advantages, is_first)
        found[f"ulm.grpo_loss_{name}"] = loss
    return found


def _loss(golden: Golden, task: str, logprobs: Tensor, advantages: Tensor, first: bool) -> Tensor:
    """Mean over rows of the mean over tokens, with no clip; `first` is the first update."""
    io, of_image = golden.io, task == "t2i"
    objective = GrpoObjective(
        clip_low=1.0, clip_high=math.inf, beta=golden.config["ulm"]["grpo"]["beta"]
    )
    kept = torch.ones_like(logprobs) if of_image else io["ulm.mm2t_completion_mask"]
    actions = kept.bool()[..., None]
    modality = torch.full(logprobs.shape, int(Modality.IMAGE if of_image else Modality.TEXT))
    behaviour = logprobs if first else io[f"ulm.grpo_{task}_old_per_token_logps"]
    reference = io[f"ulm.grpo_{task}_ref_per_token_logps"]
    return objective.loss(
        logprobs[..., None],
        behaviour[..., None],
        reference[..., None],
        advantages,
        objective.weights(actions, modality),
        actions,
    ).loss


def _parallel(policy: ReplayedJanus, golden: Golden, run: str) -> Iterator[tuple[str, Check]]:
    """Several images a prompt, in a batch of prompts of different length."""
    settings, name = golden.config["ulm"]["parallel"], f"ulm.parallel_{run}"
    prompts = [p[:-1] for p in _prompts(golden.io) for _ in range(settings["parallel_size"])]
    rows = len(prompts)
    tape = stack([Columns(1).text(prompt) for prompt in prompts], no_pixels(rows), left=True)
    # Its twins keep the first column of the batch, and lose the start token where that is padding.
    hidden = torch.arange(tape.kind.shape[1]) > 0
    tape = tape._replace(
        twin_ids=torch.where(hidden, policy.pad_id, tape.ids[..., 0]), twin_kind=tape.kind
    )
    policy.replay(golden.io[f"{name}_step_samples"] if run == "sampled" else None)
    behaviour = Behaviour(
        image=Sampling(temperature=float(run == "sampled")), guidance_scale=settings["cfg_weight"]
    )
    session = Session(policy, tape, behaviour, torch.Generator(), policy.image_positions + 1)
    all_rows = torch.ones(rows, dtype=torch.bool)
    policy.draw_image(session, all_rows, ~all_rows, torch.zeros(rows, dtype=torch.long))
    trajectory = session.trajectory()
    codes = drawn(policy, trajectory)
    completions = policy.completions(trajectory, [True] * rows)
    yield f"{name}_step_logits_before_cfg", Check(policy.step_logits())
    yield f"{name}_step_samples", REPLAYED if run == "sampled" else exact(codes.T)
    yield f"{name}_tokens", exact(codes)
    yield f"{name}_images_uint8", exact(pictures(completions))
