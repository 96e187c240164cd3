"""Random, plausible poses for each action, within the joints' comfortable ranges.

The numbers are degrees and fractions of the leg's length, chosen by looking at the results; a pose
with arms or legs through the body is refused later by `people_mesh`.
"""

from __future__ import annotations

import numpy as np

from tools.minirooms.people_pose import (
    ARM_STYLES,
    SIDES,
    Foot,
    Pose,
    ankle_position,
    bend_torso,
    curl_fingers,
    lay_hand,
    leg_reach,
    pose_arm,
    pose_leg,
    reach_with_arm,
    rotation,
    turn_head,
    turn_palm,
)


def _stand_on(pose: Pose, feet: dict[str, Foot], sole_z: float, stretch: float) -> None:
    """Puts the pelvis as high as both legs allow at `stretch` of their length, then poses the legs."""
    pose.root_position[2] = 0.0
    heights = []
    for side, _ in SIDES:
        ankle = ankle_position(pose, side, feet[side], sole_z)
        hip = pose.world(f"upperleg01.{side}")[1]
        level = float(np.linalg.norm((ankle - hip)[:2]))
        heights.append(ankle[2] - hip[2] + np.sqrt((leg_reach(pose, side) * stretch) ** 2 - level**2))
    pose.root_position[2] = min(heights)
    for side, _ in SIDES:
        pose_leg(pose, side, feet[side], sole_z)


# Where the palm looks, for the left side (x is mirrored for the right).
PALMS: dict[str, tuple[float, float, float]] = {
    "hang": (-1.0, 0.35, 0.0),
    "bent": (-1.0, 0.0, -0.6),
    "reach_forward": (-0.7, 0.0, -0.7),
    "reach_up": (-0.5, -1.0, 0.0),
    "reach_side": (0.0, -0.7, -0.7),
    "reach_down": (-0.7, 0.3, -0.7),
}


def _hand(pose: Pose, rng: np.random.Generator, side: str, style: str) -> None:
    x, y, z = PALMS[style]
    towards = pose.world("spine01")[0] @ np.array([x if side == "L" else -x, y, z])
    turn_palm(pose, side, towards, float(rng.uniform(-22, 22)))
    curl = rng.uniform(8, 26) + rng.uniform(-3, 6, size=5)
    curl_fingers(pose, side, [float(c) for c in curl])


def _arm(pose: Pose, rng: np.random.Generator, side: str, style: str) -> None:
    angles = [float(rng.uniform(low, high)) for low, high in ARM_STYLES[style]]
    pose_arm(pose, side, angles, wrist=float(rng.uniform(-18, 10)))
    _hand(pose, rng, side, style)


def _rest_hand_on_thigh(pose: Pose, rng: np.random.Generator, side: str) -> None:
    """The wrist above the thigh at 45-80 % of the way to the knee, elbow back and out."""
    sign = 1.0 if side == "L" else -1.0
    hip, knee = (pose.world(f"{bone}.{side}")[1] for bone in ("upperleg01", "lowerleg01"))
    up = np.cross(knee - hip, pose.world(f"upperleg01.{side}")[0] @ np.array([1.0, 0.0, 0.0]))
    up = up / np.linalg.norm(up) * np.sign(up[2])
    length = float(np.linalg.norm(knee - hip))
    wrist = hip + (knee - hip) * rng.uniform(0.40, 0.72) + up * length * rng.uniform(0.285, 0.335)
    wrist = wrist - np.array([sign * length * rng.uniform(0.0, 0.10), 0.0, 0.0])
    out = np.array([sign * rng.uniform(0.4, 0.9), 0.7, -0.4])
    reach_with_arm(pose, side, wrist, out)
    turn_palm(pose, side, -up, 0.0)
    inward = rotation("z", -sign * rng.uniform(0, 25))
    lay_hand(pose, side, inward @ (knee - hip), up)
    curl_fingers(pose, side, [float(c) for c in rng.uniform(4, 12, size=5)])


def _torso_and_head(pose: Pose, rng: np.random.Generator, lean: tuple[float, float]) -> None:
    bend_torso(pose, float(rng.uniform(*lean)), float(rng.normal(0, 3)), float(rng.normal(0, 6)))
    turn_head(
        pose,
        float(np.clip(rng.normal(5, 10), -18, 30)),
        float(np.clip(rng.normal(0, 5), -14, 14)),
        float(np.clip(rng.normal(0, 22), -55, 55)),
    )


def standing(pose: Pose, rng: np.random.Generator, sole_z: float) -> None:
    """Weight on both feet or more on one, slight contrapposto, one foot a little ahead."""
    pose.local["root"] = rotation("x", rng.uniform(-3, 4)) @ rotation("y", rng.normal(0, 1.5))
    length = leg_reach(pose, "L")
    feet = {}
    for side, sign in SIDES:
        x = sign * length * rng.uniform(0.10, 0.19)
        feet[side] = Foot((x, length * rng.uniform(-0.07, 0.07)), rng.uniform(2, 18))
    _stand_on(pose, feet, sole_z, rng.uniform(0.990, 0.9985))
    _torso_and_head(pose, rng, (-3, 6))
    for side, _ in SIDES:
        _arm(pose, rng, side, str(rng.choice(["hang", "hang", "bent"])))


def walking(pose: Pose, rng: np.random.Generator, sole_z: float) -> None:
    """Mid-stride: one foot ahead and flat, the other behind on its ball, arms counter-swinging."""
    pose.local["root"] = rotation("x", rng.uniform(-1, 4)) @ rotation("z", rng.normal(0, 3))
    length = leg_reach(pose, "L")
    step = rng.uniform(0.16, 0.30)
    front = "L" if rng.random() < 0.5 else "R"
    feet = {}
    for side, sign in SIDES:
        x = sign * length * rng.uniform(0.07, 0.13)
        if side == front:
            feet[side] = Foot((x, -length * step), rng.uniform(0, 9))
        else:
            feet[side] = Foot((x, length * step * 0.75), rng.uniform(0, 9), heel=rng.uniform(14, 34))
    _stand_on(pose, feet, sole_z, rng.uniform(0.993, 0.999))
    _torso_and_head(pose, rng, (0, 7))
    for side, _ in SIDES:
        forward = -1.0 if side == front else 1.0
        swing = forward * 150 * step * rng.uniform(0.4, 0.8)
        elbow = rng.uniform(15, 30) + max(swing, 0.0) * 0.6
        angles = (swing, rng.uniform(6, 12), rng.uniform(-5, 15), elbow)
        pose_arm(pose, side, angles, wrist=float(rng.uniform(-12, 8)))
        _hand(pose, rng, side, "hang")


def reaching(pose: Pose, rng: np.random.Generator, sole_z: float) -> None:
    """Standing, one arm stretched out to something, the torso following it."""
    pose.local["root"] = rotation("x", rng.uniform(0, 8)) @ rotation("z", rng.normal(0, 5))
    length = leg_reach(pose, "L")
    feet = {
        side: Foot(
            (sign * length * rng.uniform(0.11, 0.20), length * rng.uniform(-0.12, 0.12)), rng.uniform(2, 16)
        )
        for side, sign in SIDES
    }
    _stand_on(pose, feet, sole_z, rng.uniform(0.982, 0.997))
    style = str(rng.choice(["reach_forward", "reach_up", "reach_side", "reach_down"]))
    lean = {"reach_forward": (4, 18), "reach_up": (-6, 4), "reach_side": (-2, 6), "reach_down": (10, 30)}[
        style
    ]
    _torso_and_head(pose, rng, lean)
    active = "L" if rng.random() < 0.35 else "R"
    for side, _ in SIDES:
        _arm(pose, rng, side, style if side == active else str(rng.choice(["hang", "hang", "bent"])))


def sitting(pose: Pose, rng: np.random.Generator, sole_z: float, hip_z: float) -> float:
    """Pelvis with its hips at hip_z, thighs forward, feet flat (or on the ball) on the floor.

    Returns how far the knees lie below the hips in metres (a seat's edge bounds it).  Draws the same
    numbers whatever hip_z is, so that a caller can settle the height with a copy of the generator.
    """
    pose.local["root"] = rotation("x", -rng.uniform(2, 16))
    spread, tuck = rng.uniform(-0.02, 0.16), rng.uniform(-0.16, 0.20)
    pose.root_position[2] = 0.0
    pose.root_position[2] = hip_z - float(pose.world("upperleg01.L")[1][2])
    drops = []
    for side, sign in SIDES:
        hip, length = pose.world(f"upperleg01.{side}")[1], leg_reach(pose, side)
        jitter = rng.uniform(-0.05, 0.05, size=2)
        x = hip[0] + sign * length * (spread + jitter[0] * 0.3)
        y = hip[1] - length * (0.47 - tuck * 0.5 + jitter[1])
        yaw = rng.uniform(0, 14)
        foot = Foot((float(x), float(y)), float(yaw))
        shin = float(np.linalg.norm(pose.q(f"foot.{side}") - pose.q(f"lowerleg01.{side}")))
        if hip_z - shin - (pose.q(f"foot.{side}")[2] - sole_z) > 0.04:
            foot = Foot(foot.ankle_xy, foot.yaw, heel=float(np.clip((hip_z - shin) * 90, 10, 32)))
        pose_leg(pose, side, foot, sole_z)
        drops.append(float(hip[2] - pose.world(f"lowerleg01.{side}")[1][2]))
    _torso_and_head(pose, rng, (2, 20))
    for side, _ in SIDES:
        if rng.random() < 0.8:
            _rest_hand_on_thigh(pose, rng, side)
        else:
            _arm(pose, rng, side, "bent")
    return max(drops)
