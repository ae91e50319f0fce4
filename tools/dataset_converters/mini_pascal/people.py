"""Articulated people: a skeleton with joint angles, round-cone limbs, clothes, hair and faces, and PASCAL-Part names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .geometry import rotation
from .model import Model
from .poses import Pose
from .textures import Color, Material, dimmed, palette, pick

SKIN = palette('#e6b596 #dea882 #c78f69 #9e6b4a #734c36 #593b2b')
HAIR = palette('#17120f #301f17 #523621 #c79e5c #853d1f #9e9994')
SHIRTS = palette('#db3d38 #2b66b2 #f2c440 #339473 #edede6 #8c529e #f28a4c #404552 #ed9ead #6bb2d4')
TROUSERS = palette('#2b3d66 #4c6e99 #333338 #8c7859 #7a2e38 #5c6b52')
SHOES = palette('#ebebeb #211f1f #734226 #bf3833')


def cloth(rng: np.random.Generator, color: Color) -> Material:
    """A shirt's material: mostly plain, else striped or chequered with white or a darker tone."""
    texture = rng.choice(['plain', 'plain', 'stripes', 'plaid'])
    other = (0.95, 0.94, 0.9) if rng.random() < 0.6 and sum(color) < 2.4 else dimmed(color, 0.55)
    return Material(color, str(texture), other, scale=rng.uniform(0.09, 0.16), gloss=0.02)


def running_on(material: Material, along: float) -> Material:
    """The material with its pattern moved by `along` metres, so that it runs on from piece to piece."""
    return replace(material, offset=(0.0, along / material.scale, 0.0))


def person(rng: np.random.Generator, pose: Pose, height: float | None = None) -> Model:
    """A person of random looks in this pose, feet on y = 0, facing +z; the left hand is at +x.

    Args:
        rng: Source of all that is random.
        pose: The joint angles.
        height: Standing height in metres. Defaults to None: a child in one case of five, else an adult.
    """
    if height is None:
        height = rng.uniform(1.1, 1.4) if rng.random() < 0.2 else rng.uniform(1.55, 1.92)
    childish = float(np.clip((1.6 - height) / 0.5, 0, 1))
    g = rng.uniform(0.9, 1.18) * (1 + 0.08 * childish)  # girth
    skin = Material(pick(rng, SKIN, 0.03), gloss=0.06)
    shirt = cloth(rng, pick(rng, SHIRTS))
    trousers = Material(pick(rng, TROUSERS, 0.04), gloss=0.02)
    shoes = Material(pick(rng, SHOES, 0.03), gloss=0.15)
    sleeve = shirt if rng.random() < 0.5 else skin
    trouser_leg = skin if rng.random() < 0.3 else trousers

    # all lengths are shares of the height, the hips at the origin
    model = Model('person')
    trunk = rotation('x', pose.lean)
    chest = trunk @ rotation('y', pose.twist)
    up = trunk @ (0, 1, 0)
    model.limb((0, 0.015, 0), 0.07 * up, 0.089 * g, 0.082 * g, trousers, 'torso', flat=0.72)
    belly, breast, shoulders = (running_on(shirt, y * height) for y in (0.07, 0.225, 0.284))
    model.limb(0.07 * up, 0.20 * up, 0.081 * g, 0.096 * g, belly, 'torso', flat=0.68)
    model.ball(0.225 * up, (0.101 * g, 0.085, 0.069 * g), breast, 'torso', turn=trunk)
    model.ball(0.284 * up, (0.112 * g, 0.032, 0.045 * g), shoulders, 'torso', turn=trunk)
    model.limb(0.28 * up, 0.36 * up, 0.034 * g, 0.029 * g, skin, 'neck')
    add_head(model, rng, skin, chest, 0.325 * up, 1 + 0.22 * childish)

    for side, s, flex, spread, bend in zip(
        'lr', (1, -1), pose.arm_flex, pose.arm_spread, pose.arm_bend, strict=True
    ):
        arm = chest @ rotation('x', -flex) @ rotation('z', s * spread)
        fore = arm @ rotation('x', -bend)
        top = 0.325 * up + chest @ (s * 0.103 * g, -0.046, 0)
        elbow = top + arm @ (0, -0.165, 0)
        wrist, knuckles, palm, tips = (
            elbow + fore @ (0, -y, z) for y, z in ((0.145, 0), (0.18, 0), (0.175, 0), (0.215, 0.005))
        )
        model.limb(top, elbow, 0.0325 * g, 0.0265 * g, shirt, f'{side}uarm')
        model.limb(elbow, wrist, 0.0255 * g, 0.0185 * g, sleeve, f'{side}larm')
        model.limb(wrist, knuckles, 0.018 * g, 0.021 * g, skin, f'{side}hand', flat=0.7)
        model.limb(palm, tips, 0.019 * g, 0.012 * g, skin, f'{side}hand', flat=0.6)

    for side, s, flex, spread, bend in zip(
        'lr', (1, -1), pose.leg_flex, pose.leg_spread, pose.leg_bend, strict=True
    ):
        leg = rotation('x', -flex) @ rotation('z', s * spread)
        shin = leg @ rotation('x', bend)
        hip = np.array([s * 0.048 * g, -0.005, 0])
        knee = hip + leg @ (0, -0.245, 0)
        ankle = knee + shin @ (0, -0.235, 0)
        model.limb(hip, knee, 0.059 * g, 0.036 * g, trousers, f'{side}uleg')
        model.limb(knee, ankle, 0.0355 * g, 0.0225 * g, trouser_leg, f'{side}lleg')
        heel, toe = (ankle + shin @ (0, -y, z) for y, z in ((0.018, -0.012), (0.024, 0.085)))
        model.limb(heel, toe, 0.026, 0.018, shoes, f'{side}foot')

    centres, radii = model.hull()
    model.discs = [(0.0, 0.0, 0.19)]
    return model.placed(0, 0, factor=height, y=-height * (centres[1] - radii).min())


def add_head(
    model: Model, rng: np.random.Generator, skin: Material, turn: np.ndarray, neck: np.ndarray, size: float
) -> None:
    """Adds skull, face and hair; all of it is `head`, and each part besides has its own name."""
    hair = Material(pick(rng, HAIR, 0.03), 'curls', (0.02, 0.02, 0.02), scale=0.02, gloss=0.12)
    dark, lips = Material((0.08, 0.06, 0.06), gloss=0.3), Material((0.70, 0.33, 0.30))
    turn = turn @ rotation('y', rng.uniform(-25, 25)) @ rotation('x', rng.uniform(-6, 10))
    centre = neck + turn @ (0, 0.085 * size, 0.008 * size)

    def ball(
        at: tuple[float, float, float], radii: tuple[float, float, float], material: Material, *parts: str
    ) -> None:
        model.ball(centre + size * turn @ at, size * np.array(radii), material, 'head', *parts, turn=turn)

    ball((0, 0, 0), (0.045, 0.062, 0.053), skin)
    for side, s in (('l', 1), ('r', -1)):
        ball((s * 0.0455, -0.004, -0.002), (0.008, 0.015, 0.010), skin, f'{side}ear')
        ball((s * 0.018, 0.006, 0.048), (0.0075, 0.0065, 0.006), dark, f'{side}eye')
        ball((s * 0.018, 0.020, 0.0475), (0.011, 0.0032, 0.005), hair, f'{side}ebrow')
    ball((0, -0.010, 0.054), (0.0075, 0.013, 0.010), skin, 'nose')
    ball((0, -0.033, 0.0455), (0.015, 0.0042, 0.006), lips, 'mouth')
    style = rng.choice(['short', 'long', 'bun', 'bald'], p=[0.50, 0.28, 0.14, 0.08])
    if style != 'bald':
        ball((0, 0.022, -0.013), (0.051, 0.054, 0.057), hair, 'hair')
    if style == 'long':
        top, tips = (centre + size * turn @ at for at in ((0, 0, -0.030), (0, -0.085, -0.034)))
        model.limb(top, tips, 0.045 * size, 0.036 * size, hair, 'head', 'hair', flat=0.55)
    elif style == 'bun':
        ball((0, 0.075, -0.035), (0.028, 0.028, 0.028), hair, 'hair')
