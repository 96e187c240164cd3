"""A file in SMPL-X's format with made-up numbers: the real one may not be shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *(20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38),
    *(21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53),
)


def synthetic_arrays(rng: np.random.Generator, directions: int = 20) -> dict[str, NDArray[Any]]:
    """Every array that SMPL-X files have and the `smplx` package reads, float32."""

    def normal(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def rows_to_one(rows: int, columns: int, kept: int) -> NDArray[np.float32]:
        weights = np.zeros((rows, columns), np.float32)
        for row in weights:
            row[rng.choice(columns, kept, replace=False)] = rng.random(kept)
        return weights / weights.sum(1, keepdims=True)

    kintree = np.stack([np.array(PARENTS, np.int64) % 2**32, np.arange(55)]).astype(np.uint32)
    return {
        "v_template": normal(10475, 3, scale=0.4),
        "f": rng.integers(0, 10475, (20908, 3)).astype(np.uint32),
        "shapedirs": normal(10475, 3, directions, scale=0.02),
        "posedirs": normal(10475, 3, 486, scale=0.003),
        "J_regressor": rows_to_one(55, 10475, 30),
        "weights": rows_to_one(10475, 55, 4),
        "kintree_table": kintree,
        "hands_componentsl": normal(45, 45),
        "hands_componentsr": normal(45, 45),
        "hands_meanl": normal(45),
        "hands_meanr": normal(45),
        "lmk_faces_idx": rng.integers(0, 20908, 51),
        "lmk_bary_coords": rows_to_one(51, 3, 3),
    }


def write(path: Path, arrays: dict[str, Any]) -> Path:
    """Writes an `.npz`; object arrays are pickled, as the licensed files have some."""
    np.savez(path, **arrays)
    return path
