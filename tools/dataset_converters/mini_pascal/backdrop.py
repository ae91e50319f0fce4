"""What stands behind the objects: endless planes, daylight, trees, houses, hills, fences, and aeroplanes in the sky."""

from __future__ import annotations

import numpy as np

from .geometry import Solid, half_space, rotation
from .light import Light
from .model import Model, Piece, Surface, Vec
from .stage import Stage
from .textures import Material, dimmed, palette, pick, vary
from .vehicles import aeroplane

BARK = Material((0.36, 0.26, 0.18), 'curls', (0.25, 0.18, 0.12), scale=0.1)
LEAVES = palette('#427529 #5c852e #336633 #9e8029')
WALLS = palette('#cc9e7a #b86652 #dbccad #9ea3ad #bdb28c')


def plane(category: str, normal: Vec, point: Vec, material: Material, yaw: float = 0.0) -> Model:
    """An endless floor or wall through a point; its texture turns with `yaw`."""
    turn = rotation('y', yaw)
    solid = Solid(half_space(turn.T @ normal), np.asarray(point, float), turn, np.ones(3))
    return Model(category, [Piece(Surface(solid, material, casts=False))])


def daylight(rng: np.random.Generator) -> Light:
    """A clear noon, a golden afternoon or an overcast day."""
    side = rng.choice([-1, 1])
    clouds = dict(clouds=rng.uniform(0.15, 0.42), cloud_offset=tuple(rng.uniform(0, 30, 3)))
    mood = rng.choice(['noon', 'gold', 'grey'], p=[0.55, 0.28, 0.17])
    if mood == 'noon':
        sun = (side * rng.uniform(0.3, 0.8), rng.uniform(0.7, 1.1), rng.uniform(0.2, 0.8))
        return Light(sun, zenith=(0.20, 0.45, 0.85), horizon=(0.74, 0.87, 0.97), haze=0.006, **clouds)
    if mood == 'gold':
        return Light(
            (side * rng.uniform(0.6, 1.0), rng.uniform(0.4, 0.55), rng.uniform(0.1, 0.6)),
            sun_color=(1.0, 0.80, 0.55),
            sun_power=2.6,
            zenith=(0.36, 0.50, 0.80),
            horizon=(0.98, 0.84, 0.68),
            bounce=(0.42, 0.36, 0.32),
            ambient=0.7,
            haze=0.008,
            **clouds,
        )
    return Light(
        (side * rng.uniform(0.1, 0.5), 1.0, rng.uniform(0.1, 0.5)),
        sun_color=(0.95, 0.97, 1.0),
        sun_power=1.0,
        softness=0.16,
        zenith=(0.62, 0.68, 0.76),
        horizon=(0.84, 0.87, 0.90),
        ambient=1.1,
        haze=0.009,
        **clouds,
    )


def tree(rng: np.random.Generator) -> Model:
    """A leaf tree of 4 to 7 m, or a conifer."""
    model = Model('tree')
    green = pick(rng, LEAVES, 0.05)
    foliage = Material(green, 'leaves', dimmed(green, 0.6), scale=0.2, gloss=0.0, bump=(1.0, 0.2))
    tall = rng.uniform(4.0, 6.5)
    if rng.random() < 0.3:
        model.tube((0, 0, 0), (0, 0.3 * tall, 0), 0.16, 0.13, BARK)
        for k in range(4):
            low, high = (0, (0.16 + 0.2 * k) * tall, 0), (0, (0.48 + 0.18 * k) * tall, 0)
            model.tube(low, high, (0.27 - 0.05 * k) * tall, 0.02 * tall, foliage)
    else:
        model.tube((0, 0, 0), (0, 0.55 * tall, 0), 0.20, 0.12, BARK)
        for _ in range(9):
            way = rng.normal(0, 1, 3)
            way /= np.linalg.norm(way)
            centre = np.array([0, 0.68 * tall, 0]) + way * np.array([0.24, 0.2, 0.24]) * tall
            model.ball(centre, np.array([0.19, 0.16, 0.19]) * tall * rng.uniform(0.75, 1.15), foliage)
    model.discs = [(0.0, 0.0, 0.7)]
    return model


def building(rng: np.random.Generator, width: float) -> Model:
    """A house front with rows of windows, its front at z = 0, and a roof line."""
    model = Model('building')
    color = pick(rng, WALLS, 0.03)
    tall, pane = rng.uniform(5.0, 10.0), rng.uniform(1.5, 1.9)
    panes = Material(color, 'facade', (0.22, 0.28, 0.36), scale=pane, offset=tuple(rng.uniform(0, 1, 3)))
    base = Material(dimmed(color, 0.6), 'bricks', dimmed(color, 0.75), scale=0.18)
    model.block((0, tall / 2, -3), (width, tall, 6), panes)
    model.block((0, 0.55, -2.95), (width + 0.06, 1.1, 6), base)
    model.block((0, tall + 0.1, -2.9), (width + 0.3, 0.3, 6.2), base)
    return model


def add_hills(stage: Stage) -> None:
    """Adds rows of hills along the horizon, the farther the bluer."""
    rng = stage.rng
    for row, (distance, color) in enumerate(((75, (0.40, 0.52, 0.38)), (48, (0.40, 0.52, 0.26)))):
        for _ in range(3):
            model = Model('mountain')
            x = rng.uniform(-1.1, 1.1) * stage.half_width * distance
            wide, tall = rng.uniform(14, 34), rng.uniform(3, 10) * (1 - 0.35 * row)
            tint = vary(rng, color, 0.03)
            rock = Material(tint, 'curls', dimmed(tint, 0.75), scale=2.5, gloss=0.0, bump=(0.5, 2.0))
            model.ball((x, -1, -distance - 12), (wide, tall, 12), rock)
            stage.models.append(model)


def add_fence(stage: Stage) -> None:
    """Adds a wooden fence across the view."""
    rng = stage.rng
    model = Model('fence')
    timber = Material((0.55, 0.42, 0.30), 'grain', (0.42, 0.31, 0.22), scale=0.3)
    for k in range(-7, 8):
        model.block((k * 1.7, 0.55, 0), (0.10, 1.1, 0.10), timber)
    for y in (0.5, 0.9):
        model.block((0, y, 0.06), (25.5, 0.11, 0.035), timber)
    stage.add(model, rng.uniform(-1, 1), -rng.uniform(9.5, 12.5), rng.uniform(-14, 14))


def fly_past(stage: Stage, chance: float) -> None:
    """Lets an aeroplane cross the sky, with this probability."""
    rng = stage.rng
    if rng.random() < chance:
        u, v = rng.uniform(-0.6, 0.6) * stage.half_width, rng.uniform(0.45, 0.8) * stage.half_height
        way = stage.camera.rays(np.array([u]), np.array([v]))[:, 0]
        x, y, z = stage.camera.position + way * rng.uniform(24, 38)
        stage.add(aeroplane(rng), x, z, stage.turns(55, 115, mirrored=True)(), y=y)
