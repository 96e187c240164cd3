"""Intersections and unions by mmsegmentation's `IoUMetric`, run as a program of its own.

Usage: python mmseg_reference.py IN.npz OUT.npz.  IN: truth, prediction uint8 (n, H, W), classes ().
OUT: intersection, union float32 (n, K).  A separate process, because mmseg with mmcv-lite imports
only while a placeholder stands in for mmcv's compiled operators.
"""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch


class _NoOperators(types.ModuleType):
    """`mmcv._ext` of mmcv-lite: any operator is there to import, none to call."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> None:
            raise NotImplementedError(f"mmcv-lite has no operator {name}")

        return missing


def import_iou_metric() -> type:
    sys.modules["mmcv._ext"] = _NoOperators("mmcv._ext")
    import mmcv.ops  # noqa: F401

    del sys.modules["mmcv._ext"]
    from mmseg.evaluation.metrics import IoUMetric

    return IoUMetric


def main(source: Path, target: Path) -> None:
    warnings.simplefilter("ignore")
    iou_metric = import_iou_metric()
    data = np.load(source)
    classes = int(data["classes"])
    areas = [
        iou_metric.intersect_and_union(torch.from_numpy(p).long(), torch.from_numpy(t).long(), classes, 255)
        for t, p in zip(data["truth"], data["prediction"], strict=True)
    ]
    intersection, union = (torch.stack([a[i] for a in areas]).numpy() for i in (0, 1))
    np.savez(target, intersection=intersection, union=union)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
