"""Blocks of a stream on all cores: one thread per accumulator, each with single-threaded products.

Many small products in a row are slow under an OpenMP team: every operation ends in a barrier at which
a delayed core holds up the others, spinning (measured on 2 busy cores: 10 times the processor time).
Threads that own whole blocks meet only at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from dune_bench.probes.stream import Rows


class Accumulator(Protocol):
    """Takes blocks of rows one after the other."""

    def add(self, where: slice, x: Tensor) -> None: ...


@contextmanager
def own_threads(rows: Rows) -> Iterator[int]:
    """For the duration of a fit, torch uses one thread in this thread and in those born meanwhile.
    Yields how many accumulators to use instead: torch's former number of threads on a CPU, one on any
    other device."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads if rows.device.type == "cpu" else 1
    finally:
        torch.set_num_threads(threads)


def accumulate(rows: Rows, accumulators: Sequence[Accumulator]) -> None:
    """Feeds every block to an accumulator: block i to number i mod len(accumulators), in order, so that
    sums do not depend on timing.  At most one block per accumulator is in flight."""
    if len(accumulators) == 1:
        for where, x in rows.blocks():
            accumulators[0].add(where, x)
        return
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in accumulators]
        pending: deque[Future[None]] = deque()
        for index, (where, x) in enumerate(rows.blocks()):
            if len(pending) == len(pools):
                pending.popleft().result()
            target = index % len(pools)
            pending.append(pools[target].submit(accumulators[target].add, where, x))
            del x
        for future in pending:
            future.result()
