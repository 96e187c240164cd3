"""DUNE's students: ViT-S/14 and ViT-B/14 with four registers, and a projector for each teacher.

Source: naver/dune (`model/dune.py`, `model/projector/tp.py`) as restated in PROTOCOLS §0, §0.1, §6.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from dune_bench.encoders.adapter import Adapter, build_empty, parse_arch, reinitialise
from dune_bench.encoders.checkpoint import State, load_into
from dune_bench.encoders.vit import Block, VisionTransformer, VitConfig, official_names
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import TaskError
from dune_bench.registry.cards import EncoderCard

FILE_TEACHERS = {
    "dino2reg_vitlarge_14": "dinov2reg_vitl14",
    "mast3r_vitlarge_16": "mast3r_vitl16",
    "multihmr_vitlarge_14_672": "multihmr_vitl14_672",
}
"""Teacher keys of the released files -> canonical names."""

PROJECTED_WIDTH = 1024


class TransformerProjector(nn.Module):
    """Pre-norm blocks over [class, patches] without positions, then a linear layer to the teacher's
    width.  The output lives in the teacher-normalised space (zero mean, unit variance)."""

    def __init__(self, width: int, heads: int, depth: int = 1, out: int = PROJECTED_WIDTH) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.linear = nn.Linear(width, out)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, 1024)."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.linear(tokens)  # type: ignore[no-any-return]


class DuneNetwork(nn.Module):
    """Encoder and projectors; the modules' names are those of the released files."""

    def __init__(self, config: VitConfig, teachers: Iterable[str]) -> None:
        super().__init__()
        self.encoder = VisionTransformer(config)
        self.projectors = nn.ModuleDict(
            {teacher: TransformerProjector(config.width, config.heads) for teacher in teachers}
        )


class DuneEncoder(VitEncoder, Adapter):
    """Views raw (what projectors and the MASt3R decoder see), norm (the final norm, which DUNE's
    training never touches), layer:N, layers:…, proj:TEACHER (1024 channels).

    Teacher statistics in a file (`teacher_norms.*`) are for training and are not loaded.
    """

    adapter = "dune@1"

    def __init__(self, id: str, network: DuneNetwork) -> None:
        super().__init__(id, network.encoder, dict(network.projectors.items()))
        self.module = network.eval()

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> DuneEncoder:
        config = parse_arch(card, VitConfig)
        if state is None:
            network = build_empty(lambda: DuneNetwork(config, card.teachers))
            reinitialise(network, seed=0)
        else:
            own = our_names(state, card.id)
            teachers = sorted({name.split(".")[1] for name in own if name.startswith("projectors.")})
            network = build_empty(lambda: DuneNetwork(config, teachers))
            load_into(network, own, f"weights of encoder {card.id}")
        return cls(card.id, network)


def our_names(state: Mapping[str, Tensor], where: str) -> State:
    """Names of a released file (prefixes already stripped) to those of `DuneNetwork`.

    Files of the encoder alone, with or without the prefix `encoder.`, have no projectors.
    """
    if "encoder.cls_token" not in state:
        if "cls_token" not in state:
            raise TaskError(
                f"weights of encoder {where}: no 'encoder.cls_token' in it: not a DUNE checkpoint"
            )
        state = {f"encoder.{name}": value for name, value in state.items()}
    encoder = {name.removeprefix("encoder."): v for name, v in state.items() if name.startswith("encoder.")}
    renamed = {f"encoder.{name}": value for name, value in official_names(encoder).items()}
    for name, value in state.items():
        if match := re.fullmatch(r"projectors\.([^.]+)\.(.+)", name):
            renamed[f"projectors.{FILE_TEACHERS.get(match[1], match[1])}.{match[2]}"] = value
        elif not name.startswith(("encoder.", "teacher_norms.")):
            renamed[name] = value
    return renamed
