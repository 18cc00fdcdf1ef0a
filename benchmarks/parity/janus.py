"""Janus against the tensors that the official code gave, ULM-R1's among them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.parity.checks import GIVEN, Check, Golden, exact
from benchmarks.parity.janus_drawing import ReplayedJanus, run_checks
from benchmarks.parity.janus_forward import no_pixels, plain_embeds, plain_forward
from benchmarks.parity.janus_ulm import ulm_checks
from benchmarks.parity.numbered import numbered_tokenizer
from unified_rl.core.behaviour import TEACHER, Behaviour, Sampling
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.interleaved import interleave
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Columns, Kind, Tape, stack
from unified_rl.models.janus.official import KEY_MAP, load_state
from unified_rl.models.template import Template
from unified_rl.objectives.imitation import modality_nll

IGNORED = -100
"""Label of what is not learnt."""


def checks(golden: Golden) -> Iterator[tuple[str, Check]]:
    """Every tensor of a Janus folder."""
    policy = golden_policy(golden)
    with torch.no_grad():
        yield from _seeing(policy, golden.io)
        yield from _codec(policy, golden.io)
        yield from _drawing(policy, golden.io)
        yield from _layout(policy, golden)
        yield from _understanding(policy, golden.io)
        yield from _answers(policy, golden.io)
    yield from _training(policy, golden)
    with torch.no_grad():
        yield from run_checks(policy, golden)
        if "ulm" in golden.config:
            yield from ulm_checks(policy, golden)


def golden_policy(golden: Golden) -> ReplayedJanus:
    """The policy with the golden weights, read as an official checkpoint is."""
    cfg = golden.config["cfg"]
    vision, codec, ids = cfg["vision"], cfg["vq"], cfg["ids"]
    architecture = {
        "vision": {
            "hidden_size": vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "mlp_ratio": vision["mlp_ratio"],
            "patch_size": vision["patch_size"],
        },
        "codec": {
            "base_channels": codec["ch"],
            "channel_multiplier": codec["ch_mult"],
            "latent_channels": codec["z_channels"],
            "num_res_blocks": codec["num_res_blocks"],
        },
    }
    model = load_state(golden.weights, golden.config["janus_config"], architecture)
    names = {ids[key]: f"<{key}>" for key in ("bos", "eos", "pad", "image_start", "image_end")}
    template = Template(
        layout="{start}{prompt}",
        start=names[ids["bos"]],
        pad=names[ids["pad"]],
        end_of_text=names[ids["eos"]],
        image_trigger=names[ids["eos"]],  # the official model asks for no images
        begin_of_image=names[ids["image_start"]],
        end_of_image=names[ids["image_end"]],
        forbidden=(),
    )
    tokenizer = numbered_tokenizer(model.config.text_config.vocab_size, names)
    return ReplayedJanus(model, tokenizer, template).eval()


# -- vision and codec ------------------------------------------------------------------------------


def _seeing(policy: ReplayedJanus, io: dict[str, Tensor]) -> Iterator[tuple[str, Check]]:
    pixels = io["vision.pixel_values"]
    features = policy.janus.model.get_image_features(pixels, return_dict=True)
    yield "vision.pixel_values", GIVEN
    yield "vision.features", Check(features.last_hidden_state)
    yield "vision.aligned", Check(policy.embed_pixels(pixels))


def _codec(policy: ReplayedJanus, io: dict[str, Tensor]) -> Iterator[tuple[str, Check]]:
    pixels, ids, codec = io["vq.pixel_values"], io["vq.decode_ids"][..., None], policy.codec
    codes = policy.encode_images(pixels)
    quantised = codec.encode(pixels, return_dict=True).quantized_last_hidden_state
    yield "vq.pixel_values", GIVEN
    yield "vq.decode_ids", GIVEN
    yield "vq.pre_quant", Check(codec.quant_conv(codec.encoder(pixels)))
    yield "vq.codes_flat", exact(codes.flatten())
    yield "vq.quantized", Check(quantised)
    yield "vq.codebook_entry", Check(codec.quantize.get_codebook_entry(ids[..., 0]))
    yield "vq.decode_pixels", Check(policy.decode_images(ids), 1e-4, 0.0)
    yield "vq.roundtrip_pixels", Check(policy.decode_images(codes), 1e-4, 0.0)


# -- drawing, teacher forced -----------------------------------------------------------------------


def _drawing(policy: ReplayedJanus, io: dict[str, Tensor]) -> Iterator[tuple[str, Check]]:
    codes = io["vq.decode_ids"]
    yield "gen.embed", Check(policy.janus.model.generation_embeddings(codes))
    yield "gen.aligned", Check(policy.embed_codes(codes[..., None]))
    rows = zip(io["t2i.prompt_ids"].tolist(), io["t2i.image_ids"][..., None].tolist(), strict=True)
    tape = stack([Columns(1).text(p).codes(c, 0) for p, c in rows], no_pixels(len(codes)))
    hidden = policy.read(tape)
    gold = _gold(tape)
    terms = modality_nll(policy.logprobs(gold), gold.action_mask, gold.modality)
    yield "t2i.prompt_ids", GIVEN
    yield "t2i.image_ids", GIVEN
    yield "t2i.hidden_states", Check(hidden)
    yield "t2i.gen_logits_all", Check(policy.janus.model.generation_head(hidden))
    yield "t2i.image_loss", Check(terms.image_nll, 1e-5, 0.0)


def _gold(tape: Tape) -> Trajectory:
    modality = torch.where(tape.kind == Kind.CODE, int(Modality.IMAGE), int(Modality.TEXT))
    nothing = torch.zeros(tape.action_mask.shape)
    return Trajectory(TEACHER, nothing, tape.action_mask, modality, tape.segment, tape._asdict())


# -- understanding ---------------------------------------------------------------------------------


def _layout(policy: ReplayedJanus, golden: Golden) -> Iterator[tuple[str, Check]]:
    """The official padding and expansion of image placeholders, by our layout of prompts."""
    tape, pad = _prompts(policy, golden.io), policy.pad_id
    ids = torch.where(tape.kind == Kind.TEXT, tape.ids[..., 0], pad)
    ids = torch.where(tape.kind == Kind.PIXEL, golden.config["cfg"]["ids"]["image"], ids)
    is_pixel = tape.kind == Kind.PIXEL
    counts = is_pixel.sum(1) // policy.image_positions
    shown = torch.arange(tape.shown.shape[1]) < counts[:, None]  # (B, M)
    yield "und.pixel_values", GIVEN
    yield "und.input_ids", exact(ids)
    yield "und.attention_mask", exact(tape.valid)
    yield "und.images_seq_mask", exact(is_pixel)
    yield "und.images_emb_mask", exact(shown[..., None].expand(-1, -1, policy.image_positions))
    yield "und.labels", exact(torch.where(tape.kind == Kind.TEXT, ids, IGNORED))


def _prompts(policy: ReplayedJanus, io: dict[str, Tensor]) -> Tape:
    """The prompts of the record without their padding and runs of image tokens, laid out anew."""
    rows = []
    names = ("input_ids", "attention_mask", "images_seq_mask")
    for ids, valid, shown in zip(*(io[f"und.{name}"].tolist() for name in names), strict=True):
        columns, was_shown = Columns(1), 0
        for token, is_valid, is_shown in zip(ids, valid, shown, strict=True):
            if is_shown and not was_shown:
                columns.shown_image(policy.image_positions)
            elif is_valid and not is_shown:
                columns.text([token])
            was_shown = is_shown
        rows.append(columns)
    return stack(rows, io["und.pixel_values"], left=True)


def _understanding(policy: ReplayedJanus, io: dict[str, Tensor]) -> Iterator[tuple[str, Check]]:
    valid = io["und.attention_mask"].bool()
    embeds = plain_embeds(
        policy, io["und.input_ids"], io["und.images_seq_mask"], io["und.pixel_values"]
    )
    logits = policy.text_logits(plain_forward(policy, embeds, valid))
    by_tape = policy.text_logits(policy.read(_prompts(policy, io)))
    yield "und.inputs_embeds", Check(embeds)
    yield "und.logits", Check(logits, where=valid[..., None])
    yield "und.logits_generate_position_ids", Check(by_tape, where=valid[..., None])


def _answers(policy: ReplayedJanus, io: dict[str, Tensor]) -> Iterator[tuple[str, Check]]:
    """Greedy answers by interleaved decoding; their logits by replay without a cache."""
    count = io["und.generated"].shape[1]
    behaviour = Behaviour(text=Sampling(temperature=0.0), constrained=False, max_text_tokens=count)
    session = Session(policy, _prompts(policy, io), behaviour, torch.Generator(), count)
    nobody = torch.zeros(session.rows, dtype=torch.bool)
    interleave(session, nobody, nobody)
    trajectory = session.trajectory()
    tape = Tape(*(trajectory.tape[name] for name in Tape._fields))
    all_logits = policy.text_logits(policy.read(tape))
    tokens = torch.full((session.rows, count), policy.pad_id)  # behind an answer that ended
    logits = torch.zeros(session.rows, count, all_logits.shape[-1])
    spoken = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, chosen in enumerate(trajectory.action_mask[..., 0]):
        columns = chosen.nonzero().flatten()
        tokens[row, : len(columns)] = tape.ids[row, columns, 0]
        logits[row, : len(columns)] = all_logits[row, columns - 1]
        spoken[row, : len(columns)] = True
    yield "und.generated", exact(tokens)
    yield "und.generated_step_logits", Check(logits, where=spoken[..., None])


# -- training --------------------------------------------------------------------------------------


def _training(policy: ReplayedJanus, golden: Golden) -> Iterator[tuple[str, Check]]:
    io = golden.io
    embeds = plain_embeds(
        policy, io["und.input_ids"], io["und.images_seq_mask"], io["und.pixel_values"]
    )
    hidden = plain_forward(policy, embeds, io["und.attention_mask"].bool())
    labels = io["und.labels"][:, 1:, None]
    scores = policy.text_log_distribution(hidden[:, :-1], TEACHER)
    logprobs = scores.gather(-1, labels.clamp_min(0))
    is_text = torch.full(labels.shape[:2], int(Modality.TEXT))
    loss = modality_nll(logprobs, labels != IGNORED, is_text).loss
    yield "und.text_loss", Check(loss, 1e-5, 0.0)
    loss.backward()
    norms = [
        _gradient(policy, name).norm() for name in golden.config["notes"]["und.grad_l2_norms_keys"]
    ]
    policy.zero_grad()
    yield "und.grad_l2_norms", Check(torch.stack(norms), 0.0, 1e-3)


def _gradient(policy: ReplayedJanus, name: str) -> Tensor:
    """The gradient of a parameter under its official name."""
    rule, targets = KEY_MAP.find(name)
    gradients = [policy.janus.get_parameter(target).grad for target in targets]
    return rule.transform.join(gradients)
