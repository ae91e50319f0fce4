"""Poses of people: joint angles, and the makers that draw them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Pose:
    """Joint angles in degrees; pairs are (left, right).

    `flex` swings a limb forwards, `spread` outwards, `bend` closes elbow and knee; `lean` tips the trunk forwards,
    `twist` turns the shoulders.
    """

    arm_flex: tuple[float, float] = (0.0, 0.0)
    arm_spread: tuple[float, float] = (10.0, 10.0)
    arm_bend: tuple[float, float] = (15.0, 15.0)
    leg_flex: tuple[float, float] = (0.0, 0.0)
    leg_spread: tuple[float, float] = (4.0, 4.0)
    leg_bend: tuple[float, float] = (2.0, 2.0)
    lean: float = 0.0
    twist: float = 0.0


def standing(rng: np.random.Generator) -> Pose:
    """Upright, weight on both legs."""
    return Pose(
        arm_flex=tuple(rng.uniform(-12, 18, 2)),
        arm_spread=tuple(rng.uniform(7, 20, 2)),
        arm_bend=tuple(rng.uniform(5, 40, 2)),
        leg_spread=tuple(rng.uniform(3, 9, 2)),
        leg_flex=tuple(rng.uniform(-4, 6, 2)),
    )


def walking(rng: np.random.Generator) -> Pose:
    """In mid-stride, arms against the legs; the faster, the wider."""
    speed = rng.uniform(0.6, 1.6)
    sign = rng.choice([-1, 1])
    swing, arm = 24 * speed * sign, 26 * speed * sign
    return Pose(
        arm_flex=(-arm, arm),
        arm_spread=tuple(rng.uniform(6, 14, 2)),
        arm_bend=tuple(rng.uniform(15, 30, 2) + 35 * max(speed - 0.8, 0)),
        leg_flex=(swing, -swing),
        leg_spread=(3.0, 3.0),
        leg_bend=tuple(4 + max(s, 0) * 30 * speed for s in (-sign, sign)),
        lean=4 * speed,
        twist=-7 * speed * sign,
    )


def waving(rng: np.random.Generator) -> Pose:
    """One arm up."""
    pose = standing(rng)
    angles = (
        (rng.uniform(-10, 25), pose.arm_flex),
        (rng.uniform(115, 155), pose.arm_spread),
        (rng.uniform(10, 50), pose.arm_bend),
    )
    left = rng.random() < 0.5
    pose.arm_flex, pose.arm_spread, pose.arm_bend = (
        (up, pair[1]) if left else (pair[0], up) for up, pair in angles
    )
    return pose


def cheering(rng: np.random.Generator) -> Pose:
    """Both arms up or out, legs apart."""
    pose = standing(rng)
    pose.arm_spread = tuple(np.full(2, rng.uniform(80, 155)) + rng.uniform(-8, 8, 2))
    pose.arm_bend = tuple(np.full(2, rng.uniform(5, 60)))
    pose.leg_spread = tuple(rng.uniform(6, 16, 2))
    return pose


def reaching(rng: np.random.Generator) -> Pose:
    """One arm or both stretched forwards."""
    pose = standing(rng)
    both = rng.random() < 0.4
    pose.arm_flex = (rng.uniform(55, 95), rng.uniform(55, 95) if both else pose.arm_flex[1])
    pose.arm_bend = (rng.uniform(0, 40), rng.uniform(0, 40))
    pose.lean = rng.uniform(0, 12)
    return pose


def sitting(rng: np.random.Generator) -> Pose:
    """On a seat at knee height, hands near the lap or raised a little."""
    return Pose(
        arm_flex=tuple(rng.uniform(10, 35, 2)),
        arm_spread=tuple(rng.uniform(6, 16, 2)),
        arm_bend=tuple(rng.uniform(40, 85, 2)),
        leg_flex=tuple(rng.uniform(80, 90, 2)),
        leg_spread=tuple(rng.uniform(4, 14, 2)),
        leg_bend=tuple(rng.uniform(78, 95, 2)),
        lean=rng.uniform(-8, 8),
    )


POSES = ((standing, 0.30), (walking, 0.32), (waving, 0.16), (cheering, 0.12), (reaching, 0.10))


def random_pose(rng: np.random.Generator) -> Pose:
    """One of the upright poses."""
    makers, weights = zip(*POSES, strict=True)
    return makers[rng.choice(len(makers), p=weights)](rng)
