"""A user's module as an encoder (`Encoder.from_module`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dune_bench.encoders.base import Encoder, Tokens
from dune_bench.encoders.checkpoint import tensor_digest
from dune_bench.errors import TaskError, UsageError

Network = nn.Module | Callable[[Tensor], Tensor | Tokens]


class ModuleEncoder(Encoder):
    """Wraps a module or function; see `Encoder.from_module`.  A module is put into eval mode.

    Features are cached only if `fingerprint` names the weights; for a module the digest of its
    tensors is joined to it, so that trained-on weights never meet the features of older ones.
    """

    adapter = "module@1"
    weights = "module"

    def __init__(
        self,
        network: Network,
        patch_size: int,
        *,
        id: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        fingerprint: str | None,
    ) -> None:
        if not callable(network):
            raise UsageError(f"encoder {id}: {type(network).__name__} is not a module or function")
        if patch_size < 1:
            raise UsageError(f"encoder {id}: patch_size must be at least 1, got {patch_size}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UsageError(f"encoder {id}: mean and std are three numbers each, std above 0")
        self.id, self.patch_size, self.depth = id, patch_size, 0
        self.mean, self.std = mean, std
        self.network = network
        if isinstance(network, nn.Module):
            self.module = network.eval()
        self._dim: int | None = None
        if fingerprint is not None:
            self.weights_digest = self.joined_digest(fingerprint)

    def joined_digest(self, fingerprint: str) -> str:
        """sha256 (hex) of the caller's fingerprint and the module's tensors, if it is one."""
        tensors = "" if self.module is None else tensor_digest(self.module.state_dict())
        return hashlib.sha256(f"{fingerprint}\0{tensors}".encode()).hexdigest()

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Channels; asks the network once, with a black image of 4 by 4 patches, if it has not run."""
        if self._dim is None:
            side = 4 * self.patch_size
            self._dim = self.encode(torch.zeros(1, 3, side, side))["norm"].patch.shape[1]
        return self._dim

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        output = self.network(normalised)
        grid = (normalised.shape[-2] // self.patch_size, normalised.shape[-1] // self.patch_size)
        if isinstance(output, Tensor):
            tokens: Tokens = (self._patch_map(output, grid), None)
        elif isinstance(output, (tuple, list)) and len(output) == 2 and isinstance(output[0], Tensor):
            tokens = (self._patch_map(output[0], grid), output[1])
        else:
            raise TaskError(
                f"encoder {self.id}: the module returned {type(output).__name__}, expected a tensor "
                "(B, C, h, w) or (B, h·w, C), or a pair of that and the class token (B, C)"
            )
        self._dim = tokens[0].shape[1]
        return dict.fromkeys(views, tokens)

    def _patch_map(self, output: Tensor, grid: tuple[int, int]) -> Tensor:
        if output.ndim == 4:
            return output
        if output.ndim == 3 and output.shape[1] == grid[0] * grid[1]:
            return output.transpose(1, 2).reshape(len(output), -1, *grid)
        raise TaskError(
            f"encoder {self.id}: the module returned shape {tuple(output.shape)}, expected (B, C, {grid[0]}, "
            f"{grid[1]}) or (B, {grid[0] * grid[1]}, C) without class and register tokens: "
            f"check patch_size ({self.patch_size})"
        )
