"""Texts that are too long for Show-o, empty, or begin with the start token."""

from collections.abc import Iterator

import torch

from benchmarks.parity.checks import DOCUMENTED, Check, Golden, exact
from benchmarks.parity.showo_policy import drawing, no_pixels, padded, vocabulary_ids
from benchmarks.parity.showo_training import IGNORED, answers
from unified_rl.core.sample import Task
from unified_rl.decoding.tape import Columns, Kind, stack
from unified_rl.models.showo import prompting
from unified_rl.models.showo.policy import ShowoPolicy


def edge_checks(policy: ShowoPolicy, golden: Golden) -> Iterator[tuple[str, Check]]:
    """All of `prompt.*`: as prompts of images, as answers to a picture, as mere text."""
    io, limit = golden.io, golden.config["cfg"]["max_text_len"]
    # The last one was recorded with a start token in front, which the layout writes anyway.
    texts = [" ".join(map(str, range(1, limit + 7))), "", "4 5"]
    picture = io["vq.pixel_values"][:1]
    codes = policy.encode_images(picture)[0, :, 0]
    width = limit + 1 + len(codes) + 2
    tape = padded([drawing(policy, text, codes) for text in texts], width)
    yield "prompt.t2i_edge_ids", exact(vocabulary_ids(policy, tape.ids, tape.kind))

    pictures = picture.expand(len(texts), -1, -1, -1)
    answer = answers(
        policy, Task.UNDERSTANDING, texts, pictures, io["prompt.mmu_edge_ids"].shape[1]
    )
    yield "prompt.mmu_edge_ids", exact(answer.ids)
    yield "prompt.mmu_edge_labels", exact(answer.labels)

    width = io["prompt.lm_edge_ids"].shape[1]
    rows = [Columns(1).text([policy.start_id, *policy.tokenize(text)]) for text in texts]
    rows = [row.text([policy.end_of_text_id]) for row in rows]
    tape = stack([prompting.cut(row, width, closing=0) for row in rows], no_pixels(len(rows)))
    ids = vocabulary_ids(policy, tape.ids, tape.kind)
    yield "prompt.lm_edge_ids", exact(ids)
    yield "prompt.lm_edge_labels", exact(torch.where(tape.kind == Kind.PAD, IGNORED, ids))

    for task in ("t2i", "lm", "mmu"):
        yield f"prompt.{task}_edge_mask_1d", DOCUMENTED
