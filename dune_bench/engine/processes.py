"""The processes that train together: one, or those that `torchrun` started."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among all.  device: the one it trains on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, in place; every process calls it."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """One value per process, on each of them; every process calls it."""
        if self.world == 1:
            return [value]
        values: list[T | None] = [None] * self.world
        dist.all_gather_object(values, value)
        return cast(list[T], values)

    def from_first(self, value: T) -> T:
        """The first process's value; every process calls it."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


def join(device: torch.device) -> Processes:
    """Joins the processes that `torchrun` started (gloo on the CPU, nccl on GPUs); alone without it.

    The group stays until the interpreter ends, so that a program may train more than once.
    """
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    if not dist.is_initialized():
        return Processes(0, 1, device)
    if device == torch.device("cuda"):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return Processes(dist.get_rank(), dist.get_world_size(), device)
