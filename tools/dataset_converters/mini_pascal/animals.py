"""Four-legged animals, one builder for all: horse, cow, sheep and dog are rows of proportions and coats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import rotation
from .model import Model
from .textures import Material, dimmed, palette, pick, vary


@dataclass(frozen=True)
class Build:
    """Proportions as shares of the height at the withers, angles in degrees."""

    withers: tuple[float, float]  # range of the height in metres
    length: float  # shoulder to hip
    chest: float  # radius
    rump: float
    leg: float  # radius at the top
    neck: float  # length
    neck_angle: float  # over the horizontal
    neck_radius: float
    head: float  # length
    head_angle: float
    head_radius: float
    tail: float


BUILDS = {
    'horse': Build((1.4, 1.7), 0.82, 0.235, 0.215, 0.085, 0.50, 52, 0.125, 0.34, -38, 0.095, 0.42),
    'cow': Build((1.3, 1.5), 1.00, 0.285, 0.270, 0.085, 0.34, 22, 0.135, 0.33, -32, 0.115, 0.50),
    'sheep': Build((0.75, 0.95), 0.80, 0.330, 0.330, 0.065, 0.30, 38, 0.150, 0.27, -28, 0.105, 0.14),
    'dog': Build((0.5, 0.78), 0.92, 0.215, 0.170, 0.075, 0.32, 50, 0.120, 0.30, -8, 0.120, 0.45),
}
HORSE_COATS = palette('#804524 #5c301a #a86633 #33241f #d6ccbd')
DOG_COATS = palette('#cc944c #ebdbbd #423026 #995c2e')


@dataclass(frozen=True)
class Coat:
    """Materials of an animal."""

    body: Material
    face: Material
    legs: Material
    mane: Material
    hoof: Material


def coat(kind: str, rng: np.random.Generator) -> Coat:
    """Fur, wool or hide in colours that are typical of the kind."""
    offset = tuple(rng.uniform(0, 30, 3))
    dark = Material((0.13, 0.11, 0.10), gloss=0.08)
    if kind == 'sheep':
        white = vary(rng, (0.90, 0.87, 0.80), 0.03)
        wool = Material(
            white, 'curls', dimmed(white, 0.86), scale=0.05, gloss=0.0, bump=(0.5, 0.06), offset=offset
        )
        face = Material(pick(rng, [(0.16, 0.13, 0.12), (0.86, 0.78, 0.68)], 0.03))
        return Coat(wool, face, face, wool, dark)
    if kind == 'cow':
        patch = pick(rng, [(0.11, 0.10, 0.10), (0.45, 0.23, 0.12)], 0.02)
        hide = Material((0.93, 0.91, 0.87), 'spots', patch, scale=rng.uniform(0.28, 0.4), offset=offset)
        return Coat(hide, hide, Material((0.90, 0.87, 0.82)), hide, dark)
    if kind == 'horse':
        color = pick(rng, HORSE_COATS, 0.03)
        hide = Material(color, gloss=0.14, offset=offset)
        mane = Material(dimmed(color, 0.35) if rng.random() < 0.7 else (0.88, 0.82, 0.7), 'curls', scale=0.03)
        stockings = Material(dimmed(color, 0.55)) if rng.random() < 0.6 else hide
        return Coat(hide, hide, stockings, mane, dark)
    color = pick(rng, DOG_COATS, 0.03)
    pattern = 'spots' if rng.random() < 0.3 else 'curls'
    fur = Material(color, pattern, dimmed(color, 0.6), scale=0.1, offset=offset)
    light = Material(tuple(0.5 + 0.5 * c for c in color)) if rng.random() < 0.4 else fur
    return Coat(fur, light, fur, Material(dimmed(color, 0.6)), dark)


def animal(kind: str, rng: np.random.Generator) -> Model:
    """A horse, cow, sheep or dog of random looks and stance, feet on y = 0, facing +z."""
    build, c = BUILDS[kind], coat(kind, rng)
    model = Model(kind)
    # all lengths are shares of the height at the withers
    middle = 1 - 1.02 * build.chest  # height of the body's axis
    front = np.array([0, middle, build.length / 2 - build.chest / 2])
    back = np.array([0, middle - 0.01, -build.length / 2 + build.rump / 2])
    model.limb(front, back, build.chest, build.rump, c.body, 'torso')
    if kind == 'dog':
        model.limb(front, (front + back) / 2, 1.08 * build.chest, 0.8 * build.chest, c.body, 'torso')
    stride = rng.uniform(0, 20) * rng.choice([-1, 1])
    for side, s in (('l', 1), ('r', -1)):
        hip = front + (s * 0.55 * build.chest, -0.25 * build.chest, 0.02)
        swing = stride * s + rng.uniform(-4, 4)
        add_leg(model, build, c, f'{side}f', hip, build.leg, -swing, -swing + 4 + max(0, -0.8 * swing))
        hip = back + (s * 0.55 * build.rump, -0.25 * build.chest, 0.02)
        swing = -stride * s + rng.uniform(-4, 4)
        add_leg(
            model, build, c, f'{side}b', hip, 1.25 * build.leg, 8 - swing, 10 - swing + max(0, -0.8 * swing)
        )
    add_head(model, build, c, front, rng)
    add_tail(model, build, c, back, rng)
    centres, radii = model.hull()
    model.discs = [(0.0, z, 0.36) for z in (-0.35 * build.length, 0.05, 0.5 * build.length + 0.1)]
    factor = rng.uniform(*build.withers)
    return model.placed(0, 0, factor=factor, y=-factor * (centres[1] - radii).min())


def add_leg(
    model: Model, build: Build, c: Coat, name: str, hip: np.ndarray, thick: float, thigh: float, shank: float
) -> None:
    """Adds a leg whose halves lean by these angles; `name` is `lf` for left and front, and so on."""
    hoofed = model.category != 'dog'
    upper, lower, foot = ('uleg', 'lleg', 'ho') if hoofed else ('leg', 'leg', 'pa')
    thin, length = 0.52 * build.leg, hip[1] - 0.03
    knee = hip + rotation('x', thigh) @ (0, -0.52 * length, 0)
    ankle = knee + rotation('x', shank) @ (0, -0.48 * length + 0.005, 0)
    model.limb(hip, knee, thick, thin, c.body, name + upper)
    model.limb(knee, ankle, thin, 0.38 * build.leg, c.legs, name + lower)
    toe = ankle + (0, -0.012, 0.04)
    model.limb(ankle, toe, 0.45 * build.leg, 0.5 * build.leg, c.hoof if hoofed else c.legs, name + foot)


def add_head(model: Model, build: Build, c: Coat, front: np.ndarray, rng: np.random.Generator) -> None:
    """Adds neck, head, muzzle, ears, eyes, and mane or horns; a grazing animal has its head down."""
    kind, r = model.category, build.head_radius
    grazing = kind != 'dog' and rng.random() < 0.3
    turn = rotation('y', rng.uniform(-35, 35))
    rise = np.radians(-48 if grazing else build.neck_angle + rng.uniform(-10, 8))
    length = build.neck * (1.25 if grazing else 1.0)
    start = front + build.chest * np.array([0, -0.07 if grazing else 0.35, 0.35])
    forward = turn @ (0, np.sin(rise), np.cos(rise))
    poll = start + length * forward
    model.limb(start, poll, build.neck_radius, 0.72 * build.neck_radius, c.body, 'neck', flat=0.9)

    dip = np.radians(-62 if grazing else build.head_angle)
    nod, up, left = (
        turn @ (0, np.sin(dip), np.cos(dip)),
        turn @ (0, np.cos(dip), -np.sin(dip)),
        turn @ (1, 0, 0),
    )

    def at(along: float, rise: float = 0.0, out: float = 0.0) -> np.ndarray:
        """A point of the head: a share of its length from the poll, and radii up and to the left."""
        return poll + nod * build.head * along + up * r * rise + left * r * out

    dark, horn = Material((0.07, 0.06, 0.06), gloss=0.3), Material((0.86, 0.80, 0.66))
    model.limb(at(0), at(0.4), 1.05 * r, 0.9 * r, c.face, 'head', flat=0.9)
    model.limb(at(0.3), at(1), 0.78 * r, 0.56 * r, c.face, 'head', 'muzzle', flat=0.9)
    model.ball(at(1, 0.12) + nod * 0.42 * r, 0.28 * r, dark, 'head', 'nose')
    for name, s in (('l', 1), ('r', -1)):
        model.ball(at(0.38, 0.45, 0.72 * s), 0.16 * r, dark, 'head', f'{name}eye')
        ear = ('head', f'{name}ear')
        if kind == 'dog':
            model.limb(
                at(0, 0.75, 0.75 * s), at(0, -0.2, 1.1 * s), 0.34 * r, 0.42 * r, c.mane, *ear, flat=0.4
            )
        elif kind == 'horse':
            model.limb(
                at(0, 0.75, 0.5 * s), at(0, 1.75, 0.75 * s), 0.26 * r, 0.08 * r, c.face, *ear, flat=0.6
            )
        else:
            model.limb(at(0, 0.75, 0.75 * s), at(0, 0.6, 1.7 * s), 0.24 * r, 0.16 * r, c.face, *ear, flat=0.5)
        if kind == 'cow':
            model.limb(at(0, 0.9, 0.45 * s), at(0, 1.65, s), 0.17 * r, 0.06 * r, horn, 'head', f'{name}horn')
    if kind == 'horse':
        nape = np.cross(forward, left)
        for f in np.linspace(0.12, 1.0, 5):
            centre = start + forward * length * f + nape * (0.85 - 0.18 * f) * build.neck_radius
            model.ball(centre, (0.035, 0.075, 0.075), c.mane, 'neck', turn=turn)
    if kind == 'sheep':
        model.ball(at(0, 0.75) - nod * 0.2 * r, (0.75 * r, 0.6 * r, 0.8 * r), c.body, 'head')


def add_tail(model: Model, build: Build, c: Coat, back: np.ndarray, rng: np.random.Generator) -> None:
    """Adds a tail: hanging hair, a tufted rope, a stub, or a dog's flag."""
    kind, long = model.category, build.tail
    root = back + (0, 0.55 * build.rump, -0.8 * build.rump)
    sway = rng.uniform(-0.1, 0.1)
    if kind == 'horse':
        model.limb(root, root + (sway, -long, -0.14), 0.045, 0.07, c.mane, 'tail')
    elif kind == 'cow':
        tip = root + (sway, -long, -0.05)
        model.limb(root, tip, 0.025, 0.016, c.body, 'tail')
        model.ball(tip, (0.03, 0.07, 0.03), Material((0.2, 0.16, 0.14)), 'tail')
    elif kind == 'sheep':
        model.limb(root, root + (0, -long, -0.05), 0.06, 0.05, c.body, 'tail')
    else:
        model.limb(root, root + (sway, 0.8 * long, -0.5 * long), 0.05, 0.03, c.body, 'tail')
