"""The one place that imports mmengine, which is heavy (2 s beside torch) and needs OpenCV's libraries."""

from __future__ import annotations

from dune_bench.errors import UnavailableError

try:
    from mmengine.hooks import Hook
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper
    from mmengine.registry import DefaultScope
    from mmengine.runner import BaseLoop, Runner
    from mmengine.visualization import Visualizer
    from mmengine.visualization.vis_backend import (
        BaseVisBackend,
        MLflowVisBackend,
        TensorboardVisBackend,
        WandbVisBackend,
    )
except ImportError as error:
    raise UnavailableError(
        f"mmengine cannot be imported ({error}): for OpenCV without a desktop's libraries, "
        "pip install --force-reinstall --no-deps opencv-python-headless"
    ) from error

__all__ = [
    "BaseLoop",
    "BaseVisBackend",
    "DefaultScope",
    "Hook",
    "MLflowVisBackend",
    "MMDistributedDataParallel",
    "MMLogger",
    "MessageHub",
    "OptimWrapper",
    "Runner",
    "TensorboardVisBackend",
    "Visualizer",
    "WandbVisBackend",
]
