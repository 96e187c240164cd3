"""Dropout whose mask is cheap on a CPU.

torch draws one number per element from the Mersenne twister, one after the other: on a batch of token maps
that takes several times the multiplication it is for.  Here one 64-bit draw decides about four elements.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16
"""The rate is a multiple of 1 / LEVELS."""


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """x, any shape, floating point, with a share `p` of its elements 0 and the others over 1 − p (Srivastava
    et al. 2014); x itself without `training` or p.

    p: in [0, 1), rounded to 1/65536, at most 65535/65536.  Draws from torch's global generator of x's device,
    which a training step seeds.  Other devices than the CPU have a fused kernel; there this is torch's own.
    """
    threshold = min(round(p * LEVELS), LEVELS - 1)
    if not training or not threshold:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    lanes = 64 // 16
    draws = torch.empty((x.numel() + lanes - 1) // lanes, dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= threshold - LEVELS // 2
    return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - threshold))


class Dropout(nn.Dropout):
    """`dropout` as a layer."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)
