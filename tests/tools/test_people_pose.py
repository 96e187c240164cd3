"""Poses and meshes of MiniRooms' people, on a toy skeleton (no body model needed)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.minirooms.people_look import linear, sample_look
from tools.minirooms.people_mesh import clash_depth, depth_inside, subdivide, vertex_normals
from tools.minirooms.people_pose import (
    Foot,
    Pose,
    about,
    ankle_position,
    lay_hand,
    leg_reach,
    pose_arm,
    pose_leg,
    reach_with_arm,
    rotation,
    turn_palm,
)

BONES: dict[str, tuple[str | None, tuple[float, float, float]]] = {
    "root": (None, (0.0, 0.0, 0.0)),
    "upperleg01.L": ("root", (0.10, 0.0, 0.0)),
    "lowerleg01.L": ("upperleg01.L", (0.13, -0.03, -0.40)),
    "foot.L": ("lowerleg01.L", (0.16, 0.0, -0.80)),
    **{f"toe{k}-1.L": ("foot.L", (0.10 + 0.02 * k, -0.13, -0.86)) for k in range(1, 6)},
    "spine01": ("root", (0.0, 0.03, 0.35)),
    "clavicle.L": ("spine01", (0.02, -0.02, 0.45)),
    "upperarm01.L": ("clavicle.L", (0.17, -0.01, 0.43)),
    "upperarm02.L": ("upperarm01.L", (0.25, -0.01, 0.34)),
    "lowerarm01.L": ("upperarm02.L", (0.34, -0.02, 0.24)),
    "lowerarm02.L": ("lowerarm01.L", (0.39, -0.09, 0.18)),
    "wrist.L": ("lowerarm02.L", (0.45, -0.17, 0.12)),
    "finger2-1.L": ("wrist.L", (0.47, -0.25, 0.08)),
    "finger3-1.L": ("wrist.L", (0.49, -0.24, 0.06)),
    "finger5-1.L": ("wrist.L", (0.50, -0.20, 0.03)),
}


def toy() -> Pose:
    names = list(BONES)
    parents = [-1 if parent is None else names.index(parent) for parent, _ in BONES.values()]
    return Pose(names, parents, np.array([head for _, head in BONES.values()]))


def flexion(pose: Pose, a: str, b: str, c: str) -> float:
    """Angle in degrees between the bones a-b and b-c as posed."""
    points = [pose.world(bone)[1] for bone in (a, b, c)]
    u, v = points[1] - points[0], points[2] - points[1]
    return float(np.degrees(np.arccos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1))))


@given(
    x=st.floats(-0.1, 0.3),
    y=st.floats(-0.45, 0.3),
    height=st.floats(0.45, 0.85),
    yaw=st.floats(-10, 30),
    heel=st.sampled_from([0.0, 12.0, 30.0]),
)
def test_foot_stands_where_it_was_put(x: float, y: float, height: float, yaw: float, heel: float) -> None:
    """Bone lengths stay, the knee bends forward only, and the ball of the foot is level with the floor."""
    pose, sole = toy(), -0.88
    pose.root_position[2] = height
    foot = Foot((x, y), yaw, heel)
    target = ankle_position(pose, "L", foot, sole)
    hip = pose.world("upperleg01.L")[1]
    if np.linalg.norm(target - hip) > leg_reach(pose, "L") * 0.999:
        return
    bend = pose_leg(pose, "L", foot, sole)
    knee, ankle, ball = (pose.world(b)[1] for b in ("lowerleg01.L", "foot.L", "toe3-1.L"))
    np.testing.assert_allclose(ankle, target, atol=1e-9)
    assert np.linalg.norm(knee - hip) == pytest.approx(
        np.linalg.norm(pose.q("lowerleg01.L") - pose.q("upperleg01.L"))
    )
    assert ball[2] == pytest.approx(-0.86 - sole, abs=1e-9)
    assert 0 <= bend < 170
    straight = hip + (ankle - hip) * ((knee - hip) @ (ankle - hip)) / ((ankle - hip) @ (ankle - hip))
    ahead = rotation("z", yaw) @ np.array([0.0, -1.0, 0.0])
    assert (knee - straight) @ ahead > -1e-6 or (ankle - hip)[2] > 0


@given(elbow=st.floats(5, 130), forward=st.floats(-15, 160), out=st.floats(0, 90), twist=st.floats(-20, 40))
def test_elbow_has_the_flexion_asked_for(elbow: float, forward: float, out: float, twist: float) -> None:
    pose = toy()
    pose_arm(pose, "L", (forward, out, twist, elbow), wrist=0.0)
    assert flexion(pose, "upperarm01.L", "lowerarm01.L", "wrist.L") == pytest.approx(elbow, abs=0.6)


def test_hanging_arm_hangs_and_raised_arm_points_forward() -> None:
    for angle, wanted in ((0.0, [0, 0, -1]), (90.0, [0, -1, 0])):
        pose = toy()
        pose_arm(pose, "L", (angle, 0.0, 0.0, 20.0), wrist=0.0)
        arm = pose.world("lowerarm01.L")[1] - pose.world("upperarm01.L")[1]
        np.testing.assert_allclose(arm / np.linalg.norm(arm), wanted, atol=0.02)


@given(st.tuples(st.floats(0.0, 0.4), st.floats(-0.4, -0.1), st.floats(0.0, 0.4)))
def test_wrist_reaches_its_target(target: tuple[float, float, float]) -> None:
    pose = toy()
    shoulder = pose.world("upperarm01.L")[1]
    lengths = [
        np.linalg.norm(pose.q("lowerarm01.L") - pose.q("upperarm01.L")),
        np.linalg.norm(pose.q("wrist.L") - pose.q("lowerarm01.L")),
    ]
    distance = np.linalg.norm(np.array(target) - shoulder) / sum(lengths)
    reach_with_arm(pose, "L", np.array(target), np.array([0.8, 0.7, -0.4]))
    if 0.36 < distance < 0.997:
        np.testing.assert_allclose(pose.world("wrist.L")[1], target, atol=1e-9)


def test_palm_and_fingers_lie_flat_on_what_is_below() -> None:
    pose = toy()
    pose_arm(pose, "L", (40.0, 5.0, 0.0, 60.0), wrist=0.0)
    turn_palm(pose, "L", np.array([0.0, 0.0, -1.0]), 0.0)
    lay_hand(pose, "L", np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    wrist, index, middle, little = (
        pose.world(b)[1] for b in ("wrist.L", "finger2-1.L", "finger3-1.L", "finger5-1.L")
    )
    assert abs((middle - wrist)[2]) < 1e-9
    # Palm down on the left hand: the index finger is on the inner side, towards -x.
    assert index[0] < little[0]


def test_chain_of_rotations_is_that_of_the_body_model() -> None:
    """Head = parent's head + G_parent (q - q_parent), by hand for two bones."""
    pose = toy()
    pose.local["root"], pose.local["upperleg01.L"] = rotation("z", 90), about(np.array([1.0, 0, 0]), 30)
    G, knee = pose.world("lowerleg01.L")
    np.testing.assert_allclose(G, rotation("z", 90) @ rotation("x", 30))
    hip = rotation("z", 90) @ pose.q("upperleg01.L")
    np.testing.assert_allclose(knee, hip + G @ (pose.q("lowerleg01.L") - pose.q("upperleg01.L")))


def sphere(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and outward triangles of a unit sphere."""
    theta, phi = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, count), np.linspace(0, 2 * np.pi, count, False), indexing="ij"
    )
    points = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    i, j = np.meshgrid(np.arange(count - 1), np.arange(count), indexing="ij")
    a, b = i * count + j, (i + 1) * count + j
    c, d = (i + 1) * count + (j + 1) % count, i * count + (j + 1) % count
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return points.reshape(-1, 3), faces


def test_point_inside_is_deep_and_point_outside_is_not() -> None:
    points, faces = sphere()
    normals = vertex_normals(points, faces)
    assert (np.einsum("vd,vd->v", normals, points) > 0.9).mean() > 0.9
    depth = depth_inside(np.array([[0.9, 0, 0], [1.2, 0, 0], [0, 0.7, 0]]), points, normals)
    assert depth[0] == pytest.approx(0.1, abs=0.03)
    assert depth[1] < 0
    assert depth[2] == pytest.approx(0.3, abs=0.05)


def test_limb_through_the_body_is_a_clash_and_one_beside_it_is_not() -> None:
    points, faces = sphere()
    for offset, clash in ((1.95, True), (2.05, False)):
        both = np.concatenate([points, points + np.array([offset, 0, 0])])
        limb = np.arange(len(both)) >= len(points)
        depth = clash_depth(both, np.concatenate([faces, faces + len(points)]), limb, ~limb, stride=1)
        assert (depth > 0.006) == clash


def test_finer_mesh_has_the_same_area_and_orientation() -> None:
    points, faces = sphere(8)
    edges, finer = subdivide(faces, len(points))
    more = np.concatenate([points, points[edges].mean(axis=1)])

    def area(v: np.ndarray, f: np.ndarray) -> np.ndarray:
        return np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]]).sum(axis=0)

    assert len(finer) == 4 * len(faces)
    np.testing.assert_allclose(area(more, finer), area(points, faces), atol=1e-12)
    whole = np.linalg.norm(np.cross(*(np.diff(points[faces], axis=1).transpose(1, 0, 2))), axis=1).sum()
    parts = np.linalg.norm(np.cross(*(np.diff(more[finer], axis=1).transpose(1, 0, 2))), axis=1).sum()
    assert parts == pytest.approx(whole)


@given(st.integers(0, 2**32), st.floats(0.2, 1.0), st.floats(0, 1))
def test_no_colour_is_blacker_or_brighter_than_a_material(seed: int, age: float, gender: float) -> None:
    look = sample_look(np.random.default_rng(seed), age, gender)
    for colour in (
        look.skin,
        look.hair,
        look.shoe,
        look.sole,
        look.sock,
        look.shirt.first,
        look.bottoms.second,
    ):
        assert ((colour > 0.005) & (colour <= 0.80)).all()
    np.testing.assert_allclose(linear(np.array([0.5])), [0.2140], atol=1e-4)
