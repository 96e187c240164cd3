"""What a panel shows, and what it leaves: pictures and scenes, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from dune_bench.data.samples import Sample
from dune_bench.errors import UnavailableError
from dune_bench.report.format import number


@dataclass(frozen=True)
class Value:
    """A metric of this sample alone.  value is NaN where one sample does not define it."""

    id: str
    value: float
    unit: str


@dataclass(frozen=True)
class Shown:
    """One sample with what a probe predicted for it.

    prediction: as the probe's `predict` yields it.  probe: the probe that made it, for predictions that
    only it can decode.  encoder, task: as reports print them, with brands and overrides.  place: where
    the sample stands among the others, such as `worst of 60`, or empty.  values: its metrics, the
    primary one first.  classes: names of labels.  truth: False for a photograph, whose sample has none.
    notes: what the reader must know, such as an assumed field of view.
    """

    sample: Sample
    prediction: Any
    probe: Any
    encoder: str
    task: str
    place: str = ""
    values: tuple[Value, ...] = ()
    classes: tuple[str, ...] = ()
    truth: bool = True
    notes: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Encoder and task."""
        return f"{self.encoder}  ·  {self.task}"

    def subheading(self, most: int = 4) -> str:
        """Sample, its place and its first metrics, notes."""
        metrics = ", ".join(f"{v.id} {_with_unit(v)}" for v in self.values[:most])
        return "  ·  ".join(part for part in (self.sample.id, self.place, metrics, *self.notes) if part)


def _with_unit(value: Value) -> str:
    undefined = value.value != value.value
    text = number(None if undefined else value.value, value.unit)
    return text if value.unit == "1" or undefined else f"{text} {value.unit}"


@dataclass(frozen=True)
class Panel:
    """png: the picture.  scenes: further files by suffix, such as `predicted.ply`."""

    png: bytes
    scenes: Mapping[str, bytes] = field(default_factory=dict)


Draw = Callable[[Shown], Panel]
PANELS = {
    "semseg": "dune_bench.report.panels.semseg:draw",
    "depth": "dune_bench.report.panels.depth:draw",
    "correspondence": "dune_bench.report.panels.correspondence:draw",
    "recon3d": "dune_bench.report.panels.recon3d:draw",
    "reloc": "dune_bench.report.panels.reloc:draw",
    "hmr": "dune_bench.report.panels.hmr:draw",
}
"""Probe -> the function that draws its panel."""


def drawer(probe: str) -> Draw:
    """The panel of a probe.  Raises UnavailableError for a probe (of a plug-in) without one."""
    if probe not in PANELS:
        raise UnavailableError(f"probe {probe!r} has no panel: there are panels for {', '.join(PANELS)}")
    module, _, name = PANELS[probe].partition(":")
    draw: Draw = getattr(import_module(module), name)
    return draw
