"""A small made-up furniture catalogue, so that layouts are tested without the furniture package."""

from __future__ import annotations

import numpy as np

from tools.minirooms.catalogue import Model
from tools.minirooms.relief import Relief

_KINDS: tuple[tuple[str, str, tuple[float, float, float], float], ...] = (
    ("seat", "Chair", (0.45, 0.5, 0.9), 0.0),
    ("sofa", "Sofa", (1.8, 0.85, 0.8), 0.0),
    ("table", "Table", (1.3, 0.8, 0.74), 0.0),
    ("bed", "Bed", (1.4, 2.0, 0.9), 0.0),
    ("storage", "Bookcase", (0.9, 0.4, 1.2), 0.0),
    ("storage", "Upper cabinet", (0.6, 0.35, 0.7), 1.45),
    ("plant", "Plant", (0.6, 0.6, 1.1), 0.0),
    ("plant", "Cactus", (0.15, 0.15, 0.25), 0.0),
    ("lamp", "Lamp", (0.25, 0.25, 0.4), 0.0),
    ("lamp", "Pendant lamp", (0.4, 0.4, 0.6), 1.8),
    ("appliance", "Fridge", (0.7, 0.7, 1.7), 0.0),
    ("appliance", "Toaster", (0.3, 0.2, 0.2), 0.0),
    ("decoration", "Vase", (0.2, 0.2, 0.35), 0.0),
    ("opening", "Door", (0.95, 0.2, 2.05), 0.0),
    ("opening", "Double window", (1.1, 0.2, 1.2), 0.9),
)


def synthetic_models(each: int = 5) -> list[Model]:
    """`each` models of every kind, in slightly different sizes."""
    models = []
    for number in range(each):
        scale = 0.9 + 0.05 * number
        for label, name, size, elevation in _KINDS:
            sized = (size[0] * scale, size[1] * scale, size[2])
            key = f"Made#{name.replace(' ', '_').lower()}{number}"
            models.append(Model(key, name, label, "Scopia", "A. Maker", "", sized, elevation, size[2]))
    return models


def flat_relief(model: Model) -> Relief:
    """The upper surface of a plain box."""
    width, depth, height = model.size
    shape = (int(np.ceil(depth / 0.025)), int(np.ceil(width / 0.025)))
    return Relief(np.full(shape, height), width / 2, depth / 2)
