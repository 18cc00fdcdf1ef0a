"""Segment-synchronous decoding: text until an image is asked for, whole images, text again."""

import torch
from torch import Tensor

from unified_rl.decoding.decodable import Decodable
from unified_rl.decoding.sampling import draw
from unified_rl.decoding.session import Session
from unified_rl.decoding.support import pack
from unified_rl.decoding.tape import Kind


def columns_needed(model: Decodable, text_tokens: int, images: int) -> int:
    """Columns that the longest possible completion takes."""
    return (images + 1) * (text_tokens + 1) + images * (model.image_positions + 2)


@torch.no_grad()
def interleave(session: Session, starts_with_image: Tensor, may_continue: Tensor) -> Tensor:
    """Decodes every row to its end.

    Rows alternate in step: all rows that are writing finish their text segment, then all rows that
    asked for an image draw it, exactly `image_positions` long, then those go back to text.

    Args:
        session: holds the prompts; filled on return.
        starts_with_image: (B,) bool, rows whose answer is an image from its first token.
        may_continue: (B,) bool, rows that write on after an image.

    Returns:
        (B,) bool, False for rows that a length limit cut off.
    """
    drawing, writing = starts_with_image.clone(), ~starts_with_image
    finished = torch.zeros_like(drawing)
    step = torch.zeros(session.rows, dtype=torch.long, device=drawing.device)
    images = torch.zeros_like(step)
    model, limit = session.model, session.behaviour.max_image_count
    while True:
        if bool(writing.any()):
            may_draw = may_continue & (images < limit)
            asked, ended = _write_text(session, writing, step, drawing, may_draw)
            finished |= ended
            step += writing
            drawing |= asked & may_draw
        if not bool(drawing.any()):
            return finished
        writing = drawing & may_continue
        model.draw_image(session, drawing, writing, step)
        images += drawing
        finished |= drawing & ~may_continue
        step += drawing
        drawing = torch.zeros_like(drawing)


def _write_text(
    session: Session, rows: Tensor, segment: Tensor, drawing: Tensor, may_draw: Tensor
) -> tuple[Tensor, Tensor]:
    """Draws one text segment of each row; which of them asked for an image, and which ended.

    Rows that wait to draw, and those that may draw once they ask, go on; the others end here.
    """
    model, behaviour = session.model, session.behaviour
    active = rows.clone()
    asked, ended = torch.zeros_like(rows), torch.zeros_like(rows)
    for _ in range(behaviour.max_text_tokens):
        log_probs = model.text_log_distribution(session.conditional, behaviour)
        token, log_prob = draw(log_probs, session.generator)
        if behaviour.text.truncates and behaviour.text.temperature > 0:
            session.record("text_support", pack(torch.isfinite(log_probs))[:, None])
        _push_text(session, token, active, segment, log_prob)
        asked |= active & (token == model.image_trigger_id)
        ended |= active & (token == model.end_of_text_id)
        active &= ~(asked | ended)
        if not bool(active.any()):
            break
        session.retire(~(active | drawing | (asked & may_draw)))
    return asked, ended


def _push_text(
    session: Session, token: Tensor, rows: Tensor, segment: Tensor, log_prob: Tensor
) -> None:
    ids = token.new_zeros(session.rows, 1, session.depth)
    logprobs = torch.zeros(ids.shape, device=token.device)
    ids[:, 0, 0], logprobs[:, 0, 0] = token, log_prob
    session.push(ids, ids.new_tensor([Kind.TEXT]), rows, segment, logprobs)
