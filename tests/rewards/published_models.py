"""Tiny random weights under the names of the published models, and these models' forward passes.

The passes are written from the papers' and releases' definitions in plain tensor arithmetic; they
share nothing with the modules that they are compared with.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from unified_rl.rewards.image_reward_specimen import (
    LAYERS,
    PATCH,
    WIDTH,
    linear,
    random_state,
)

HEAD = 64
State = dict[str, Tensor]


def image_reward(state: State, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
    """Published scores (n,), of float32 pixels (n, 3, 32, 32), normalised."""
    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    patches = functional.conv2d(
        pixels,
        state[vision + "patch_embed.proj.weight"],
        state[vision + "patch_embed.proj.bias"],
        stride=PATCH,
    )
    x = patches.flatten(2).transpose(1, 2)  # (n, 4, width)
    x = torch.cat([state[vision + "cls_token"].expand(len(x), -1, -1), x], 1)
    x = x + state[vision + "pos_embed"]
    for index in range(LAYERS):
        block = f"{vision}blocks.{index}."
        q, k, v = _apply(state, block + "attn.qkv", _norm(state, block + "norm1", x, 1e-6)).split(
            WIDTH, -1
        )
        x = x + _apply(state, block + "attn.proj", _attend(q, k, v, HEAD))
        inner = _apply(state, block + "mlp.fc1", _norm(state, block + "norm2", x, 1e-6))
        x = x + _apply(state, block + "mlp.fc2", _gelu(inner))
    seen = _norm(state, vision + "norm", x, 1e-6)
    y = state[text + "embeddings.word_embeddings.weight"][ids]
    y = y + state[text + "embeddings.position_embeddings.weight"][: ids.shape[1]]
    y = _norm(state, text + "embeddings.LayerNorm", y, 1e-12)
    for index in range(LAYERS):
        layer = f"{text}encoder.layer.{index}."
        for name, source, keys in (("attention", None, mask), ("crossattention", seen, None)):
            own, part = y if source is None else source, f"{layer}{name}."
            q = _apply(state, part + "self.query", y)
            k, v = (_apply(state, f"{part}self.{which}", own) for which in ("key", "value"))
            told = _apply(state, part + "output.dense", _attend(q, k, v, HEAD, keys))
            y = _norm(state, part + "output.LayerNorm", y + told, 1e-12)
        inner = _gelu(_apply(state, layer + "intermediate.dense", y))
        told = _apply(state, layer + "output.dense", inner)
        y = _norm(state, layer + "output.LayerNorm", y + told, 1e-12)
    score = y[:, 0]
    for place in (0, 2, 4, 6, 7):
        score = _apply(state, f"mlp.layers.{place}", score)
    return (score[:, 0] - 0.16717362830052426) / 1.0333394966054072


def open_clip_state(vocabulary: int, positions: int, seed: int = 0) -> State:
    """A model like `clip_folder`'s under open_clip's names: width 16, one layer, 32 px by 16."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (positions, 16),
        "text_projection": (16, 16),
        "logit_scale": (),
        "token_embedding.weight": (vocabulary, 16),
        "visual.class_embedding": (16,),
        "visual.positional_embedding": (5, 16),
        "visual.proj": (16, 16),
        "visual.conv1.weight": (16, 3, 16, 16),
    }
    for name in ("ln_final", "visual.ln_pre", "visual.ln_post"):
        linear(shapes, name, 16)
    for tower in ("", "visual."):
        block = f"{tower}transformer.resblocks.0."
        shapes[block + "attn.in_proj_weight"], shapes[block + "attn.in_proj_bias"] = (48, 16), (48,)
        for name in ("attn.out_proj", "mlp.c_fc", "mlp.c_proj"):
            linear(shapes, block + name, 16, 16)
        for name in ("ln_1", "ln_2"):
            linear(shapes, block + name, 16)
    state = random_state(shapes, seed)
    state["logit_scale"] = torch.tensor(1.5)
    return state


def open_clip_cosine(state: State, ids: Tensor, pixels: Tensor) -> Tensor:
    """(n,), heads of width 8, GELU; the text's vector is where its greatest id first stands."""
    x = functional.conv2d(pixels, state["visual.conv1.weight"], stride=16).flatten(2)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x.transpose(1, 2)], 1)
    x = _norm(state, "visual.ln_pre", x + state["visual.positional_embedding"])
    x = _resblock(state, "visual.transformer.resblocks.0.", x, causal=False)
    seen = _norm(state, "visual.ln_post", x[:, 0]) @ state["visual.proj"]
    y = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    y = _resblock(state, "transformer.resblocks.0.", y, causal=True)
    y = _norm(state, "ln_final", y)[torch.arange(len(ids)), ids.argmax(-1)]
    return functional.cosine_similarity(seen, y @ state["text_projection"])


def _resblock(state: State, block: str, x: Tensor, causal: bool) -> Tensor:
    weight, bias = state[block + "attn.in_proj_weight"], state[block + "attn.in_proj_bias"]
    q, k, v = functional.linear(_norm(state, block + "ln_1", x), weight, bias).split(16, -1)
    x = x + _apply(state, block + "attn.out_proj", _attend(q, k, v, 8, causal=causal))
    inner = _gelu(_apply(state, block + "mlp.c_fc", _norm(state, block + "ln_2", x)))
    return x + _apply(state, block + "mlp.c_proj", inner)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, head: int, keys: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Softmax attention head by head; `keys` is (n, t), 0 where there is nothing to see."""
    out = []
    for start in range(0, q.shape[-1], head):
        own = slice(start, start + head)
        logits = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(head)
        if keys is not None:
            logits = logits.masked_fill(keys[:, None] == 0, -math.inf)
        if causal:
            logits = logits + torch.full(logits.shape[1:], -math.inf).triu(1)
        out.append(logits.softmax(-1) @ v[..., own])
    return torch.cat(out, -1)


def _gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[name + ".weight"] + state[name + ".bias"]


def _apply(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[name + ".weight"], state[name + ".bias"])
