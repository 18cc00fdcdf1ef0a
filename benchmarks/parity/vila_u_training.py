"""Sequences, losses and gradients of VILA-U's training."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.parity.checks import GIVEN, Check, Golden, exact
from benchmarks.parity.vila_u_packing import Rows
from benchmarks.parity.vila_u_policy import IGNORED, PREFIXES, OfficialBatch
from unified_rl.core.behaviour import TEACHER
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.tape import Kind, Tape
from unified_rl.models.vila_u.official import key_maps
from unified_rl.models.vila_u.policy import VilaUPolicy
from unified_rl.objectives.imitation import modality_nll

TAIL = 3
"""Length of the end of a sequence that ends with an image: itself, its border, the end of text."""
FIRST_LOGITS = "image_logits_first64rows"
"""The only tensor that is recorded in part."""
ROUNDING = 1e-7
"""Norm of a gradient that is 0 but for rounding, as those of the keys' biases are."""


def training_checks(policy: VilaUPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `train.*`."""
    yield "train.images", GIVEN
    for name in list(golden.io):
        run, _, ending = name.rpartition(".")
        if run.startswith("train.") and ending == "input_ids":
            yield from _run(policy, golden, run)


def _run(policy: VilaUPolicy, golden: Golden, run: str) -> Iterator[tuple[str, Check]]:
    """One batch: how it is laid out, what the model makes of it, and the gradients."""
    for name in ("input_ids", "labels", "attention_mask"):
        yield f"{run}.{name}", GIVEN
    batch = _batch(policy, golden, run)
    tape = batch.tape(_targets(batch, golden, run))
    rows = Rows(tape.valid.sum(1), packed=run.endswith("_packed"))
    for name, check in _layout(policy, tape, rows):
        yield f"{run}.{name}", check
    with torch.no_grad():
        for name, check in _states(policy, tape, rows):
            if name == FIRST_LOGITS:
                check = check._replace(ours=check.ours[: len(golden.io[f"{run}.{name}"])])
            yield f"{run}.{name}", check
    gold = _gold(tape)
    with torch.no_grad():
        terms = modality_nll(policy.logprobs(gold), gold.action_mask, gold.modality)
    yield f"{run}.text_loss", Check(terms.text_nll, 1e-5, 0.0)
    yield f"{run}.image_loss", Check(terms.image_nll, 1e-5, 0.0)
    yield f"{run}.loss", Check(terms.loss, 1e-5, 0.0)
    keys = golden.config["notes"][f"{run}.grad_l2_norms_keys"]
    norms = _gradient_norms(policy, batch, gold, keys)
    known = (norms > ROUNDING) | (golden.io[f"{run}.grad_l2_norms"] > ROUNDING)
    yield f"{run}.grad_l2_norms", Check(norms, 0.0, 1e-3, known, "where not 0 but for rounding")


def _layout(policy: VilaUPolicy, tape: Tape, rows: Rows) -> Iterator[tuple[str, Check]]:
    """Labels, and which sequences stand where."""
    labels, is_text = _labels(policy, tape), tape.kind == Kind.TEXT
    words = rows.arrange(torch.where(is_text, labels[..., 0], IGNORED), IGNORED)
    yield "prepared_attention_mask", exact(tape.valid)
    yield "prepared_labels", exact(labels)
    yield "text_labels_shifted_flat", exact(words[:, 1:].flatten())
    yield "image_labels_flat", exact(_drawn(tape, rows)[1].flatten())
    if rows.packed:
        positions = torch.arange(rows.width).expand(tape.kind.shape)
        yield "sorted_seqlens", exact(tape.valid.sum(1)[rows.order])
        yield "packed_attention_mask", exact(rows.arrange(tape.valid, False))
        yield "packed_position_ids", exact(rows.arrange(positions, -1))


def _states(policy: VilaUPolicy, tape: Tape, rows: Rows) -> Iterator[tuple[str, Check]]:
    """What goes into the language model, and what comes out."""
    features = policy.image_features(tape.shown) if tape.shown.shape[1] else None
    embeds = policy.embed(tape.ids, tape.kind, features)
    hidden = policy.read(tape)
    seen = rows.arrange(tape.valid, False)[..., None]
    yield "prepared_embeds", Check(embeds * tape.valid[..., None])
    yield "hidden_states", Check(rows.arrange(hidden, 0), where=seen)
    if not rows.packed:
        yield "logits", Check(policy.text_logits(hidden), where=seen)
    is_code, codes = _drawn(tape, rows)
    states = hidden[rows.order].roll(1, dims=1)[is_code]  # each from the column before its codes
    yield (
        FIRST_LOGITS,
        Check(policy.code_logits(states, None, codes[:, :-1], TEACHER).flatten(0, 1)),
    )


def _drawn(tape: Tape, rows: Rows) -> tuple[Tensor, Tensor]:
    """Where codes stand in the sequences as they come, (B, L) bool, and the codes, (n, D)."""
    is_code = tape.kind[rows.order] == Kind.CODE
    return is_code, tape.ids[rows.order][is_code]


def _batch(policy: VilaUPolicy, golden: Golden, run: str) -> OfficialBatch:
    io = golden.io
    return OfficialBatch(
        policy,
        io[f"{run}.input_ids"],
        io[f"{run}.attention_mask"].bool(),
        io[f"{run}.labels"] != IGNORED,
        io["train.images"],
        golden.config["image_token_index"],
    )


def _targets(batch: OfficialBatch, golden: Golden, run: str) -> Tensor:
    """(B, L) bool, the images that the official code has drawn: at most one ends a sequence.

    The text before it, from the image before that on, must have begin-of-image as a label.
    """
    prefix = "novi_" if run.startswith("train.novi") else ""
    begin = golden.config["special_ids"][f"{prefix}im_start"]
    begins = (golden.io[f"{run}.labels"] == begin) & batch.valid
    targets = torch.zeros_like(batch.is_image)
    for row, is_image in enumerate(batch.is_image):
        last = int(batch.valid[row].sum()) - TAIL
        if last < 0 or not is_image[last]:
            continue
        before = is_image[:last].nonzero()
        piece = slice(int(before.max()) + 1 if len(before) else 0, last)
        targets[row, last] = begins[row, piece].any()
    return targets


def _labels(policy: VilaUPolicy, tape: Tape) -> Tensor:
    """(B, L, D): codes behind the words; of a word, D times the same."""
    ids = torch.where(tape.kind[..., None] == Kind.CODE, tape.ids, tape.ids[..., :1])
    ids = torch.where(tape.kind[..., None] == Kind.CODE, ids + policy.text_vocabulary_size, ids)
    return torch.where(tape.action_mask[..., :1], ids, IGNORED)


def _gold(tape: Tape) -> Trajectory:
    learnt = tape.action_mask.clone()
    learnt[:, 0] = False  # nothing predicts the first token
    modality = torch.where(tape.kind == Kind.CODE, int(Modality.IMAGE), int(Modality.TEXT))
    nothing = torch.zeros(learnt.shape)
    return Trajectory(TEACHER, nothing, learnt, modality, tape.segment, tape._asdict())


def _gradient_norms(
    policy: VilaUPolicy, batch: OfficialBatch, gold: Trajectory, keys: list[str]
) -> Tensor:
    """Of parameters under their official names.

    The official code has images that are drawn read as images that are shown, so that what reads
    them learns too, and it trains the encoder.
    """
    policy.codec.encoder.requires_grad_(True)
    hidden = policy.read(batch.tape(torch.zeros_like(batch.is_image)))
    ids, nll = gold.tape["ids"], []
    for modality in Modality:
        row, column = gold.mask_of(modality)[..., 0].nonzero(as_tuple=True)
        states, chosen = hidden[row, column - 1], ids[row, column]
        if modality == Modality.IMAGE:
            scores = policy.score_codes(states, None, chosen, TEACHER, None)
        else:
            scores = policy.text_log_distribution(states, TEACHER).gather(-1, chosen[:, :1])
        nll.append(-scores.mean())
    sum(nll).backward()
    norms = torch.stack([_gradient(policy, key).norm() for key in keys])
    policy.zero_grad()
    policy.codec.requires_grad_(False)
    return norms


def _gradient(policy: VilaUPolicy, name: str) -> Tensor:
    """The gradient of a parameter under its official name."""
    folder = next(folder for folder, prefix in PREFIXES.items() if name.startswith(prefix))
    names = key_maps(policy.vila_u.config)[folder]
    rule, targets = names.find(name.removeprefix(PREFIXES[folder]))
    return rule.transform.join([policy.vila_u.get_parameter(target).grad for target in targets])
