"""What every adapter of a card has in common, and the one rule of random weights."""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.checkpoint import State, read_checkpoint
from dune_bench.registry.cards import Card, EncoderCard, WeightSource, parse_card

C = TypeVar("C", bound=Card)
M = TypeVar("M", bound=nn.Module)


class Adapter(Encoder):
    """An encoder that a card declares.

    needs_weights: False for kinds that take no weights at all (pixels, random, file).
    """

    needs_weights: ClassVar[bool] = True

    @classmethod
    def sources(cls, card: EncoderCard) -> tuple[WeightSource, ...]:
        """Where the weights are to be had, in order."""
        return card.weights

    @classmethod
    def read(cls, path: Path) -> State:
        """Tensors of a weights file under the names of their source.  Raises TaskError."""
        return read_checkpoint(path)

    @classmethod
    @abstractmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> Encoder:
        """The encoder of a card, on the CPU.

        state: what `read` gave, or None for random weights (seed 0, `reinitialise`).
        Raises UsageError for a bad `arch`, TaskError for tensors of another architecture.
        """


def parse_arch(card: EncoderCard, model: type[C]) -> C:
    """The card's `arch` checked against the adapter's own model.  Raises UsageError."""
    return parse_card(dict(card.arch), model, f"encoder {card.id}, arch")


@contextmanager
def untouched_rng() -> Iterator[None]:
    """Constructors of layers draw from the global RNG; put it back as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


def build_empty(make: Callable[[], M]) -> M:
    """A module of our own without the cost of an initialisation that is overwritten anyway.

    The values are undefined until a state is loaded or `reinitialise` has run.
    """
    with torch.device("meta"):
        module = make()
    return module.to_empty(device="cpu")


@torch.no_grad()
def reinitialise(module: nn.Module, seed: int) -> None:
    """Fills a network with random weights that depend on `seed` and parameter names only.

    Per parameter of shape s, with standard normal t: position tables and tokens 0.02·t; other
    tensors of two or more dimensions t/√fan_in (linear), t·√(2/fan_in) (convolutions with a kernel;
    fan_in = prod(s[1:])); biases 0; other vectors (norm weights, LayerScale) 1, so that every block
    takes part.  Buffers keep what the constructor put there.
    """
    for name, parameter in module.named_parameters():
        leaf = name.rpartition(".")[2]
        # torch's CPU generator heeds the low 32 bits of a seed only.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        parameter.copy_(_random_values(leaf, parameter.shape, generator))


def _random_values(leaf: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if leaf.endswith(("pos_embed", "token", "tokens")):
        return 0.02 * torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        gain = 2.0 if len(shape) == 4 and shape[-1] > 1 else 1.0
        fan_in = shape[1:].numel()
        return torch.randn(shape, generator=generator) * math.sqrt(gain / fan_in)
    return torch.zeros(shape) if leaf.endswith("bias") else torch.ones(shape)
