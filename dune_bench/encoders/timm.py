"""Any model of timm: `timm:NAME`, or a card that names one.

The network, its position rule and its weights' conversion are timm's own.  Off the native size that
is not what DINOv2's authors run; cards of DINOv2 therefore name a `position` rule and get our ViT
(`dinov2.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.encoders.adapter import Adapter, parse_arch, reinitialise, untouched_rng
from dune_bench.encoders.base import Encoder, Tokens, ViewSpec, parse_view
from dune_bench.encoders.checkpoint import State
from dune_bench.encoders.dinov2 import from_timm_name
from dune_bench.encoders.vit import PositionRule
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import Card, EncoderCard, WeightSource
from dune_bench.registry.suggest import did_you_mean


class TimmArch(Card):
    """name: timm's, with or without tag.  position: rule of our own ViT instead of timm's model
    (DINOv2 only).  stride: pixels per token of a CNN's grid (default: its last stage's)."""

    name: str
    position: PositionRule | None = None
    stride: int | None = None


class TimmEncoder(Adapter):
    """Views of a timm model.

    norm: the output of its `forward_features`, whatever it ends in.  layer:N: output of the N-th block
    (transformers) or stage (CNNs), un-normed; raw: of the last one.  CNN maps of another stride than
    `patch_size` are brought to its grid: finer ones by the mean, coarser ones bilinearly.
    cls: the first prefix token if the model has a class token, else None.
    """

    adapter = "timm@1"

    def __init__(self, id: str, name: str, network: nn.Module, stride: int | None = None) -> None:
        stages: list[dict[str, Any]] = list(getattr(network, "feature_info", ()))
        if not stages or not hasattr(network, "forward_intermediates"):
            raise UsageError(f"encoder {id}: timm's {name} does not give intermediate features")
        self.id, self.module, self.network = id, network.eval(), network
        self.depth = len(stages)
        self.dim = int(getattr(network, "num_features", stages[-1]["num_chs"]))
        self.patch_size = stride or int(stages[-1]["reduction"])
        config: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.prefix = int(getattr(network, "num_prefix_tokens", 0))
        self.has_cls = getattr(network, "cls_token", None) is not None and self.prefix > 0
        self.options = {"timm": name}

    @classmethod
    def sources(cls, card: EncoderCard) -> tuple[WeightSource, ...]:
        """The card's, or timm's own for a bare `timm:NAME`."""
        return card.weights or (hub_source(parse_arch(card, TimmArch).name),)

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None, seed: int = 0) -> Encoder:
        arch = parse_arch(card, TimmArch)
        if arch.position is not None:
            return from_timm_name(card.id, arch.name, arch.position, state)
        network = create(arch.name, state, f"weights of encoder {card.id}")
        if state is None:
            reinitialise(network, seed)
        return cls(card.id, arch.name, network, arch.stride)

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        specs = {view: parse_view(view) for view in views}
        layers = sorted({n for spec in specs.values() for n in spec.layers or (self.depth,)})
        final, inner = self.network.forward_intermediates(  # type: ignore[operator]
            normalised,
            indices=[n - 1 for n in layers],
            **({"return_prefix_tokens": True} if self.prefix else {}),
        )
        grid = (normalised.shape[-2] // self.patch_size, normalised.shape[-1] // self.patch_size)
        outputs = {n: self._intermediate(x, grid) for n, x in zip(layers, inner, strict=True)}
        outputs[0] = self._final(final, grid)
        return {view: _joined([outputs[n] for n in self._numbers(spec)]) for view, spec in specs.items()}

    def _numbers(self, spec: ViewSpec) -> tuple[int, ...]:
        """Outputs that make up a view; 0 stands for `forward_features`."""
        return (0,) if spec.kind == "norm" else spec.layers or (self.depth,)

    def _intermediate(self, output: Tensor | tuple[Tensor, Tensor], grid: tuple[int, int]) -> Tokens:
        patch, prefix = output if isinstance(output, tuple) else (output, None)
        cls = prefix[:, 0] if prefix is not None and self.has_cls else None
        return to_grid(patch, grid), cls

    def _final(self, output: Tensor, grid: tuple[int, int]) -> Tokens:
        if output.ndim == 3:
            patch = output[:, self.prefix :].transpose(1, 2).reshape(output.shape[0], -1, *grid)
            return patch, output[:, 0] if self.has_cls else None
        if output.ndim != 4:
            raise TaskError(f"encoder {self.id}: forward_features gives shape {tuple(output.shape)}, no map")
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            output = output.permute(0, 3, 1, 2)
        return to_grid(output, grid), None


def require_known(name: str) -> None:
    """Raises UsageError with the nearest names unless timm has this model."""
    known = set(timm.list_models()) | set(timm.list_pretrained())
    if name not in known:
        raise UsageError(f"timm has no model {name!r}{did_you_mean(name, known)}")


def create(name: str, state: State | None, where: str) -> nn.Module:
    """timm's model for any input size if it can, with the tensors of a released file or without.

    A state goes through timm's own conversion for that model and must fit exactly.
    Raises UsageError for an unknown name, TaskError for tensors of another architecture.
    """
    require_known(name)
    options: dict[str, Any] = {"pretrained": state is not None}
    if state is not None:
        # The conversion takes entries out of the dict it is given.
        options["pretrained_cfg_overlay"] = {"state_dict": dict(state), "custom_load": False}
    try:
        network = _constructed(name, options)
    except (RuntimeError, KeyError, IndexError, ValueError, AssertionError) as error:
        if state is None:
            raise
        reason = " ".join(str(error).split())[:200]
        raise TaskError(f"{where}: another architecture than timm's {name}: {reason}") from error
    network.pretrained_cfg.pop("state_dict", None)  # type: ignore[operator, union-attr]
    return network


def _constructed(name: str, options: dict[str, Any]) -> nn.Module:
    with untouched_rng():
        try:
            network: nn.Module = timm.create_model(name, dynamic_img_size=True, **options)
        except TypeError as error:
            # Fully convolutional and some window models do not know the option.
            if "dynamic_img_size" not in str(error):
                raise
            network = timm.create_model(name, **options)
    return network


def hub_source(name: str) -> WeightSource:
    """Where timm's model `name` has its weights, from timm's own table.  Raises UsageError if none."""
    require_known(name)
    config = timm.get_pretrained_cfg(name)
    licence = (config.license if config else None) or "not stated by timm"
    if config is not None and config.hf_hub_id:
        repository = config.hf_hub_id + (name if config.hf_hub_id == "timm/" else "")
        file = config.hf_hub_filename or "model.safetensors"
        return WeightSource(hub=f"{repository}:{file}", licence=licence)
    if config is not None and isinstance(config.url, str):
        return WeightSource(url=config.url, licence=licence)
    raise UsageError(f"timm has no pretrained weights for {name!r}: use --weights random or --weights PATH")


def to_grid(patch: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map (B, C, h', w') at another stride brought to the token grid."""
    if patch.shape[-2:] == grid:
        return patch
    if patch.shape[-2] >= grid[0] and patch.shape[-1] >= grid[1]:
        return F.adaptive_avg_pool2d(patch, grid)
    return F.interpolate(patch, size=grid, mode="bilinear")


def _joined(tokens: list[Tokens]) -> Tokens:
    classes = [cls for _, cls in tokens if cls is not None]
    cls = torch.cat(classes, 1) if len(classes) == len(tokens) else None
    return torch.cat([patch for patch, _ in tokens], 1), cls
