"""Encoders that run on our ViT: one forward for any set of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from dune_bench.encoders.base import Encoder, Tokens, ViewSpec, parse_view
from dune_bench.encoders.vit import VisionTransformer


class VitEncoder(Encoder):
    """Views raw, norm, layer:N, layers:N,…, and proj:TEACHER for each of `projectors`: modules from the
    raw tokens [class, patches] (B, 1 + h·w, C) to (B, 1 + h·w, C')."""

    adapter = "vit@1"

    def __init__(
        self, id: str, vit: VisionTransformer, projectors: Mapping[str, nn.Module] = MappingProxyType({})
    ) -> None:
        config = vit.config
        self.projectors, self.teachers = projectors, tuple(projectors)
        self.id, self.vit, self.module = id, vit, vit.eval()
        self.patch_size, self.dim, self.depth = config.patch, config.width, config.depth
        # What the tensors do not say of the function they belong to.
        self.options = {"heads": config.heads, "position": config.position}

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        specs = {view: parse_view(view) for view in views}
        layers = {n for spec in specs.values() for n in spec.layers or (self.depth,)}
        outputs = self.vit(normalised, layers)
        patch = self.patch_size
        grid = (normalised.shape[-2] // patch, normalised.shape[-1] // patch)
        return {view: self._split(self._view(spec, outputs), grid) for view, spec in specs.items()}

    def _view(self, spec: ViewSpec, outputs: Mapping[int, Tensor]) -> Tensor:
        """Tokens [class, patches] (B, 1 + h·w, C) of one view."""
        if spec.kind == "layers":
            return torch.cat([self._bare(outputs[n]) for n in spec.layers], 2)
        raw = self._bare(outputs[self.depth])
        if spec.kind == "norm":
            return self.vit.norm(raw)  # type: ignore[no-any-return]
        return raw if spec.kind == "raw" else self.projectors[spec.teacher](raw)

    def _bare(self, tokens: Tensor) -> Tensor:
        """Without registers."""
        registers = self.vit.config.registers
        return torch.cat([tokens[:, :1], tokens[:, 1 + registers :]], 1) if registers else tokens

    def _split(self, tokens: Tensor, grid: tuple[int, int]) -> Tokens:
        patch = tokens[:, 1:].transpose(1, 2)
        return patch.reshape(*patch.shape[:2], *grid), tokens[:, 0]
