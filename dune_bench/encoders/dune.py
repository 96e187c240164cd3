"""DUNE's students: ViT-S/14 and ViT-B/14 with four registers, and a projector for each teacher.

Source: naver/dune (`model/dune.py`, `model/projector/tp.py`) as restated in PROTOCOLS §0, §0.1, §6.2.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
HEAD_WIDTH = 64
"""Channels of an attention head of the released students."""

_OTHER_PROJECTOR = re.compile(r"(fc[12]|heads)\.")
"""Names inside projectors of our own training's other kinds, `sp` and `lp`."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProjectorShape:
    """blocks: transformer blocks.  width: the teacher's channels."""

    blocks: int = 1
    width: int = PROJECTED_WIDTH


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
    """Encoder and projectors; the modules' names are those of the released files.

    teachers: their names, with shapes unless all are the released ones'.
    """

    def __init__(self, config: VitConfig, teachers: Iterable[str] | Mapping[str, ProjectorShape]) -> None:
        super().__init__()
        self.encoder = VisionTransformer(config)
        shapes = teachers if isinstance(teachers, Mapping) else dict.fromkeys(teachers, ProjectorShape())
        self.projectors = nn.ModuleDict(
            {
                teacher: TransformerProjector(config.width, config.heads, shape.blocks, shape.width)
                for teacher, shape in shapes.items()
            }
        )


class DuneEncoder(VitEncoder, Adapter):
    """Views raw (what projectors and the MASt3R decoder see), norm (the final norm, which DUNE's
    training never touches), layer:N, layers:…, proj:TEACHER (1024 channels in the released files).

    Teacher statistics in a file (`teacher_norms.*`) are for training and are not loaded.  Nor are projectors
    of other kinds than the released files', which a warning says: those teachers have no view.
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
            own = without_other_projectors(our_names(state, card.id), card.id)
            teachers = projector_shapes(own)
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


def projector_shapes(state: Mapping[str, Tensor]) -> dict[str, ProjectorShape]:
    """By teacher, sorted, of a state under the names of `DuneNetwork`.  What is missing of a projector counts
    as in the released files: loading says what it is."""
    teachers = sorted({name.split(".")[1] for name in state if name.startswith("projectors.")})
    return {teacher: _projector_shape(state, f"projectors.{teacher}.") for teacher in teachers}


def _projector_shape(state: Mapping[str, Tensor], prefix: str) -> ProjectorShape:
    bias = state.get(f"{prefix}linear.bias")
    width = PROJECTED_WIDTH if bias is None or bias.ndim != 1 else len(bias)
    return ProjectorShape(_count(state, f"{prefix}blocks."), width)


def without_other_projectors(state: State, where: str) -> State:
    """A state under the names of `DuneNetwork` less projectors of kinds it has not; a warning names them."""
    parts = ((name, name.split(".", 2)) for name in state if name.startswith("projectors."))
    others = {name: part[1] for name, part in parts if _OTHER_PROJECTOR.match(part[-1])}
    for teacher in sorted(set(others.values())):
        logger.warning(
            "encoder %s: the projector for %s is no transformer: there is no view proj:%s",
            where,
            teacher,
            teacher,
        )
    return {name: value for name, value in state.items() if name not in others}


def shape_of(state: Mapping[str, Tensor], where: str) -> VitConfig:
    """The shape of the encoder in a state under the names of `DuneNetwork`; its heads have 64 channels, as
    those of the released students.  Raises TaskError for tensors of something else."""

    def size(name: str, ndim: int) -> tuple[int, ...]:
        tensor = state.get(f"encoder.{name}")
        if tensor is None or tensor.ndim != ndim:
            raise TaskError(f"{where}: no usable 'encoder.{name}': not the encoder of a DUNE checkpoint")
        return tuple(tensor.shape)

    width, patch = size("cls_token", 3)[2], size("patch_embed.proj.weight", 4)[3]
    places = size("pos_embed", 3)[1] - 1
    if math.isqrt(places) ** 2 != places:
        raise TaskError(f"{where}: a position table of {places} patches is no square: not a DUNE checkpoint")
    if width % HEAD_WIDTH:
        raise TaskError(
            f"{where}: {width} channels are no multiple of {HEAD_WIDTH}, and the file does not say how many "
            "attention heads there are: give the folder with the encoder's card instead"
        )
    return VitConfig(
        width=width,
        depth=_count(state, "encoder.blocks."),
        heads=width // HEAD_WIDTH,
        patch=patch,
        registers=size("register_tokens", 3)[1] if "encoder.register_tokens" in state else 0,
        table=math.isqrt(places),
        mlp="swiglu" if "encoder.blocks.0.mlp.w12.weight" in state else "gelu",
        mask_token="encoder.mask_token" in state,
    )


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Different numbers after a prefix."""
    return len({n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix)})
