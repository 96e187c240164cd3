"""Time of torch's dropout against ours, forward and backward on the CPU, on a batch of token maps.

    python benchmarks/dropout_speed.py [--images 32] [--repeats 15]

Prints the ratio of the medians; both are timed in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dune_bench.models.dropout import dropout

RATE = 0.3


def seconds(drop: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> float:
    began = time.perf_counter()
    drop(x).backward(gradient)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.default_generator.manual_seed(0)
    x = torch.randn(arguments.images, 24, 24, 384, requires_grad=True)
    gradient = torch.randn_like(x)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "torch": lambda x: F.dropout(x, RATE),
        "dune_bench": lambda x: dropout(x, RATE, True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, drop in ways.items():
            times[name].append(seconds(drop, x, gradient))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:10}  {1000 * median:7.1f} ms")
    print(f"torch / dune_bench: {medians['torch'] / medians['dune_bench']:.1f}")


if __name__ == "__main__":
    main()
