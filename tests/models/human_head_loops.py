"""The human head once more, one person and one number at a time, in numpy: the oracle of its tests.

Written from PROTOCOLS §4.2 and §12; `clean` names what differs from the released models.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.models.human_head import HumanHead

Floats = NDArray[np.float64]
ERF = np.vectorize(math.erf)


def linear(head: HumanHead, name: str, x: Floats) -> Floats:
    state = head.state_dict()
    y = x @ state[f"{name}.weight"].double().numpy().T
    return y + state[f"{name}.bias"].double().numpy() if f"{name}.bias" in state else y


def norm(head: HumanHead, name: str, x: Floats) -> Floats:
    state = head.state_dict()
    scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return scaled * state[f"{name}.weight"].double().numpy() + state[f"{name}.bias"].double().numpy()


def token_mlp(head: HumanHead, name: str, token: Floats) -> Floats:
    return linear(head, f"{name}.2", np.maximum(linear(head, f"{name}.0", token), 0.0))


def attend(q: Floats, keys: list[Floats], values: list[Floats], heads: int, head_dim: int) -> Floats:
    """One query (heads · d,) against a list of keys and values."""
    parts = []
    for h in range(heads):
        own = slice(h * head_dim, (h + 1) * head_dim)
        weight = np.exp([q[own] @ k[own] / math.sqrt(head_dim) for k in keys])
        parts.append(sum(w * v[own] for w, v in zip(weight / weight.sum(), values, strict=True)))
    return np.concatenate(parts)


def ray_features(K: Floats, row: int, column: int, patch: int, clean: bool) -> Floats:
    x, y = (column + 0.5) * patch, (row + 0.5) * patch
    ray = np.linalg.inv(K) @ ([x, y, 1.0] if clean else [y, x, 1.0])
    omegas = [1.0 + 31.0 * i / 15 for i in range(16)]
    sines = [math.sin(math.pi * r * w) for r in ray for w in omegas]
    return np.array([*ray, *sines, *(math.cos(math.pi * r * w) for r in ray for w in omegas)])


def gram_schmidt(six: Floats) -> Floats:
    x = six[:3] / np.linalg.norm(six[:3])
    y = six[3:] - (x @ six[3:]) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], -1)


def standardised(head: HumanHead, tokens: Floats) -> Floats:
    if not head.config.standardised:
        return tokens
    mean, std = (head.state_dict()[f"token_{n}"].double().numpy()[:, None, None] for n in ("mean", "std"))
    return (tokens - mean) / std


def window_mean(tokens: Floats, row: int, column: int, window: tuple[float, ...]) -> Floats:
    """(C,) mean over a window, from the shares of the tokens in it.  tokens: (C, rows, columns)."""
    _, rows, columns = tokens.shape
    left, right = (column + 0.5 + w * columns for w in (window[0], window[2]))
    top, bottom = (row + 0.5 + w * rows for w in (window[1], window[3]))
    total, area = np.zeros(len(tokens)), 0.0
    for r, c in np.ndindex(rows, columns):
        share = max(min(bottom, r + 1) - max(top, r), 0) * max(min(right, c + 1) - max(left, c), 0)
        total, area = total + share * tokens[:, r, c], area + share
    return total / area if area else tokens.mean((1, 2))


def viewing_rotation(ray: Floats) -> Floats:
    """Turns the camera about its vertical axis, then about the new horizontal one, until it looks along
    the ray."""
    yaw = math.atan2(ray[0], ray[2])
    pitch = math.atan2(ray[1], math.hypot(ray[0], ray[2]))
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    c, s = math.cos(pitch), math.sin(pitch)
    about_x = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    return about_y @ about_x


def logits(head: HumanHead, tokens: Floats) -> Floats:
    """(B, rows, columns); tokens: (B, C, rows, columns)."""
    tokens = standardised(head, tokens)
    batch, _, rows, columns = tokens.shape
    result = np.zeros((batch, rows, columns))
    for b, r, c in np.ndindex(batch, rows, columns):
        result[b, r, c] = token_mlp(head, "detection", tokens[b, :, r, c])[0]
    return result


def people(head: HumanHead, tokens: Floats, K: Floats, cells: list[list[int]]) -> list[dict[str, Any]]:
    """What `regress` says of each cell, by field name."""
    tokens = standardised(head, tokens)
    config, state = head.config, {n: v.double().numpy() for n, v in head.state_dict().items()}
    clean, (rows, columns) = not config.compat, config.grid
    means = np.concatenate([state[f"mean_{part}"][0] for part in ("pose", "betas", "camera")])
    contexts, streams = {}, {}
    for image in {cell[0] for cell in cells}:
        rays = 99 if config.places else 3
        bare = {
            (r, c): np.concatenate(
                [tokens[image, :, r, c], ray_features(K[image], r, c, config.patch, clean)[:rays]]
            )
            for r in range(rows)
            for c in range(columns)
        }
        own = {(r, c) for i, r, c in cells if i == image}
        contexts[image] = [
            token + state["value_rows"][r] + state["value_columns"][c]
            if config.places and (clean or (r, c) in own)
            else token
            for (r, c), token in bare.items()
        ]
        for index, (i, r, c) in enumerate(cells):
            if i == image:
                query = bare[r, c]
                if config.places:
                    query = query + state["query_rows"][r] + state["query_columns"][c]
                seen = [window_mean(tokens[image], r, c, window) for window in config.windows]
                query = np.concatenate([query, *seen])
                embedded = linear(head, "transformer.embed", np.concatenate([query, means]))
                streams[index] = embedded + state["transformer.position"][0, 0]
    for depth in range(config.depth):
        streams = layer(head, f"transformer.layers.{depth}", streams, contexts, cells)
    return [answer(head, tokens, K, cell, streams[i]) for i, cell in enumerate(cells)]


def layer(
    head: HumanHead,
    name: str,
    streams: dict[int, Floats],
    contexts: dict[int, list[Floats]],
    cells: list[list[int]],
) -> dict[int, Floats]:
    heads, head_dim = head.config.heads, head.config.head_dim
    qkv = {
        i: np.split(linear(head, f"{name}.self_attention.to_qkv", norm(head, f"{name}.self_norm", x)), 3)
        for i, x in streams.items()
    }
    result = {}
    for i, x in streams.items():
        near = [j for j in streams if cells[j][0] == cells[i][0]]
        mixed = attend(qkv[i][0], [qkv[j][1] for j in near], [qkv[j][2] for j in near], heads, head_dim)
        x = x + linear(head, f"{name}.self_attention.to_out", mixed)
        pairs = [
            np.split(linear(head, f"{name}.cross_attention.to_kv", token), 2)
            for token in contexts[cells[i][0]]
        ]
        q = linear(head, f"{name}.cross_attention.to_q", norm(head, f"{name}.cross_norm", x))
        mixed = attend(q, [k for k, _ in pairs], [v for _, v in pairs], heads, head_dim)
        x = x + linear(head, f"{name}.cross_attention.to_out", mixed)
        hidden = linear(head, f"{name}.mlp.0", norm(head, f"{name}.mlp_norm", x))
        gelu = hidden * 0.5 * (1 + ERF(hidden / math.sqrt(2)))
        result[i] = x + linear(head, f"{name}.mlp.2", gelu)
    return result


def answer(head: HumanHead, tokens: Floats, K: Floats, cell: list[int], x: Floats) -> dict[str, Any]:
    config, state = head.config, head.state_dict()
    image, row, column = cell
    said = {
        part: linear(head, f"decoders.{part}", x) + state[f"mean_{part}"][0].double().numpy()
        for part in ("pose", "betas", "camera", "expression")
    }
    dx, dy = token_mlp(head, "offset", tokens[image, :, row, column])
    loc = np.array([(column + 0.5 + dx) * config.patch, (row + 0.5 + dy) * config.patch])
    f_n = max(config.grid) * config.patch / (2 * math.tan(math.pi / 6))
    raw = said["camera"][0]
    if config.compat:
        dist = min(max(math.exp(raw * K[image][0, 0] / f_n) - 1e-10, 0.0), 50.0)
    else:
        dist = math.exp(raw) * math.sqrt(K[image][0, 0] * K[image][1, 1]) / f_n
    ray = np.linalg.inv(K[image]) @ [*loc, 1.0]
    rotmat = np.stack([gram_schmidt(six) for six in said["pose"].reshape(-1, 6)])
    if config.viewing_frame:
        rotmat[0] = viewing_rotation(ray) @ rotmat[0]
    return {
        "offset": np.array([dx, dy]),
        "loc": loc,
        "rotmat": rotmat,
        "betas": said["betas"],
        "expression": said["expression"],
        "dist_raw": raw,
        "dist": dist,
        "translation": ray * dist,
    }
