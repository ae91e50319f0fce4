"""The room: walls, floor and pictures, furniture along the walls, a laid table, people standing or sitting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .animals import animal
from .backdrop import plane
from .furniture import (
    CHAIR_SEAT,
    SOFA_SEAT,
    TABLE_TOP,
    bottle,
    cabinet,
    chair,
    painting,
    plant,
    rug,
    screen,
    sofa,
    table,
    window,
)
from .geometry import rotation
from .light import Light
from .model import Model
from .people import person
from .poses import sitting
from .stage import Place, Plan, Stage
from .textures import Material, dimmed, palette, pick, vary

PAINTS = palette('#e6dbc7 #b8ccd1 #d6bda8 #b2c2a3 #dbd6db #9ea8c2')
BRICKS = palette('#9e5742 #b28066')


class Seat(NamedTuple):
    """Something to sit on: the placed model, the seat's height, and how far before its centre one sits."""

    model: Model
    height: float
    forward: float


def indoor_light(rng: np.random.Generator) -> Light:
    """A lamp or window high up in front of the scene, and bright walls all around."""
    warm = rng.uniform(0, 1)
    return Light(
        (rng.choice([-1, 1]) * rng.uniform(0.25, 0.7), rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.9)),
        sun_color=(1.0, 0.97 - 0.09 * warm, 0.93 - 0.22 * warm),
        sun_power=rng.uniform(1.1, 1.6),
        softness=0.13,
        zenith=(0.86, 0.85, 0.83),
        horizon=(0.80, 0.78, 0.75),
        bounce=(0.66, 0.59, 0.52),
        ambient=0.72,
    )


def wall_material(rng: np.random.Generator) -> Material:
    """Paint, striped wallpaper or bricks."""
    paper = rng.choice(['plaster', 'pinstripes', 'bricks'], p=[0.55, 0.28, 0.17])
    if paper == 'bricks':
        return Material(pick(rng, BRICKS, 0.03), 'bricks', (0.80, 0.76, 0.70), scale=0.1, gloss=0.02)
    color = pick(rng, PAINTS, 0.03)
    if paper == 'pinstripes':
        return Material(color, 'pinstripes', dimmed(color, 0.88), scale=0.28, gloss=0.02)
    return Material(color, 'plaster', dimmed(color, 0.93), gloss=0.02)


def floor_material(rng: np.random.Generator) -> Material:
    """Boards of two woods, tiles of two kinds, or a carpet."""
    floors = [
        Material((0.70, 0.48, 0.28), 'planks', (0.54, 0.34, 0.19), scale=0.2, gloss=0.1, mirror=0.05),
        Material((0.50, 0.34, 0.22), 'planks', (0.36, 0.23, 0.14), scale=0.2, gloss=0.1, mirror=0.05),
        Material((0.88, 0.86, 0.82), 'checker', (0.42, 0.44, 0.46), scale=0.5, gloss=0.2, mirror=0.12),
        Material((0.86, 0.78, 0.66), 'checker', (0.72, 0.50, 0.38), scale=0.45, gloss=0.2, mirror=0.1),
        Material(vary(rng, (0.66, 0.62, 0.58), 0.06), 'gravel', (0.58, 0.54, 0.50), scale=0.8),
    ]
    return floors[rng.integers(len(floors))]


def room(stage: Stage, plan: Plan) -> None:
    """Fills the stage with a room; the set's origin is the foot of the back wall."""
    rng = stage.rng
    depth, half = stage.pivot, rng.uniform(2.3, 3.2)
    add_walls(stage, half)
    if plan.empty:
        return
    if rng.random() < 0.5:
        stage.add_set(rug(rng), rng.uniform(-0.8, 0.8), rng.uniform(1.2, 2.0), rng.uniform(-15, 15))

    seats: list[Seat] = []
    upright, straight = stage.turns(0, 0), stage.turns(-6, 6)
    theme = rng.choice(['living', 'dining', 'both'], p=[0.42, 0.38, 0.20])
    if theme != 'dining':
        spots = stage.in_set((-half + 1.1, half - 1.1), (0.55, 0.65), straight)
        if couch := stage.try_place(sofa(rng), spots, inside=0.7):
            seats.append(Seat(couch, SOFA_SEAT, 0.07))
        if rng.random() < 0.7:
            spots = stage.in_set((-half + 0.8, half - 0.8), (0.3, 0.35), upright)
            if stand := stage.try_place(cabinet(rng), spots, inside=0.8):
                x, z = np.mean([disc[:2] for disc in stand.discs], axis=0)
                stage.add(screen(rng), x, z, stage.yaw, y=0.54)
    if theme != 'living':
        spots = stage.in_set((-1.2, 1.2), (0.9, max(depth - 1.9, 1.1)), stage.turns(-20, 20))
        if board := stage.try_place(table(rng), spots):
            set_table(stage, board)
            for _ in range(rng.integers(1, 4)):
                if seat := stage.try_place(chair(rng), around(rng, board), hide=0.65, margin=0.12):
                    seats.append(Seat(seat, CHAIR_SEAT, -0.04))
    elif rng.random() < 0.5:
        spots = stage.in_view(2.2, depth - 0.6, stage.turns(-70, 70))
        if seat := stage.try_place(chair(rng), spots):
            seats.append(Seat(seat, CHAIR_SEAT, -0.04))
    if rng.random() < 0.55:
        spots = stage.in_set((-half + 0.5, half - 0.5), (0.4, 1.2), upright)
        stage.try_place(plant(rng, rng.uniform(0.9, 1.3)), spots)
    if rng.random() < 0.15:
        spots = stage.in_view(2.2, 3.8, stage.turns(-110, 110))
        stage.try_place(animal('dog', rng), spots, hide=0.3)
    sits = bool(seats) and plan.people > 0 and rng.random() < 0.45
    seated = sits and sit_down(stage, seats[rng.integers(len(seats))])
    stage.add_people(plan.people - seated)


def add_walls(stage: Stage, half: float) -> None:
    """Adds floor, three walls `half` to the left and right, ceiling, skirting board, and a window or pictures."""
    rng = stage.rng
    wall, turn = wall_material(rng), rotation('y', stage.yaw)
    stage.models.append(plane('floor', (0, 1, 0), (0, 0, -stage.pivot), floor_material(rng), stage.yaw))
    for normal, x in (((0, 0, 1), 0.0), ((1, 0, 0), -half), ((-1, 0, 0), half)):
        world_x, world_z = stage.to_world(x, 0.0)
        stage.models.append(plane('wall', turn @ normal, (world_x, 0, world_z), wall, stage.yaw))
    stage.models.append(plane('wall', (0, -1, 0), (0, 2.9, 0), Material((0.96, 0.95, 0.93), glow=0.12)))
    skirting = Model('wall')
    skirting.block((0, 0.05, 0.01), (2 * half, 0.10, 0.03), Material((0.94, 0.93, 0.90)))
    stage.add_set(skirting, 0, 0)
    first, second, _ = rng.permutation(np.linspace(-half + 0.8, half - 0.8, 3))
    stage.add_set(window(rng) if rng.random() < 0.5 else painting(rng), first, 0, y=rng.uniform(1.55, 1.75))
    if rng.random() < 0.6:
        stage.add_set(painting(rng), second, 0, y=rng.uniform(1.55, 1.8))


def set_table(stage: Stage, board: Model) -> None:
    """Stands one to four bottles on a placed table."""
    rng = stage.rng
    taken: list[tuple[float, float]] = []
    for _ in range(rng.integers(1, 5)):
        x, z, radius = board.discs[rng.integers(len(board.discs))]
        x, z = x + rng.uniform(-0.5, 0.5) * radius, z + rng.uniform(-0.4, 0.5) * radius
        if all(np.hypot(x - a, z - b) > 0.14 for a, b in taken):
            taken.append((x, z))
            stage.add(bottle(rng), x, z, rng.uniform(0, 360), rng.uniform(1.0, 1.3), y=TABLE_TOP)


def around(rng: np.random.Generator, board: Model) -> Iterator[Place]:
    """Twenty places for a chair about a table, facing it."""
    centre_x, centre_z = np.mean([disc[:2] for disc in board.discs], axis=0)
    for _ in range(20):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.25)
        yaw = np.degrees(angle) + 180 + rng.uniform(-25, 25)
        yield centre_x + reach * np.sin(angle), centre_z + reach * np.cos(angle), yaw


def sit_down(stage: Stage, seat: Seat) -> bool:
    """Seats a person; False where the person would be at the image's edge."""
    rng = stage.rng
    body = person(rng, sitting(rng), rng.uniform(1.58, 1.80))
    thighs = [p.surface.solid.hull() for p in body.pieces if p.parts[0] in ('luleg', 'ruleg')]
    underside = min((centres[1] - radii).min() for centres, radii in thighs)
    x, z, _ = seat.model.discs[rng.integers(len(seat.model.discs))]
    shift = rotation('y', seat.model.yaw) @ (0, 0, seat.forward)
    placed = body.placed(x + shift[0], z + shift[2], seat.model.yaw, y=seat.height - underside)
    span = stage.span(placed)
    if span is None or abs(span.left + span.right) / 2 > 0.9 * stage.half_width:
        return False
    stage.keep(placed)
    return True
