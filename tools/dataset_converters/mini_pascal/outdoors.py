"""Three places in the open: a street, a meadow and a shore."""

from __future__ import annotations

import numpy as np

from .animals import animal
from .backdrop import add_fence, add_hills, building, fly_past, plane, tree
from .furniture import plant
from .model import Model
from .stage import Plan, Stage
from .textures import Material, palette, pick
from .vehicles import boat, bus, car

GREENS = palette('#5c852e #708f38 #858a3d')
WATERS = palette('#296185 #247080 #385c80')
HERD = {'horse': (0.32, 2, 3.8), 'sheep': (0.28, 4, 2.6), 'cow': (0.30, 2, 3.6), 'dog': (0.10, 1, 2.1)}


def street(stage: Stage, plan: Plan) -> None:
    """A road across the view with pavements, houses and trees behind; cars or a bus on it, people in front.

    The set's origin is the middle of the road.
    """
    rng = stage.rng
    curb = -0.10
    asphalt = Material((0.30, 0.31, 0.33), 'lanes', (0.92, 0.92, 0.88), gloss=0.03)
    paving = Material((0.66, 0.64, 0.61), 'checker', (0.60, 0.58, 0.56), scale=0.6)
    stage.models.append(plane('road', (0, 1, 0), (0, curb, -stage.pivot), asphalt, stage.yaw))
    for z in (9.7, -9.7):
        walk = Model('sidewalk')
        walk.block((0, -0.15, 0), (160, 0.3, 12), paving)
        stage.add_set(walk, 0, z)
    x = -22.0
    while x < 22:
        width = rng.uniform(5, 9)
        if rng.random() < 0.85:
            stage.add_set(building(rng, width), x + width / 2, -rng.uniform(7.2, 8.5))
        x += width + rng.uniform(0.0, 1.5)
    for _ in range(rng.integers(1, 4)):
        stage.add_set(tree(rng), rng.uniform(-8, 8), -rng.uniform(4.6, 6.0))
    if plan.empty:
        return

    def along() -> float:
        return float(rng.choice([0, 180])) + rng.uniform(-5, 5)

    if rng.random() < 0.45:
        stage.try_place(bus(rng), stage.in_set((-3.5, 3.5), (-1.9, -1.7), along), inside=0.6, y=curb)
    for _ in range(rng.integers(1, 3)):
        lane = (1.7, 2.1) if rng.random() < 0.7 else (-2.0, -1.7)
        stage.try_place(car(rng), stage.in_set((-4.5, 4.5), lane, along), inside=0.55, hide=0.5, y=curb)
    add_dog(stage, 0.25)
    if rng.random() < 0.25:
        stage.try_place(plant(rng, 1.35), stage.in_view(2.6, 4.5, stage.turns(0, 360)), hide=0.3)
    stage.add_people(plan.people)
    fly_past(stage, 0.2)


def meadow(stage: Stage, plan: Plan) -> None:
    """Grass with hills, trees and a fence; animals and people on it, sometimes an aeroplane above."""
    rng = stage.rng
    green = pick(rng, GREENS, 0.03)
    dark = (0.72 * green[0], 0.80 * green[1], 0.70 * green[2])
    grass = Material(green, 'grass', dark, gloss=0.0, bump=(0.5, 0.06))
    stage.models.append(plane('grass', (0, 1, 0), (0, 0, 0), grass, stage.yaw))
    add_hills(stage)
    for _ in range(rng.integers(3, 8)):
        depth = rng.uniform(13, 34)
        x = rng.uniform(-1.2, 1.2) * stage.half_width * depth
        stage.add(tree(rng), x, -depth, rng.uniform(0, 360), rng.uniform(0.8, 1.2))
    if rng.random() < 0.45:
        add_fence(stage)
    if plan.empty:
        if rng.random() < 0.4:
            stage.add(animal('sheep', rng), rng.uniform(-4, 4), -rng.uniform(24, 32), rng.uniform(0, 360))
        return
    kinds = 1 if rng.random() < 0.4 else 2
    for kind in rng.choice(list(HERD), kinds, replace=False, p=[row[0] for row in HERD.values()]):
        _, most, near = HERD[kind]
        for _ in range(rng.integers(1, most + 1)):
            spots = stage.in_view(near, near * 2.2, stage.turns(30, 120, mirrored=True))
            stage.try_place(animal(str(kind), rng), spots, hide=0.4)
    stage.add_people(plan.people)
    fly_past(stage, 0.35)


def shore(stage: Stage, plan: Plan) -> None:
    """A sandy shore that falls to water with boats, hills behind; people and a dog on the sand."""
    rng = stage.rng
    fall, shoreline = 0.035, rng.uniform(5.5, 7.5)
    level = -fall * shoreline
    sand = Material((0.86, 0.76, 0.58), 'gravel', (0.78, 0.67, 0.49), gloss=0.0)
    swell = (0.34, 0.60, 0.68)
    water = Material(pick(rng, WATERS, 0.02), 'ripples', swell, gloss=0.25, mirror=0.6, bump=(0.12, 0.35))
    stage.models.append(plane('sand', np.array([0, 1, -fall]) / np.hypot(1, fall), (0, 0, 0), sand))
    stage.models.append(plane('water', (0, 1, 0), (0, level, 0), water))
    add_hills(stage)
    if plan.empty:
        if rng.random() < 0.4:
            stage.add(boat(rng), rng.uniform(-8, 8), -rng.uniform(45, 55), rng.uniform(0, 360), y=level)
        return
    for _ in range(rng.integers(1, 4)):
        spots = stage.in_view(shoreline + 3, shoreline + 9, stage.turns(40, 130, mirrored=True))
        stage.try_place(boat(rng), spots, inside=0.7, hide=0.4, y=level)
    stage.ground_slope = fall
    add_dog(stage, 0.3)
    stage.add_people(plan.people)
    fly_past(stage, 0.15)


def add_dog(stage: Stage, chance: float) -> None:
    """Places a dog near the camera, with this probability."""
    if stage.rng.random() < chance:
        spots = stage.in_view(2.3, 4.0, stage.turns(-120, 120))
        stage.try_place(animal('dog', stage.rng), spots, hide=0.3)
