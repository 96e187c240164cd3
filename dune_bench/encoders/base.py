"""The encoder contract: a frozen image backbone behind one sealed call.

`Encoder.encode` does everything between pixels and features (normalise, pad, dtype, one forward for
all views, checks), so that no caller can forget a step.  An adapter implements `_forward` only.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.errors import TaskError, UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Precision = Literal["float32", "bfloat16"]
JSON = str | int | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]
Tokens = tuple[Tensor, Tensor | None]
"""What an adapter returns for a view: patch map (B, C, h, w) and class token (B, C) or None."""


@dataclass(frozen=True)
class Features:
    """Features of a batch in one view.

    patch: (B, C, h, w).  cls: (B, C) or None.  padding: pixels (left, top, right, bottom) that the
    token grid covers beyond the image at network size; upsample to the padded size, then crop.
    """

    patch: Tensor
    cls: Tensor | None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True)
class ViewSpec:
    """A parsed view.  Blocks count from 1, so `layer:12` of a 12-block ViT equals `raw`."""

    kind: Literal["raw", "norm", "layers", "proj"]
    layers: tuple[int, ...] = ()
    teacher: str = ""


def parse_view(view: str) -> ViewSpec:
    """Parses `raw`, `norm`, `layer:N`, `layers:6,8,10`, `proj:TEACHER`.  Raises UsageError."""
    if view in ("raw", "norm"):
        return ViewSpec(kind="raw" if view == "raw" else "norm")
    if match := re.fullmatch(r"layer:(\d+)|layers:(\d+(?:,\d+)+)", view):
        layers = tuple(int(n) for n in (match[1] or match[2]).split(","))
        if min(layers) >= 1:
            return ViewSpec(kind="layers", layers=layers)
    if match := re.fullmatch(r"proj:([\w.-]+)", view):
        return ViewSpec(kind="proj", teacher=match[1])
    raise UsageError(f"view {view!r} is not one of raw, norm, layer:N (N from 1), layers:N,N,…, proj:TEACHER")


def centre_padding(size: tuple[int, int], patch: int) -> tuple[int, int, int, int]:
    """Pixels (left, top, right, bottom) that bring (height, width) to multiples of `patch`.

    DINOv2's convention (PROTOCOLS §0): the smaller half goes left and top.
    """
    height, width = (-side % patch for side in size)
    return (width // 2, height // 2, width - width // 2, height - height // 2)


class Encoder(ABC):
    """A frozen encoder.

    id: name in results.  adapter: `kind@version` of the code that runs it.  weights_digest: sha256
    (hex) over the loaded tensors, which identifies it (None: not cacheable).  weights: how they
    were obtained (`released`, `random`, `file`, …).  patch_size: pixels per token.  dim: channels
    of `norm`.  depth: blocks.  teachers: names valid in `proj:TEACHER`.  options: whatever else of the
    adapter moves features (position rule, registers, ...), JSON-able; part of the feature key.
    """

    id: str
    adapter: str
    patch_size: int
    dim: int
    depth: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    teachers: tuple[str, ...] = ()
    has_norm: bool = True
    """False for backbones without a final norm (CNNs): they have no `norm` view."""
    default_view: str = "norm"
    weights_digest: str | None = None
    weights: str = "released"
    device: torch.device = torch.device("cpu")
    dtype: Precision = "float32"
    options: Mapping[str, JSON] = MappingProxyType({})
    module: nn.Module | None = None
    """The network, if it is one: `to` moves it, and its parameters are counted."""

    def to(self, device: torch.device, dtype: Precision = "float32") -> Encoder:
        """Moves the network; `encode` computes there and in that precision from now on."""
        self.device, self.dtype = device, dtype
        if self.module is not None:
            self.module.to(device)
        return self

    def identity(self) -> dict[str, JSON]:
        """What moves features beyond the image, the view and the dtype, JSON-able: part of the
        feature key.  The encoder's name is not in it; `weights_digest` None means: do not cache."""
        return {
            "weights_digest": self.weights_digest,
            "adapter": self.adapter,
            "mean": list(self.mean),
            "std": list(self.std),
            "patch_size": self.patch_size,
            "options": dict(self.options),
        }

    @abstractmethod
    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        """One forward for all `views`.  normalised: (B, 3, H, W) with H and W multiples of the patch
        size.  Returns per view the patch map (B, C, H/patch, W/patch) and class token or None."""

    def check_view(self, view: str) -> ViewSpec:
        """The parsed view, if this encoder has it.  Raises UsageError naming those it has."""
        spec = parse_view(view)
        problem = ""
        if spec.kind == "layers" and max(spec.layers) > self.depth:
            problem = f"it has {self.depth} layers"
        elif spec.kind == "proj" and spec.teacher not in self.teachers:
            problem = f"its projectors: {', '.join(self.teachers) or 'none'}"
        elif spec.kind == "norm" and not self.has_norm:
            problem = "it has no final norm: use raw or layer:N"
        if problem:
            raise UsageError(f"encoder {self.id} has no view {view!r} ({problem})")
        return spec

    @torch.inference_mode()
    def encode(self, images: Tensor, views: Sequence[str] = ("norm",)) -> dict[str, Features]:
        """Features of a batch in every asked view, from one forward.

        images: float (B, 3, H, W), RGB in [0, 1], any H and W >= 1 (padded here to multiples of the
        patch with the mean colour).  views: names, or one name.  Returned tensors are float32 on the
        encoder's device.
        Raises UsageError for wrong input or an unknown view, TaskError for non-finite features or
        features of another shape than the contract's.
        """
        _check_images(images)
        views = self._asked(views)
        padding = centre_padding((images.shape[-2], images.shape[-1]), self.patch_size)
        left, top, right, bottom = padding
        x = F.pad(self._normalised(images), (left, right, top, bottom))
        return self._features(x, views, padding)

    @torch.no_grad()
    def encode_on_grid(
        self, images: Tensor, patch: int, views: Sequence[str] = ("norm",)
    ) -> dict[str, Features]:
        """Features at the token grid of a network with another patch size: to teach that network.

        As `encode`, but if the patch sizes differ the normalised images are resized by their ratio (bicubic,
        corners aligned, not antialiased: PROTOCOLS §0), and the tensors returned may stand in a graph.
        patch: pixels of the other network's tokens; H and W are multiples of it.  Returned maps are
        (B, C, H / patch, W / patch).  Raises as `encode`, and UsageError for other H and W.
        """
        _check_images(images)
        views = self._asked(views)
        height, width = images.shape[-2:]
        if patch < 1 or height % patch or width % patch:
            raise UsageError(f"images of {height}×{width} pixels are not whole tokens of {patch} pixels")
        x = self._normalised(images)
        if patch != self.patch_size:
            size = (height // patch * self.patch_size, width // patch * self.patch_size)
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=True)
        return self._features(x, views, (0, 0, 0, 0))

    def _asked(self, views: Sequence[str]) -> tuple[str, ...]:
        views = (views,) if isinstance(views, str) else tuple(views)
        for view in views:
            self.check_view(view)
        return views

    def _normalised(self, images: Tensor) -> Tensor:
        x = images.to(self.device, torch.float32)
        mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(1, 3, 1, 1)
        return (x - mean) / std

    def _features(
        self, x: Tensor, views: tuple[str, ...], padding: tuple[int, int, int, int]
    ) -> dict[str, Features]:
        """One checked forward of normalised images, multiples of the patch size."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            tokens = self._forward(x, views)
        grid = (x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size)
        return {view: self._checked(view, tokens, (len(x), *grid), padding) for view in views}

    def _checked(
        self,
        view: str,
        tokens: Mapping[str, Tokens],
        shape: tuple[int, int, int],
        padding: tuple[int, int, int, int],
    ) -> Features:
        if view not in tokens:
            raise TaskError(f"encoder {self.id}: its adapter returned no view {view!r}")
        patch, cls = tokens[view]
        batch, h, w = shape
        if patch.ndim != 4 or (patch.shape[0], *patch.shape[2:]) != shape:
            raise TaskError(
                f"encoder {self.id}, view {view!r}: features of shape {tuple(patch.shape)}, "
                f"expected ({batch}, C, {h}, {w}): check patch_size ({self.patch_size})"
            )
        if cls is not None and cls.shape != patch.shape[:2]:
            raise TaskError(
                f"encoder {self.id}, view {view!r}: class token of shape {tuple(cls.shape)}, "
                f"expected {tuple(patch.shape[:2])}"
            )
        patch, cls = patch.float(), None if cls is None else cls.float()
        bad = (~torch.isfinite(patch)).flatten(1).any(1)
        if cls is not None:
            bad |= (~torch.isfinite(cls)).any(1)
        if bool(bad.any()):
            raise TaskError(
                f"encoder {self.id}, view {view!r}: non-finite features for {int(bad.sum())} of "
                f"{batch} images of a batch: check the weights, or try --dtype fp32"
            )
        return Features(patch, cls, padding)

    @staticmethod
    def from_module(
        module: nn.Module | Callable[[Tensor], Tensor | Tokens],
        patch_size: int,
        *,
        id: str = "module",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        fingerprint: str | None = None,
    ) -> Encoder:
        """Makes a user's module an encoder with the single view `norm`.

        module(x): x is the normalised batch (B, 3, H, W); returns the patch map (B, C, h, w), tokens
        (B, h·w, C), or a pair (either of these, class token (B, C)).  Features are cached only if
        `fingerprint` names the weights.
        """
        from dune_bench.encoders.module import ModuleEncoder

        return ModuleEncoder(module, patch_size, id=id, mean=mean, std=std, fingerprint=fingerprint)


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise UsageError(f"images must be a torch.Tensor, not {type(images).__name__}: torch.from_numpy(...)")
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < 1 or len(images) < 1:
        raise UsageError(f"images must be (B, 3, H, W) and not empty, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise UsageError(f"images must be float in [0, 1], got {images.dtype}: divide by 255")
    if not bool(torch.isfinite(images).all()):
        raise UsageError("images hold NaN or infinite values")
    low, high = images.aminmax()
    if not (float(low) >= 0.0 and float(high) <= 1.0):
        raise UsageError(
            f"images must lie in [0, 1], got [{float(low):.3g}, {float(high):.3g}]: "
            "do not normalise them, encode() does"
        )
