"""AdamW over named parameter groups, gradient norms and clipping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dune_bench.engine.mm import OptimWrapper
from dune_bench.engine.recipe import Recipe
from dune_bench.errors import UsageError


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of the module, by name, that share a weight decay and a factor of the learning rate."""

    names: tuple[str, ...]
    weight_decay: float
    lr_scale: float = 1.0


def default_groups(module: nn.Module, weight_decay: float) -> tuple[ParameterGroup, ...]:
    """Weight decay on trainable tensors of two and more dimensions that are no bias (PROTOCOLS §6.4)."""
    decayed: list[str] = []
    plain: list[str] = []
    for name, parameter in trainable(module).items():
        matrix = parameter.ndim >= 2 and name.rpartition(".")[2] != "bias"
        (decayed if matrix else plain).append(name)
    groups = (ParameterGroup(tuple(decayed), weight_decay), ParameterGroup(tuple(plain), 0.0))
    return tuple(group for group in groups if group.names)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that take part in the training, by name."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def adamw(module: nn.Module, groups: Sequence[ParameterGroup], recipe: Recipe) -> torch.optim.AdamW:
    """The optimiser.  Raises UsageError unless each trainable parameter is in exactly one group."""
    parameters = trainable(module)
    if not parameters:
        raise UsageError("the module has no trainable parameter")
    named = [name for group in groups for name in group.names]
    for what, names in {
        "are in no parameter group": set(parameters) - set(named),
        "are in parameter groups, but are no trainable parameters": set(named) - set(parameters),
        "are in more than one parameter group": {name for name in named if named.count(name) > 1},
    }.items():
        if names:
            raise UsageError(f"{', '.join(sorted(names)[:5])} ({len(names)} in all) {what}")
    return torch.optim.AdamW(
        [
            {
                "params": [parameters[name] for name in group.names],
                "weight_decay": group.weight_decay,
                "lr_scale": group.lr_scale,
            }
            for group in groups
        ],
        lr=recipe.lr,
        betas=recipe.betas,
        eps=recipe.eps,
        fused=True,
    )


class StepOptimizer(OptimWrapper):  # type: ignore[misc]  # mmengine has no types
    """mmengine's wrapper with bfloat16 on any device (its own wants CUDA) and clipping per tensor."""

    def __init__(self, optimizer: torch.optim.AdamW, recipe: Recipe, device: torch.device) -> None:
        super().__init__(optimizer)
        self._recipe = recipe
        self._device = device

    def set_learning_rate(self, step: int) -> float:
        """Sets the rate of step `step` and returns it (of a group with lr_scale 1)."""
        rate = self._recipe.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        return rate

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The forward pass runs in it."""
        del model
        low = self._recipe.dtype == "bfloat16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=low):
            yield

    def _gradients(self) -> list[Tensor]:
        groups = self.optimizer.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]

    def gradient_norms(self) -> Tensor:
        """Norm of each tensor's gradient, (n,), for the tensors that have one."""
        gradients = self._gradients()
        if not gradients:
            return torch.zeros(0, device=self._device)
        return torch.stack(torch._foreach_norm(gradients))

    def clip(self, norms: Tensor) -> None:
        """Shortens the gradients whose `gradient_norms` are given, as the recipe says."""
        limit = self._recipe.clip_norm
        if limit is None or not len(norms):
            return
        measured = norms if self._recipe.clip == "per_tensor" else norms.norm().expand_as(norms)
        # The small number is that of torch.nn.utils.clip_grad_norm_.
        factors = (limit / (measured + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(self._gradients(), list(factors.unbind()))


MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """AdamW's state as `moment.parameter name` -> tensor; nothing for parameters without a step yet."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in trainable(module).items()
        for moment in MOMENTS
        if parameter in optimizer.state
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Puts back what `optimizer_tensors` gave."""
    for name, parameter in trainable(module).items():
        if f"step.{name}" in tensors:
            optimizer.state[parameter] = {
                moment: tensors[f"{moment}.{name}"].to(parameter.device, copy=True) for moment in MOMENTS
            }
