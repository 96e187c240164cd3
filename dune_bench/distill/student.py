"""The student: an encoder, a projector and the statistics of each teacher, under the names of DUNE's files.

Source: PROTOCOLS §0.1, §6.1, §6.2.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.distill.batch import Tokens
from dune_bench.distill.ema import Ema
from dune_bench.distill.projectors import (
    Projector,
    ProjectorConfig,
    StudentShape,
    fresh_projector,
    initialise,
)
from dune_bench.distill.teacher_norm import TeacherNorm
from dune_bench.distill.weighting import TeacherWeights
from dune_bench.encoders.adapter import build_empty
from dune_bench.encoders.base import IMAGENET_MEAN, IMAGENET_STD
from dune_bench.encoders.dune_files import read_student
from dune_bench.encoders.vit import VisionTransformer, VitConfig
from dune_bench.errors import UsageError
from dune_bench.registry.suggest import did_you_mean

PARTS = ("encoder", "projectors", "teacher_norms")
"""What a student's file holds; weights of teachers and the moving average are the training's own."""
_NEVER_TRAINED = ("norm.", "fc_norm.", "head.", "attn_pool.", "mask_token")


@dataclass(frozen=True)
class Taught:
    """A teacher, as far as the student's shape needs it.  width: channels.  has_cls: is its class token
    taught."""

    name: str
    width: int
    has_cls: bool


class Student(nn.Module):
    """Normalised images to each teacher's normalised space.

    encoder: `VisionTransformer` or a timm ViT.  Parameters behind the last block (`norm`, timm's heads) and
    `mask_token` get no gradient: projectors read raw tokens, in the original as here, so `encoder.norm` of a
    trained student is what it was at first.  They are marked so, and are no part of the optimiser.
    weighting: of the teachers' losses.  ema: a moving average of what is trained, or None.
    """

    def __init__(
        self,
        encoder: nn.Module,
        shape: StudentShape,
        patch: int,
        projectors: Mapping[str, Projector],
        norms: Mapping[str, TeacherNorm],
        weighting: TeacherWeights,
        ema: float | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.shape, self.patch = encoder, shape, patch
        self.projectors, self.teacher_norms = nn.ModuleDict(projectors), nn.ModuleDict(norms)
        self.weighting = weighting
        self._layers = tuple(sorted({layer for p in projectors.values() for layer in p.layers}))
        mean, std = _input_statistics(encoder)
        self.register_buffer("_mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(not name.startswith(_NEVER_TRAINED))
        self.ema = None if ema is None else Ema(dict(self._averaged()), ema)

    def forward(self, images: Tensor) -> dict[str, Tokens]:
        """images: (B, 3, S, S) float32, RGB in [0, 1].  Tokens (class, patches) for each teacher."""
        layers = self.layers(images, self._layers)
        return {name: _split(projector(layers)) for name, projector in self.projectors.items()}

    def layers(self, images: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """Raw tokens (B, 1 + N, C), class first, without registers, after each asked block (from 1)."""
        normalised = (images - self._mean) / self._std  # type: ignore[operator]
        if isinstance(self.encoder, VisionTransformer):
            first = 1 + self.encoder.config.registers
            found = self.encoder(normalised, layers)
            return {n: torch.cat([x[:, :1], x[:, first:]], 1) for n, x in found.items()}
        wanted = sorted(layers)
        network = cast(Any, self.encoder)
        inner = network.forward_intermediates(
            normalised,
            indices=[n - 1 for n in wanted],
            norm=False,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
        found = zip(wanted, inner, strict=True)
        return {n: torch.cat([prefix[:, :1], patch], 1) for n, (patch, prefix) in found}

    def follow(self) -> None:
        """Moves the average, if there is one, to the weights as they are now."""
        if self.ema is not None:
            self.ema.update(dict(self._averaged()))

    def parts(self) -> dict[str, Tensor]:
        """The tensors of a student's file, detached; averaged ones if there is an average."""
        state = {n: t.detach() for n, t in self.state_dict().items() if n.split(".")[0] in PARTS}
        return state if self.ema is None else state | self.ema.ahead(dict(self._averaged()))

    def _averaged(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and name.split(".")[0] in PARTS:
                yield name, parameter


def build_student(
    arch: VitConfig | str,
    taught: Sequence[Taught],
    projectors: ProjectorConfig,
    weighting: TeacherWeights,
    generator: torch.Generator,
    ema: float | None = None,
) -> Student:
    """A student to be trained, on the CPU in training mode; its values follow from `generator` alone.

    arch: shape of our ViT, or the name of a timm ViT.  Raises UsageError for a timm model that is no ViT
    with a class token, or a teacher whose name cannot be a module's.
    """
    encoder, shape, patch = _vit(arch) if isinstance(arch, VitConfig) else _timm(arch)
    fill(encoder, generator)
    for teacher in taught:
        if hasattr(nn.ModuleDict, teacher.name):
            raise UsageError(f"teacher {teacher.name}: this name is taken in torch; give it another `name`")
    made = {t.name: fresh_projector(projectors, shape, t.width, t.has_cls, generator) for t in taught}
    norms = {t.name: TeacherNorm(t.width, t.has_cls) for t in taught}
    return Student(encoder, shape, patch, made, norms, weighting, ema).train()


def patch_of(arch: VitConfig | str) -> int:
    """Patch size of a student in pixels.  Raises UsageError as `build_student`."""
    return arch.patch if isinstance(arch, VitConfig) else _timm(arch)[2]


@torch.no_grad()
def fill(encoder: nn.Module, generator: torch.Generator) -> None:
    """First values of an encoder, in place.

    Position tables and linear weights normal with deviation 0.02, cut at ±2; class and register tokens
    normal with 1e-6; the patch convolution uniform within ±1/√fan_in, as torch's own; LayerScale 1e-4; norms
    identity; biases and the mask token 0.
    """
    initialise(encoder, generator)
    convolutions = {
        f"{n}.{leaf}": 1 / math.sqrt(m.weight[0].numel())
        for n, m in encoder.named_modules()
        if isinstance(m, nn.Conv2d)
        for leaf in ("weight", "bias")
    }
    for name, parameter in encoder.named_parameters():
        leaf = name.rpartition(".")[2]
        if name in convolutions:
            parameter.uniform_(-convolutions[name], convolutions[name], generator=generator)
        elif leaf == "pos_embed":
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
        elif leaf == "mask_token":
            parameter.zero_()
        elif leaf.endswith(("token", "tokens")):
            parameter.normal_(std=1e-6, generator=generator)
        elif leaf == "gamma":
            parameter.fill_(1e-4)


@torch.no_grad()
def start_from(student: Student, path: Path, encoder_only: bool = False) -> None:
    """Takes the weights of a student's file or folder, in place: every tensor or none.

    A position table of another size is resampled (bicubic), as the second stage at 448 px needs of the first
    at 336.  encoder_only: leaves projectors and statistics as they are, for other teachers.
    Raises UsageError naming tensors that are missing, too many or of another shape.
    """
    found = read_student(path).state
    if encoder_only:
        found = {name: value for name, value in found.items() if name.startswith("encoder.")}
    wanted = {n: t for n, t in student.state_dict().items() if n.split(".")[0] in PARTS}
    if encoder_only:
        wanted = {name: value for name, value in wanted.items() if name.startswith("encoder.")}
    table = "encoder.pos_embed"
    if table in found and table in wanted:
        found[table] = resampled(found[table], wanted[table].shape[1])
    problems = [f"{n}: missing" for n in wanted if n not in found]
    problems += [f"{n}: not of this student" for n in found if n not in wanted]
    problems += [
        f"{n}: {tuple(found[n].shape)} there, {tuple(value.shape)} here"
        for n, value in wanted.items()
        if n in found and found[n].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UsageError(
            f"init {path}: another student: {'; '.join(problems[:4])}{more}; "
            "correct student and teachers, or set student.init_parts: encoder"
        )
    for name, value in wanted.items():
        value.copy_(found[name])
    if student.ema is not None:
        student.ema = Ema(dict(student._averaged()), student.ema.decay)


def resampled(table: Tensor, entries: int) -> Tensor:
    """A position table (1, 1 + M², C) for another square grid, (1, entries, C); the class entry stays."""
    side, wanted = math.isqrt(table.shape[1] - 1), math.isqrt(entries - 1)
    if table.shape[1] == entries or side**2 != table.shape[1] - 1 or wanted**2 != entries - 1:
        return table
    patches = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(wanted, wanted), mode="bicubic")
    return torch.cat([table[:, :1].float(), patches.flatten(2).transpose(1, 2)], 1)


def _vit(config: VitConfig) -> tuple[nn.Module, StudentShape, int]:
    if config.width % config.heads:
        raise UsageError(f"student: width {config.width} is not a multiple of heads {config.heads}")
    encoder = build_empty(lambda: VisionTransformer(config))
    return encoder, StudentShape(config.width, config.depth, config.heads), config.patch


def _timm(name: str) -> tuple[nn.Module, StudentShape, int]:
    # timm takes a second to import.
    from dune_bench.encoders.timm import create

    network: Any = create(name, None, f"student {name}")
    blocks: Any = getattr(network, "blocks", ())
    heads = getattr(getattr(blocks[0], "attn", None), "num_heads", None) if len(blocks) else None
    if heads is None or getattr(network, "cls_token", None) is None:
        examples = did_you_mean("", ("vit_small_patch14_dinov2", "vit_base_patch16_224"))
        raise UsageError(f"student: timm's {name} is no ViT with a class token{examples}")
    patch = int(network.patch_embed.patch_size[0])
    return network, StudentShape(int(network.embed_dim), len(blocks), int(heads)), patch


def _input_statistics(encoder: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    config = getattr(encoder, "pretrained_cfg", None)
    return (IMAGENET_MEAN, IMAGENET_STD) if config is None else (config["mean"], config["std"])


def _split(tokens: Tensor) -> Tokens:
    return Tokens(tokens[:, 1:], tokens[:, 0])
