"""One optimiser step: micro-batches forward and backward, counts shared by all processes.

The gradient is that of  Σ_terms weight · (Σ total / Σ count),  both sums over the samples of all
micro-batches of all processes: however a batch is cut, the step is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dune_bench.engine.data import MicroBatch, derived_seed
from dune_bench.engine.mm import MMDistributedDataParallel
from dune_bench.engine.optimizer import StepOptimizer, trainable
from dune_bench.engine.processes import Processes
from dune_bench.engine.record import StepClock
from dune_bench.engine.terms import LossTerm
from dune_bench.errors import TaskError


@dataclass(frozen=True)
class StepContext:
    """What a loss may use beside module and batch.

    step: from 0.  progress: share of the training that is done, in [0, 1).  generator: on the training
    device, seeded from (seed, step, process, micro-batch), so that a resumed step draws the same.
    """

    step: int
    progress: float
    generator: torch.Generator


Loss = Callable[[nn.Module, Any, StepContext], Mapping[str, LossTerm]]
"""(module, batch, context) -> terms by name.  The names are the same at every step and process; a term
that has nothing to count returns total 0 and count 0."""


@dataclass(frozen=True)
class StepData:
    """The input of one step on this process."""

    step: int
    steps: int
    seed: int
    batches: Sequence[MicroBatch]
    clock: StepClock


@dataclass(frozen=True)
class StepOutcome:
    """What a step came to; numbers of the whole global batch.

    bad: what was not finite (terms by name, or `gradient norm`); the weights are then those before the
    step.  bad_batches: micro-batches of this process in which it arose.
    """

    loss: float | None
    terms: Mapping[str, float]
    grad_norm: float | None
    bad: tuple[str, ...] = ()
    bad_batches: tuple[MicroBatch, ...] = ()


class Objective(nn.Module):
    """Module and loss as one module, which DDP can wrap and mmengine's Runner can train."""

    def __init__(self, network: nn.Module, loss: Loss, processes: Processes) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.processes = processes
        self.weights: dict[str, float] | None = None

    def forward(self, batch: Any, context: StepContext) -> tuple[list[Tensor], list[Tensor]]:
        """Totals (with graph) and counts (float64, without), in the order of `weights`."""
        terms = self.loss(self.network, batch, context)
        self._check_names(terms)
        totals = [term.total.float() for term in terms.values()]
        if torch.is_grad_enabled() and not any(total.requires_grad for total in totals):
            # Nothing to learn from here, but the other processes wait for this one's gradients.
            totals[0] = totals[0] + 0.0 * sum(p.sum() for p in trainable(self.network).values())
        counts = [
            torch.as_tensor(term.count, dtype=torch.float64, device=self.processes.device).detach()
            for term in terms.values()
        ]
        return totals, counts

    def _check_names(self, terms: Mapping[str, LossTerm]) -> None:
        weights = {name: term.weight for name, term in terms.items()}
        if self.weights is None:
            if not terms or any(list(other) != list(weights) for other in self.processes.gather(weights)):
                raise TaskError(f"the loss returns {list(weights) or 'no term'}: all processes need the same")
        elif list(weights) != list(self.weights):
            raise TaskError(f"the loss returned {list(self.weights)} before and {list(weights)} now")
        self.weights = weights

    def train_step(self, data: StepData, optim_wrapper: StepOptimizer) -> StepOutcome:
        return take_step(self, self, data, optim_wrapper)


class ParallelObjective(MMDistributedDataParallel):  # type: ignore[misc]  # mmengine has no types
    """The objective on several processes."""

    def train_step(self, data: StepData, optim_wrapper: StepOptimizer) -> StepOutcome:
        return take_step(self, self.module, data, optim_wrapper)


def take_step(
    model: nn.Module, objective: Objective, data: StepData, optimizer: StepOptimizer
) -> StepOutcome:
    """Runs the micro-batches and updates the weights, unless something is not finite.

    model: the objective or its DDP wrapper.
    """
    clock, last = data.clock, len(data.batches) - 1
    global_counts = None
    if last:
        with clock.phase("forward"):
            global_counts = _count_first(objective, data, optimizer)
    micro_totals = []
    for micro, batch in enumerate(data.batches):
        # DDP adds up the processes' gradients at the last backward pass only.
        with nullcontext() if micro == last or model is objective else model.no_sync():  # type: ignore[operator]
            with clock.phase("forward"), _context(objective, data, micro) as context:
                with optimizer.optim_context(model):
                    totals, counts = model(batch.content, context)
                if global_counts is None:
                    global_counts = objective.processes.sum(torch.stack(counts))
            with clock.phase("backward"):
                factors = _factors(objective, global_counts)
                loss = torch.stack([total * f for total, f in zip(totals, factors, strict=True)]).sum()
                loss.backward()  # type: ignore[no-untyped-call]
        micro_totals.append(torch.stack([total.detach().double() for total in totals]))
    assert global_counts is not None
    with clock.phase("optimiser"):
        return _update(objective, data, torch.stack(micro_totals), global_counts, optimizer)


def _factors(objective: Objective, counts: Tensor) -> Tensor:
    """Factor of each term's local total, (T,) float32.  DDP divides by the number of processes."""
    assert objective.weights is not None
    weights = torch.tensor(list(objective.weights.values()), dtype=torch.float64, device=counts.device)
    return torch.where(counts > 0, weights * objective.processes.world / counts, 0.0).float()


def _count_first(objective: Objective, data: StepData, optimizer: StepOptimizer) -> Tensor:
    """Global counts of several micro-batches, which the first backward pass needs already: a forward
    pass without gradient, whose traces in the buffers are wiped."""
    buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    counts = []
    with torch.no_grad():
        for micro, batch in enumerate(data.batches):
            with _context(objective, data, micro) as context, optimizer.optim_context(objective):
                counts.append(torch.stack(objective(batch.content, context)[1]))
        for buffer, before in buffers:
            buffer.copy_(before)
    return objective.processes.sum(torch.stack(counts).sum(0))


@contextmanager
def _context(objective: Objective, data: StepData, micro: int) -> Iterator[StepContext]:
    """The micro-batch's context.  Within, the global generators (dropout draws from them) are seeded
    by it too; afterwards they are as before."""
    device = objective.processes.device
    seed = derived_seed(data.seed, data.step, objective.processes.rank, micro)
    generator = torch.Generator(device).manual_seed(seed)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(derived_seed(seed, 1))
        if cuda:
            torch.cuda.manual_seed(derived_seed(seed, 1))
        yield StepContext(data.step, data.step / data.steps, generator)


def _update(
    objective: Objective,
    data: StepData,
    micro_totals: Tensor,
    counts: Tensor,
    optimizer: StepOptimizer,
) -> StepOutcome:
    """Clips and steps.  micro_totals: (M, T) of this process; counts: (T,) of all."""
    assert objective.weights is not None
    totals = objective.processes.sum(micro_totals.sum(0))
    norms = optimizer.gradient_norms()
    # One transfer from the device for all that is decided and logged.
    *both, norm = torch.cat([totals, counts, norms.norm()[None].double()]).tolist()
    values, numbers = both[: len(counts)], both[len(counts) :]
    bad = tuple(name for name, v in zip(objective.weights, values, strict=True) if not math.isfinite(v))
    if bad:
        optimizer.zero_grad()
        here = ~torch.isfinite(micro_totals).all(1)
        batches = tuple(b for b, is_bad in zip(data.batches, here.tolist(), strict=True) if is_bad)
        return StepOutcome(None, {}, None, bad, batches)
    terms = {
        name: value / number
        for name, value, number in zip(objective.weights, values, numbers, strict=True)
        if number > 0
    }
    if not terms:
        optimizer.zero_grad()
        return StepOutcome(None, {}, None)
    if not math.isfinite(norm):
        optimizer.zero_grad()
        return StepOutcome(None, terms, None, ("gradient norm",), tuple(data.batches))
    optimizer.clip(norms)
    optimizer.step()
    optimizer.zero_grad()
    loss = sum(objective.weights[name] * value for name, value in terms.items())
    return StepOutcome(loss, terms, norm)
