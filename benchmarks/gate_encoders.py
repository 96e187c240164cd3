"""Checkpoints that differ little, for `gate_power.py`: a pretrained ViT-S with noise on its weights.

    dune-bench run --view layer:9 --encoder benchmarks/gate_encoders.py:two_percent

Each is the same network after adding Gaussian noise of that share of every tensor's standard deviation: a
stand-in for checkpoints of one training, of which none can be had offline.
"""

from __future__ import annotations

import torch

import dune_bench
from dune_bench.encoders.base import Encoder


def _noisy(share: float, seed: int) -> Encoder:
    encoder = dune_bench.load_encoder("dinov2_vits14_saliency", device="cpu")
    assert encoder.module is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in encoder.module.parameters():
            if tensor.numel() > 1:
                noise = torch.randn(tensor.shape, generator=generator)
                tensor += share * tensor.std() * noise
    encoder.weights_digest = None  # other weights: the digest is taken anew
    return encoder


def two_percent() -> Encoder:
    return _noisy(0.02, 1)


def five_percent() -> Encoder:
    return _noisy(0.05, 2)


def ten_percent() -> Encoder:
    return _noisy(0.10, 3)
