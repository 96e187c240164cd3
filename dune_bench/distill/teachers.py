"""Teachers: registered encoders that give raw tokens at the student's token grid.

Source: PROTOCOLS §0 (tokens taught, final norms, the resize rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from dune_bench.distill.batch import Tokens
from dune_bench.encoders.base import JSON, Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry.cards import Card
from dune_bench.registry.lookup import load_registry

if TYPE_CHECKING:
    from dune_bench.registry.lookup import Registry

HOMES = {"dinov2reg_vitl14": "dinov2", "mast3r_vitl16": "mast3r", "multihmr_vitl14_672": "multihmr"}
"""Data group of each of DUNE's teachers: images like those it was trained on."""
TEACH_CLS = "dinov2"
"""Encoders whose ids begin so teach their class token, too, unless a recipe says otherwise."""

_TRIAL_GRID = 4


class TeacherSpec(Card):
    """A teacher as a recipe names it.

    name: in results, and in the student's files.  encoder: a name that `--encoder` takes (default: `name`).
    view: default is the encoder's own.  cls: whether the class token is taught, beside the patches (default:
    by DINOv2 only).  home: the data group of its own images (default: of DUNE's three teachers, theirs).
    weights: auto, random, or a path.
    """

    # A part of parameter names.
    name: str = Field(pattern=r"^[A-Za-z0-9][\w-]*$")
    encoder: str | None = None
    view: str | None = None
    cls: bool | None = None
    home: str | None = None
    weights: str = "auto"

    @property
    def source(self) -> str:
        return self.encoder or self.name

    @property
    def home_group(self) -> str | None:
        return self.home or HOMES.get(self.name)


@dataclass(frozen=True)
class Teacher:
    """An encoder that teaches.  view: which of its features.  has_cls: whether its class token is taught.
    width: channels of its tokens.  home: data group of its own images, or None."""

    name: str
    encoder: Encoder
    view: str
    has_cls: bool
    width: int
    home: str | None

    def tokens(self, images: Tensor, student_patch: int) -> Tokens:
        """Raw tokens at the student's grid, float32 on the teacher's device, without graph.

        images: (B, 3, S, S) float, RGB in [0, 1], S a multiple of `student_patch` pixels.  Returns
        patch (B, (S / student_patch)², C) row-major, and cls (B, C) if it is taught.
        Raises UsageError for other images, TaskError for features that are not finite.
        """
        features = self.encoder.encode_on_grid(images, student_patch, (self.view,))[self.view]
        return Tokens(features.patch.flatten(2).transpose(1, 2), features.cls if self.has_cls else None)

    def identity(self) -> dict[str, JSON]:
        """What moves its tokens beyond the images, JSON-able: part of what a training or a store is."""
        return {
            "encoder": self.encoder.identity(),
            "view": self.view,
            "cls": self.has_cls,
            "dtype": self.encoder.dtype,
        }


def load_teachers(
    specs: Sequence[TeacherSpec],
    *,
    device: str = "auto",
    dtype: str = "float32",
    offline: bool = False,
    cache: Path | None = None,
    registry: Registry | None = None,
) -> tuple[Teacher, ...]:
    """The teachers of a recipe in its order; see `load_teacher`.  Raises UsageError if there are none, or two
    of one name."""
    names = [spec.name for spec in specs]
    if not names:
        raise UsageError("no teachers: name at least one under teachers")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"teacher {twice[0]!r} stands twice: give one of them another name")
    options = {"device": device, "dtype": dtype}
    return tuple(
        load_teacher(spec, **options, offline=offline, cache=cache, registry=registry) for spec in specs
    )


def load_teacher(
    spec: TeacherSpec,
    *,
    device: str = "auto",
    dtype: str = "float32",
    offline: bool = False,
    cache: Path | None = None,
    registry: Registry | None = None,
) -> Teacher:
    """Loads a teacher and tries it on a small image.

    device, dtype (bfloat16: autocast), cache, offline: as of `load_encoder`.  Raises UsageError for an
    unknown encoder or view, no class token where one is to be taught, or an encoder without a patch size;
    UnavailableError if its weights are not here; TaskError for a wrong checkpoint.
    """
    registry = registry or load_registry()
    if spec.weights not in ("auto", "random") and not Path(spec.weights).expanduser().is_file():
        raise UnavailableError(f"teacher {spec.name}: weights {spec.weights}: no such file")
    card = registry.encoder(spec.source)
    encoder = load_encoder(
        card,
        weights=spec.weights,
        device=device,
        dtype=dtype,
        offline=offline,
        cache=cache,
        registry=registry,
    )
    cls = card.id.startswith(TEACH_CLS) if spec.cls is None else spec.cls
    return make_teacher(spec.name, encoder, view=spec.view, cls=cls, home=spec.home_group)


def make_teacher(
    name: str, encoder: Encoder, *, view: str | None = None, cls: bool = False, home: str | None = None
) -> Teacher:
    """A teacher from any encoder.  Raises UsageError as `load_teacher`."""
    patch = getattr(encoder, "patch_size", None)
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1:
        raise UsageError(
            f"teacher {name}: the patch size of encoder {encoder.id} is not known ({patch!r}): "
            "its tokens cannot be brought to the student's grid; set patch_size"
        )
    view = view or encoder.default_view
    side = _TRIAL_GRID * patch
    trial = encoder.encode_on_grid(torch.full((1, 3, side, side), 0.5), patch, (view,))[view]
    if cls and trial.cls is None:
        raise UsageError(
            f"teacher {name}: view {view!r} of encoder {encoder.id} has no class token to teach: "
            "write cls: false"
        )
    return Teacher(name, encoder, view, cls, int(trial.patch.shape[1]), home)
