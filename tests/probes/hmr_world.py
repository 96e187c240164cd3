"""Small worlds of posed bodies: samples whose truth is known, features that tell it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import HumanSample, Person
from dune_bench.geometry.cameras import project
from dune_bench.models.body_models import COCO_KEYPOINTS, BodyModel, load_body_model
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr import HmrProbe
from dune_bench.probes.hmr_bodies import BodyRows
from dune_bench.probes.hmr_fit import truths
from dune_bench.probes.hmr_protocol import HmrRidge
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes.fake_features import FakeFeatures, image

CARD = Path(__file__).parents[2] / "tasks" / "hmr_minirooms.yaml"
SIZE = (448, 448)
K = np.array([[400.0, 0.0, 224.0], [0.0, 400.0, 224.0], [0.0, 0.0, 1.0]])
GRID = TokenGrid((24, 24), (336, 336))


@cache
def model() -> BodyModel:
    return load_body_model("anny")


@cache
def bodies() -> BodyRows:
    return BodyRows(model())


def protocol(**changes: Any) -> HmrRidge:
    return HmrRidge.model_validate({**load_card(CARD, TaskCard).protocol, **changes})


def probe(**changes: Any) -> HmrProbe:
    return HmrProbe(protocol(**changes))


def upright(x: float, z: float, yaw: float, y: float = 0.0) -> NDArray[np.float64]:
    """T_cam_body of somebody upright, pelvis at (x, y, z) metres, turned by yaw radians; at 0 the face
    looks into the camera."""
    c, s = np.cos(yaw), np.sin(yaw)
    R_cam_world = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    T = np.eye(4)
    T[:3, :3] = R_cam_world @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    T[:3, 3] = (x, y, z)
    return T


def someone(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Random shape and slightly random pose."""
    return {
        "phenotype": rng.uniform(0.3, 0.8, 6),
        "pose": rng.normal(0.0, 0.08, (len(model().joint_names), 3)),
        "root": np.zeros(3),
    }


def person(name: str, T: NDArray[np.float64], body: dict[str, NDArray[np.float64]]) -> Person:
    """That body there, wholly visible."""
    with torch.no_grad():
        output = model()({k: torch.from_numpy(v)[None].float() for k, v in body.items()})
    points = output.moved(torch.from_numpy(T).float()).keypoints[0].double().numpy()
    pixels, _ = project(K, points)
    return Person(name, body, T, pixels, points, np.ones(len(COCO_KEYPOINTS), bool), 1.0, 1.7)


def sample(
    name: str, people: Sequence[Person], group: str = "room", size: tuple[int, int] = SIZE
) -> HumanSample:
    return HumanSample(name, group, image(name, size), K, tuple(people), COCO_KEYPOINTS)


def crowd(count: int, seed: int = 0, per_image: int = 2) -> list[HumanSample]:
    """Images of people side by side, three images a room."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        people = []
        for k in range(per_image):
            x = -0.7 + 1.4 * k + rng.uniform(-0.2, 0.2)
            T = upright(x, rng.uniform(2.5, 4.0), rng.uniform(-3, 3), rng.uniform(-0.2, 0.3))
            people.append(person(f"p{i}.{k}", T, someone(rng)))
        samples.append(sample(f"i{i}", people, f"room{i // 3}"))
    return samples


def lazy(samples: Sequence[HumanSample]) -> Lazy[Any]:
    return Lazy([LazyItem(s.id, s.group, (s.image,), lambda s=s: s) for s in samples])


def telling(samples: Sequence[HumanSample], directions: int = 30, seed: int = 5) -> FakeFeatures:
    """Features that say it all: at the token of a head that counts 4, its distance, and the row of its body
    projected on the main directions of some other people's rows; noise elsewhere."""
    rng = np.random.default_rng(seed)
    others = torch.cat([t.rows for t in truths(lazy(crowd(20, 99)), GRID, bodies(), protocol())])
    mean, axes = others.mean(0), torch.linalg.svd(others - others.mean(0)).Vh[:directions]
    maps = {}
    for s, truth in zip(samples, truths(lazy(samples), GRID, bodies(), protocol()), strict=True):
        features = torch.from_numpy(rng.normal(0.0, 0.02, (2 + directions, 24, 24)))
        for i in np.flatnonzero(truth.heads.counts & truth.heads.owns):
            row, column = truth.heads.tokens[i]
            features[0, row, column] += 4.0
            features[1, row, column] += (truth.rows[i] - mean)[-1]
            features[2:, row, column] += axes @ (truth.rows[i] - mean)
        maps[s.image.id] = features.float()
    return FakeFeatures(maps, (336, 336))
