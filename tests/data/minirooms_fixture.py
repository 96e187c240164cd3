"""Tiny, valid MiniRooms shards for tests: boxes in box-shaped rooms, ray-cast with numpy.

Depth, labels and cameras are exact, the colours go with the classes, and it takes about 10 ms a view.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dune_bench.data.minirooms.card import write_card
from dune_bench.data.minirooms.depth_codec import encode_depth

Array = NDArray[np.float64]
CLASSES = ("wall", "floor", "ceiling", "person", "seat", "table", "storage", "plant")
COLOURS = np.array(
    [
        [0.75, 0.72, 0.65],
        [0.45, 0.30, 0.18],
        [0.95, 0.95, 0.95],
        [0.85, 0.25, 0.20],
        [0.20, 0.35, 0.75],
        [0.70, 0.55, 0.15],
        [0.40, 0.20, 0.50],
        [0.15, 0.55, 0.20],
    ]
)
KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
ROOM = np.array([[-2.5, -2.0, 0.0], [2.5, 2.0, 2.6]])


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: (2, 3) corners in metres, its class, its model, whether training has it."""

    corners: Array
    label: int
    model: str
    seen: bool = True


def write_tiny_minirooms(
    root: Path,
    rooms_train: int = 4,
    rooms_test: int = 2,
    views: int = 3,
    size: int = 112,
    seed: int = 0,
    name: str = "minirooms@1",
) -> None:
    """Writes `train.zip`, `test.zip` and the card `NAME.yaml` to `root`; use with MiniRooms(NAME, root)."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, count in (("train", rooms_train), ("test", rooms_test)):
        members: dict[str, bytes] = {}
        rooms = [_room(rng, f"{split}{i:03d}", split, views, size, members) for i in range(count)]
        index = _index(name, split, seed, size, rooms)
        write_shard(root / f"{split}.zip", {"index.json": json.dumps(index).encode(), **members})
    write_card(root, root / f"{name}.yaml")


def write_tiny_people(root: Path, rooms: int = 3, views: int = 2, size: int = 112, seed: int = 1) -> None:
    """Writes `crowd/people.zip` and the card `minirooms-people@1.yaml` to `root`, beside tiny MiniRooms."""
    rng, name = np.random.default_rng(seed), "minirooms-people@1"
    members: dict[str, bytes] = {}
    found = [_room(rng, f"people{i:03d}", "train", views, size, members) for i in range(rooms)]
    index = _index(name, "people", seed, size, found) | {"depth": False}
    kept = {member: data for member, data in members.items() if not member.endswith(".depth")}
    (root / "crowd").mkdir(parents=True)
    write_shard(root / "crowd" / "people.zip", {"index.json": json.dumps(index).encode(), **kept})
    write_card(root / "crowd", root / f"{name}.yaml", "ATTRIBUTION-people.md")


def _index(name: str, split: str, seed: int, size: int, rooms: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": name,
        "split": split,
        "classes": CLASSES,
        "keypoint_names": KEYPOINTS,
        "generator_version": "fixture",
        "seed": seed,
        "image_size": [size, size],
        "rooms": rooms,
    }


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    """An uncompressed zip with fixed times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), data)


def cast(
    boxes: list[Box], K: Array, T_cam_world: Array, points: Array
) -> tuple[Array, NDArray[np.int64], Array]:
    """Rays through image points (N, 2): (z, object index, hit point in the world).

    Objects 0-2 are walls, floor and ceiling of ROOM, object 3 + i is boxes[i].
    """
    rays = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ np.linalg.inv(K).T
    R, t = T_cam_world[:3, :3], T_cam_world[:3, 3]
    origin, directions = -R.T @ t, rays @ R
    with np.errstate(divide="ignore"):
        inverse = 1.0 / directions
    exits = np.maximum((ROOM[0] - origin) * inverse, (ROOM[1] - origin) * inverse)
    z = exits.min(axis=1)
    axis = exits.argmin(axis=1)
    index = np.where(axis < 2, 0, np.where(directions[:, 2] < 0, 1, 2))
    for i, box in enumerate(boxes):
        a, b = (box.corners[0] - origin) * inverse, (box.corners[1] - origin) * inverse
        enter, leave = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
        hit = (enter < leave) & (enter > 0) & (enter < z)
        z, index = np.where(hit, enter, z), np.where(hit, 3 + i, index)
    return z, index, origin + z[:, None] * directions


def grid(size: int, image: int) -> Array:
    """(size^2, 2) centres (x, y) of a size x size grid, in pixels of an image of `image` pixels a side."""
    centres = (np.arange(size) + 0.5) * image / size
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _look_at(position: Array, target: Array) -> Array:
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, -R @ position
    return T


def _furnish(rng: np.random.Generator, split: str) -> list[Box]:
    """Four boxes along the far half of the room; one of them a person's bounds."""
    boxes = []
    labels = [3, *rng.permutation(np.arange(4, 8))[:3]]
    for label, x in zip(labels, rng.permutation([-1.8, -0.6, 0.6, 1.8]), strict=True):
        half = rng.uniform(0.18, 0.4, size=2) if label != 3 else np.array([0.22, 0.15])
        height = rng.uniform(0.5, 1.6) if label != 3 else rng.uniform(1.5, 1.9)
        y = rng.uniform(0.4, 1.4)
        corners = np.array([[x - half[0], y - half[1], 0.0], [x + half[0], y + half[1], height]])
        unseen = split == "test" and label > 3 and rng.random() < 0.5
        boxes.append(Box(corners, int(label), f"{CLASSES[label]}-{'b' if unseen else 'a'}", not unseen))
    return boxes


def _cameras(rng: np.random.Generator, views: int, size: int) -> list[tuple[Array, Array, float]]:
    cameras = []
    for view in range(views):
        spread = 0.0 if view == 0 else 0.6
        position = np.array([0.0, -1.6, 1.5]) + rng.uniform(-1, 1, size=3) * spread * np.array(
            [1.5, 0.3, 0.4]
        )
        target = np.array([0.0, 1.2, 0.8]) + rng.uniform(-1, 1, size=3) * spread * np.array([1.0, 0.3, 0.3])
        fov = float(rng.uniform(60, 75))
        focal = size / 2 / np.tan(np.radians(fov) / 2)
        K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
        cameras.append((K, _look_at(position, target), fov))
    return cameras


def _shade(
    rng: np.random.Generator, hits: Array, index: NDArray[np.int64], labels: Array, gain: float
) -> Array:
    """sRGB in [0, 1]: the class's colour, a checker in the world, a little noise."""
    checker = np.floor(hits * 4 + 1e-6).sum(axis=1) % 2
    rgb = COLOURS[labels[index].astype(int)] * (0.85 + 0.15 * checker)[:, None]
    return np.clip(rgb * gain ** (1 / 2.2) + rng.normal(0, 0.02, size=rgb.shape), 0, 1)


def _room(
    rng: np.random.Generator, room: str, split: str, views: int, size: int, members: dict[str, bytes]
) -> dict[str, Any]:
    boxes = _furnish(rng, split)
    labels = np.array([0, 1, 2, *(box.label for box in boxes)])
    body, T_world_body, joints, height = _person(rng, next(b for b in boxes if b.label == 3))
    shell = [{"index": i, "class": i, "model": CLASSES[i], "seen": True} for i in range(3)]
    things = [
        {"index": 3 + i, "class": b.label, "model": b.model, "seen": b.seen} for i, b in enumerate(boxes)
    ]
    facts: list[dict[str, Any]] = []
    cameras = _cameras(rng, views, size)
    for view, (K, T, fov) in enumerate(cameras):
        gain = float(rng.uniform(0.8, 1.2))
        _, index, hits = cast(boxes, K, T, grid(size, size))
        rgb = _shade(rng, hits, index, labels, gain).reshape(size, size, 3)
        jpeg, png = io.BytesIO(), io.BytesIO()
        Image.fromarray(np.uint8(np.rint(rgb * 255))).save(jpeg, "JPEG", quality=95, subsampling=0)
        Image.fromarray(index.reshape(size, size).astype(np.uint8)).save(png, "PNG")
        depth = cast(boxes, K, T, grid(size // 2, size))[0].reshape(size // 2, size // 2)
        members[f"{room}/{view}.jpg"] = jpeg.getvalue()
        members[f"{room}/{view}.objects.png"] = png.getvalue()
        members[f"{room}/{view}.depth"] = encode_depth(depth.astype(np.float32))
        relative = T @ np.linalg.inv(cameras[0][1])
        cosine = (np.trace(relative[:3, :3]) - 1) / 2
        facts.append(
            {
                "id": str(view),
                "K": K.tolist(),
                "T_cam_world": T.tolist(),
                "fov_deg": fov,
                "exposure": [gain, 1.0, 1.0],
                "covisible_with_reference": _covisible(boxes, cameras[0], cameras[view], size),
                "rotation_deg": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
                "baseline_m": float(np.linalg.norm(_centre(T) - _centre(cameras[0][1]))),
                "bin": "reference" if view == 0 else "narrow",
                "people": [_seen_person(boxes, K, T, size, joints, index)],
                "image_sha256": hashlib.sha256(jpeg.getvalue()).hexdigest(),
            }
        )
    person = {
        "id": "p0",
        "body": body,
        "T_world_body": T_world_body.tolist(),
        "keypoints_world": joints.tolist(),
        "height_m": height,
    }
    return {"id": room, "objects": shell + things, "people": [person], "views": facts}


def _centre(T: Array) -> Array:
    return -T[:3, :3].T @ T[:3, 3]


def _project(K: Array, T: Array, points: Array) -> tuple[Array, Array]:
    camera = points @ T[:3, :3].T + T[:3, 3]
    return (camera @ K.T)[:, :2] / camera[:, 2:], camera[:, 2]


def _covisible(
    boxes: list[Box], first: tuple[Array, Array, float], second: tuple[Array, Array, float], size: int
) -> float:
    """Share of the first view's pixels whose surface the second one sees."""
    hits = cast(boxes, first[0], first[1], grid(size // 2, size))[2]
    where, z = _project(second[0], second[1], hits)
    inside = (z > 0) & (where > 0).all(axis=1) & (where < size).all(axis=1)
    seen = cast(boxes, second[0], second[1], where)[0]
    return float((inside & (np.abs(seen - z) < 0.01)).mean())


def _person(rng: np.random.Generator, box: Box) -> tuple[dict[str, Any], Array, Array, float]:
    """Made-up body parameters, pose in the world, key points inside the box, height."""
    low, high = box.corners
    body = {
        "phenotype": rng.random(6).round(6),
        "pose": rng.normal(0, 0.1, (104, 3)).round(6),
        "root": [0, 0, 0.9],
    }
    T = np.eye(4)
    T[:3, 3] = [*((low + high)[:2] / 2), 0.0]
    joints = low + (high - low) * rng.uniform(0.1, 0.9, size=(len(KEYPOINTS), 3))
    return {k: np.asarray(v).tolist() for k, v in body.items()}, T, joints, float(high[2])


def _seen_person(
    boxes: list[Box], K: Array, T: Array, size: int, joints: Array, index: NDArray[np.int64]
) -> dict[str, Any]:
    person = next(i for i, b in enumerate(boxes) if b.label == 3)
    where, z = _project(K, T, joints)
    inside = (z > 0) & (where > 0).all(axis=1) & (where < size).all(axis=1)
    hidden = cast(boxes, K, T, where)[1] != 3 + person
    alone = cast([boxes[person]], K, T, grid(size, size))[1] == 3
    fraction = float((index == 3 + person).sum() / alone.sum()) if alone.any() else 0.0
    return {"person": "p0", "visible_fraction": fraction, "keypoint_visible": (inside & ~hidden).tolist()}
