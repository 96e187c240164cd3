"""The head of Multi-HMR's Anny release once more, one person and one number at a time, in float64 numpy, from
the tensors by the file's names: the oracle of its tests.

Written from the formulas as observed; nothing of ours is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Cell = tuple[int, int, int]


class Loops:
    def __init__(self, state: Mapping[str, Tensor], heads: int) -> None:
        self.state = {name: tensor.double().numpy() for name, tensor in state.items()}
        self.heads = heads
        self.side = math.isqrt(len(self.state["dec_pos_emb"]))
        self.depth = len({n.split(".")[3] for n in state if n.startswith("decoder.transformer.layers.")})

    def linear(self, name: str, x: Floats) -> Floats:
        y = np.array([row @ x for row in self.state[f"{name}.weight"]])
        return y + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else y

    def mlp(self, name: str, x: Floats) -> Floats:
        return self.linear(f"{name}.2", np.array([max(v, 0.0) for v in self.linear(f"{name}.0", x)]))

    def norm(self, name: str, x: Floats) -> Floats:
        mean = sum(x) / len(x)
        variance = sum((v - mean) ** 2 for v in x) / len(x)
        scaled = (x - mean) / math.sqrt(variance + 1e-5)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def attend(self, q: Floats, keys: list[Floats], values: list[Floats]) -> Floats:
        size = len(q) // self.heads
        mixed = np.zeros(len(q))
        for head in range(self.heads):
            own = slice(head * size, (head + 1) * size)
            weights = [math.exp(float(q[own] @ k[own]) / math.sqrt(size)) for k in keys]
            for weight, value in zip(weights, values, strict=True):
                mixed[own] += weight / sum(weights) * value[own]
        return mixed

    def field_of_view(self, summary: Floats) -> float:
        logit = float(self.mlp("encoder.mlp_fov_unique", summary)[0])
        return float(self.state["encoder.fov_max"][0]) * sigmoid(logit)

    def scores(self, tokens: Floats) -> Floats:
        """(rows, columns) of one image (C, rows, columns), after suppression."""
        raw = np.zeros((self.side, self.side))
        for r, q in np.ndindex(raw.shape):
            raw[r, q] = sigmoid(float(self.mlp("encoder.mlp_det", tokens[:, r, q])[0]))
        kept = np.zeros_like(raw)
        for r, q in np.ndindex(raw.shape):
            around = raw[max(r - 1, 0) : r + 2, max(q - 1, 0) : q + 2]
            kept[r, q] = raw[r, q] if raw[r, q] == around.max() else 0.0
        return kept

    def decoder_token(self, tokens: Floats, r: int, q: int) -> Floats:
        return self.linear("dec_to_token", tokens[:, r, q]) + self.state["dec_pos_emb"][r * self.side + q]

    def people(self, tokens: Floats, K: Floats, cells: list[Cell]) -> list[dict[str, Any]]:
        """What is said of each cell.  tokens: (B, C, rows, columns).  K: (B, 3, 3)."""
        streams: dict[int, Floats] = {}
        for image in sorted({cell[0] for cell in cells}):
            grid = [(r, q) for r in range(self.side) for q in range(self.side)]
            context = [self.decoder_token(tokens[image], r, q) for r, q in grid]
            own = {
                i: self.decoder_token(tokens[image], *cell[1:])
                for i, cell in enumerate(cells)
                if cell[0] == image
            }
            for layer in range(self.depth):
                own = self.layer(f"decoder.transformer.layers.{layer}", own, context)
            streams |= own
        return [self.answer(streams[i], K[cell[0]], cell) for i, cell in enumerate(cells)]

    def layer(self, name: str, own: dict[int, Floats], context: list[Floats]) -> dict[int, Floats]:
        parts = {
            i: np.split(self.linear(f"{name}.0.fn.to_qkv", self.norm(f"{name}.0.norm", x)), 3)
            for i, x in own.items()
        }
        keys, values = ([part[n] for part in parts.values()] for n in (1, 2))
        seen = [np.split(self.linear(f"{name}.1.fn.to_kv", token), 2) for token in context]
        result = {}
        for i, start in own.items():
            x = start + self.linear(f"{name}.0.fn.to_out.0", self.attend(parts[i][0], keys, values))
            q = self.linear(f"{name}.1.fn.to_q", self.norm(f"{name}.1.norm", x))
            mixed = self.attend(q, [k for k, _ in seen], [v for _, v in seen])
            x = x + self.linear(f"{name}.1.fn.to_out.0", mixed)
            hidden = self.linear(f"{name}.2.fn.net.0", self.norm(f"{name}.2.norm", x))
            gelu = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in hidden])
            result[i] = x + self.linear(f"{name}.2.fn.net.3", gelu)
        return result

    def answer(self, y: Floats, K: Floats, cell: Cell) -> dict[str, Any]:
        _, r, q = cell
        dx, dy = self.mlp("mlp_offset", y)
        u, v = (q + 0.5 + dx) * 14, (r + 0.5 + dy) * 14
        raw = float(self.mlp("mlp_dist", y)[0])
        z = K[0, 0] / max(math.exp(raw), 1e-5)
        mean = self.state["init_body_pose"][0]
        numbers = self.mlp("mlp_pose", np.concatenate([y, mean])) + mean
        rotmat = np.zeros((163, 3, 3))
        for bone in range(163):
            a0, b0, a1, b1, a2, b2 = numbers[6 * bone : 6 * bone + 6]
            rotmat[bone] = np.eye(3)
            if self.state["useful_rotmat"][0, bone]:
                rotmat[bone] = gram_schmidt(np.array([a0, a1, a2]), np.array([b0, b1, b2]))
        return {
            "offset": np.array([dx, dy]),
            "loc": np.array([u, v]),
            "rotmat": rotmat,
            "phenotypes": np.array([sigmoid(s) for s in self.mlp("mlp_shape", y)]),
            "dist_raw": raw,
            "dist": z,
            "translation": z * np.linalg.inv(K) @ np.array([u, v, 1.0]),
        }


def gram_schmidt(a: Floats, b: Floats) -> Floats:
    x = a / math.sqrt(a @ a)
    w = b - (x @ b) * x
    w = w / math.sqrt(w @ w)
    return np.column_stack([x, w, np.cross(x, w)])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
