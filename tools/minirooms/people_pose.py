"""Poses of MiniRooms' people: anatomical angles and foot contacts -> one rotation per bone.

Everything is in the body frame of anny's reference pose: metres, z up, facing -y, +x to the person's
left.  A pose is a rotation D per bone in those axes, relative to the parent ("local-ref" of anny): the
accumulated rotation of a bone is G = G_parent @ D, and its head sits at
head_parent + G_parent @ (q - q_parent), with q the heads of the reference pose.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
Action = Literal["standing", "walking", "sitting", "reaching"]
SIDES: tuple[tuple[str, float], ...] = (("L", 1.0), ("R", -1.0))
FORWARD = np.array([0.0, -1.0, 0.0])
DOWN = np.array([0.0, 0.0, -1.0])

# Degrees: (flexion forward, abduction, inward twist of the upper arm, elbow flexion).
ARM_STYLES: dict[str, tuple[tuple[float, float], ...]] = {
    "hang": ((-12, 14), (7, 18), (-10, 20), (8, 32)),
    "bent": ((0, 30), (8, 24), (-10, 35), (60, 110)),
    "reach_forward": ((60, 105), (-5, 25), (-15, 25), (5, 45)),
    "reach_up": ((115, 160), (0, 25), (-20, 20), (5, 50)),
    "reach_side": ((-5, 30), (55, 90), (-20, 20), (5, 40)),
    "reach_down": ((28, 60), (5, 20), (-10, 25), (5, 45)),
}


def rotation(axis: str, degrees: float) -> Array:
    """(3, 3) rotation about a coordinate axis."""
    return np.asarray(Rotation.from_euler(axis, degrees, degrees=True).as_matrix(), dtype=np.float64)


def about(axis: Array, degrees: float) -> Array:
    """(3, 3) rotation about any axis."""
    unit = axis / np.linalg.norm(axis)
    return np.asarray(Rotation.from_rotvec(unit * np.radians(degrees)).as_matrix(), dtype=np.float64)


def _unit(v: Array) -> Array:
    return np.asarray(v / np.linalg.norm(v), dtype=np.float64)


def _between(a: Array, b: Array) -> Array:
    """Smallest rotation that turns direction a into b (they are never opposite here)."""
    axis = np.cross(a, b)
    angle = np.degrees(np.arctan2(np.linalg.norm(axis), float(a @ b)))
    return np.eye(3) if angle < 1e-9 else about(axis, float(angle))


def _frame(direction: Array, lateral: Array) -> Array:
    """Orthonormal columns: a bone's direction, its hinge axis, their cross product."""
    u = _unit(direction)
    n = _unit(lateral - (lateral @ u) * u)
    return np.stack([u, n, np.cross(u, n)], axis=1)


@dataclass
class Pose:
    """A skeleton being posed.  heads: (B, 3) of the reference pose, metres."""

    names: Sequence[str]
    parents: Sequence[int]
    heads: Array
    local: dict[str, Array] = field(default_factory=dict)
    root_position: Array = field(default_factory=lambda: np.zeros(3))

    def index(self, bone: str) -> int:
        return self.names.index(bone)

    def q(self, bone: str) -> Array:
        return np.asarray(self.heads[self.index(bone)], dtype=np.float64)

    def world(self, bone: str) -> tuple[Array, Array]:
        """(rotation G, head position) of a bone in the pose so far."""
        chain = [self.index(bone)]
        while self.parents[chain[-1]] >= 0:
            chain.append(self.parents[chain[-1]])
        chain.reverse()
        G = self.local.get(self.names[chain[0]], np.eye(3))
        position = self.root_position.copy()
        for parent, child in itertools.pairwise(chain):
            position = position + G @ (self.heads[child] - self.heads[parent])
            G = G @ self.local.get(self.names[child], np.eye(3))
        return G, position

    def set_global(self, bone: str, G: Array) -> None:
        """Chooses the bone's rotation so that its accumulated one is G."""
        parent = self.parents[self.index(bone)]
        above = np.eye(3) if parent < 0 else self.world(self.names[parent])[0]
        self.local[bone] = above.T @ G

    def rotvecs(self) -> Array:
        """(B, 3) rotation vectors in radians."""
        matrices = np.stack([self.local.get(name, np.eye(3)) for name in self.names])
        return np.asarray(Rotation.from_matrix(matrices).as_rotvec(), dtype=np.float64)


def bend_torso(pose: Pose, pitch: float, side: float, twist: float) -> None:
    """Spreads a bend (degrees: forward, to the left, to the left) over the five spine bones."""
    for bone in ("spine05", "spine04", "spine03", "spine02", "spine01"):
        pose.local[bone] = np.asarray(
            Rotation.from_euler("xyz", [pitch / 5, side / 5, twist / 5], degrees=True).as_matrix()
        )


def turn_head(pose: Pose, pitch: float, side: float, yaw: float) -> None:
    """Spreads a turn of the head (degrees: down, to the left, to the left) over neck and head."""
    for bone in ("neck01", "neck02", "neck03", "head"):
        pose.local[bone] = np.asarray(
            Rotation.from_euler("xyz", [pitch / 4, side / 4, yaw / 4], degrees=True).as_matrix()
        )


def pose_arm(pose: Pose, side: str, angles: Sequence[float], wrist: float) -> None:
    """One arm from (flexion, abduction, inward twist, elbow flexion), in degrees relative to the chest.

    Zero of all is an arm that hangs straight down, the elbow's hinge across the body.
    """
    flexion, abduction, twist, elbow = angles
    sign = 1.0 if side == "L" else -1.0
    upper_dir, _, hinge, rest_flexion = _arm_axes(pose, side)
    swing = rotation("x", -flexion) @ rotation("y", -sign * abduction) @ _between(upper_dir, DOWN)
    # The collar bone follows a raised arm, about a third of the way beyond 50 degrees.
    raised = np.degrees(np.arccos(np.clip(float(DOWN @ (swing @ upper_dir)), -1.0, 1.0)))
    lift = max(0.0, raised - 50.0) * 0.28
    pose.local[f"clavicle.{side}"] = rotation("y", -sign * lift)
    chest = pose.world("spine01")[0]
    pose.set_global(f"upperarm01.{side}", chest @ swing @ about(upper_dir, -sign * twist / 2))
    pose.local[f"upperarm02.{side}"] = about(upper_dir, -sign * twist / 2)
    pose.local[f"lowerarm01.{side}"] = about(hinge, elbow - rest_flexion)
    pose.local[f"wrist.{side}"] = about(hinge, wrist)


def _arm_axes(pose: Pose, side: str) -> tuple[Array, Array, Array, float]:
    """(upper arm, forearm, elbow hinge) unit vectors and the elbow's flexion in the reference pose."""
    shoulder, lower, hand = (pose.q(f"{b}.{side}") for b in ("upperarm01", "lowerarm01", "wrist"))
    upper_dir, fore_dir = _unit(lower - shoulder), _unit(hand - lower)
    hinge = np.cross(upper_dir, fore_dir)
    flexion = np.degrees(np.arctan2(np.linalg.norm(hinge), float(upper_dir @ fore_dir)))
    return upper_dir, fore_dir, _unit(hinge), float(flexion)


def reach_with_arm(pose: Pose, side: str, target: Array, elbow_towards: Array) -> None:
    """Two-bone inverse kinematics: the wrist at `target`, the elbow out towards a direction.

    A target out of reach gives the straight arm towards it.
    """
    upper_dir, fore_dir, hinge, _ = _arm_axes(pose, side)
    shoulder_q, elbow_q, wrist_q = (pose.q(f"{b}.{side}") for b in ("upperarm01", "lowerarm01", "wrist"))
    upper, fore = float(np.linalg.norm(elbow_q - shoulder_q)), float(np.linalg.norm(wrist_q - elbow_q))
    shoulder = pose.world(f"upperarm01.{side}")[1]
    e = _unit(target - shoulder)
    distance = float(
        np.clip(np.linalg.norm(target - shoulder), 0.35 * (upper + fore), 0.998 * (upper + fore))
    )
    along = (distance**2 + upper**2 - fore**2) / (2 * distance)
    out = _unit(elbow_towards - (elbow_towards @ e) * e)
    elbow = shoulder + e * along + out * np.sqrt(max(upper**2 - along**2, 0.0))
    wrist = shoulder + e * distance
    n = np.cross(elbow - shoulder, wrist - elbow)
    pose.local.pop(f"upperarm02.{side}", None)
    for bone, aim, start in (
        ("upperarm01", elbow - shoulder, upper_dir),
        ("lowerarm01", wrist - elbow, fore_dir),
    ):
        pose.set_global(f"{bone}.{side}", _frame(aim, n) @ _frame(start, hinge).T)


def turn_palm(pose: Pose, side: str, towards: Array, jitter: float) -> None:
    """Turns the forearm (at most 80 degrees each way) so that the palm faces a direction, plus jitter."""
    across = pose.q(f"finger2-1.{side}") - pose.q(f"finger5-1.{side}")
    fingers = pose.q(f"finger3-1.{side}") - pose.q(f"wrist.{side}")
    palm = np.cross(across, fingers) * (-1.0 if side == "L" else 1.0)
    fore_dir = _arm_axes(pose, side)[1]
    G = pose.world(f"lowerarm01.{side}")[0]
    axis, now = G @ fore_dir, G @ palm
    a, b = now - (now @ axis) * axis, towards - (towards @ axis) * axis
    angle = np.degrees(np.arctan2(float(axis @ np.cross(a, b)), float(a @ b)))
    angle = float(np.clip(angle, -80.0, 80.0)) + jitter
    pose.local[f"lowerarm02.{side}"] = about(fore_dir, angle)


def lay_hand(pose: Pose, side: str, fingers_towards: Array, back_towards: Array) -> None:
    """Turns the wrist so that the fingers point one way and the back of the hand the other."""
    across = pose.q(f"finger2-1.{side}") - pose.q(f"finger5-1.{side}")
    fingers = pose.q(f"finger3-1.{side}") - pose.q(f"wrist.{side}")
    back = np.cross(across, fingers) * (1.0 if side == "L" else -1.0)
    pose.set_global(f"wrist.{side}", _frame(fingers_towards, back_towards) @ _frame(fingers, back).T)


def curl_fingers(pose: Pose, side: str, degrees: Sequence[float]) -> None:
    """Bends finger k (1 thumb ... 5) by degrees[k-1] at each joint towards the palm, and closes the fan."""
    across = pose.q(f"finger2-1.{side}") - pose.q(f"finger5-1.{side}")
    middle = pose.q(f"finger3-2.{side}") - pose.q(f"finger3-1.{side}")
    palm = np.cross(across, middle) * (-1.0 if side == "L" else 1.0)
    for finger in range(2, 6):
        knuckle, second, third = (pose.q(f"finger{finger}-{joint}.{side}") for joint in (1, 2, 3))
        fan = np.degrees(
            np.arctan2(_unit(palm) @ np.cross(second - knuckle, middle), (second - knuckle) @ middle)
        )
        bend = np.cross(second - knuckle, palm)
        pose.local[f"finger{finger}-1.{side}"] = about(palm, 0.6 * float(fan)) @ about(
            bend, degrees[finger - 1]
        )
        for joint, along in ((2, third - second), (3, third - second)):
            pose.local[f"finger{finger}-{joint}.{side}"] = about(np.cross(along, palm), degrees[finger - 1])
    thumb = pose.q(f"finger1-3.{side}") - pose.q(f"finger1-2.{side}")
    pose.local[f"finger1-2.{side}"] = about(np.cross(thumb, across), -degrees[0])


@dataclass(frozen=True)
class Foot:
    """Where a foot stands.  ankle_xy: metres; yaw: toes out, degrees; heel: heel raised, degrees."""

    ankle_xy: tuple[float, float]
    yaw: float
    heel: float = 0.0


def ankle_position(pose: Pose, side: str, foot: Foot, sole_z: float) -> Array:
    """The ankle's place above a floor at z=0, the foot resting on its sole or on the ball."""
    sign = 1.0 if side == "L" else -1.0
    ankle, ball = pose.q(f"foot.{side}"), pose.q(f"toe3-1.{side}")
    turn = rotation("z", sign * foot.yaw)
    flat = np.array([*foot.ankle_xy, ankle[2] - sole_z])
    pivot = flat + turn @ (ball - ankle)
    return np.asarray(pivot + turn @ rotation("x", foot.heel) @ (ankle - ball))


def leg_reach(pose: Pose, side: str) -> float:
    """Length of the straight leg from hip to ankle, metres."""
    hip, knee, ankle = (pose.q(f"{b}.{side}") for b in ("upperleg01", "lowerleg01", "foot"))
    return float(np.linalg.norm(knee - hip) + np.linalg.norm(ankle - knee))


def pose_leg(pose: Pose, side: str, foot: Foot, sole_z: float) -> float:
    """Two-bone inverse kinematics of one leg; returns the knee's flexion in degrees.

    The knee bends in the vertical plane that the foot's yaw points to.  A target out of reach gives
    the straight leg towards it: callers lower the pelvis first.
    """
    sign = 1.0 if side == "L" else -1.0
    hip_q, knee_q, ankle_q = (pose.q(f"{b}.{side}") for b in ("upperleg01", "lowerleg01", "foot"))
    thigh, shin = float(np.linalg.norm(knee_q - hip_q)), float(np.linalg.norm(ankle_q - knee_q))
    hip = pose.world(f"upperleg01.{side}")[1]
    towards = ankle_position(pose, side, foot, sole_z) - hip
    distance = float(np.clip(np.linalg.norm(towards), abs(thigh - shin) + 1e-3, (thigh + shin) * 0.9999))
    e = _unit(towards)
    lateral = rotation("z", sign * foot.yaw) @ np.array([-1.0, 0.0, 0.0])
    n = _unit(lateral - (lateral @ e) * e)
    along = (distance**2 + thigh**2 - shin**2) / (2 * distance)
    knee = hip + e * along + np.cross(n, e) * np.sqrt(max(thigh**2 - along**2, 0.0))
    ankle = hip + e * distance
    rest = np.array([-1.0, 0.0, 0.0])
    for bone, target, start in (
        ("upperleg01", knee - hip, knee_q - hip_q),
        ("lowerleg01", ankle - knee, ankle_q - knee_q),
    ):
        pose.set_global(f"{bone}.{side}", _frame(target, n) @ _frame(start, rest).T)
    turn = rotation("z", sign * foot.yaw)
    pose.set_global(f"foot.{side}", turn @ rotation("x", foot.heel))
    if foot.heel > 0:
        for toe in range(1, 6):
            pose.set_global(f"toe{toe}-1.{side}", turn @ rotation("x", foot.heel * 0.15))
    return float(np.degrees(np.arccos(np.clip(_unit(knee - hip) @ _unit(ankle - knee), -1.0, 1.0))))
