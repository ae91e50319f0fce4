"""Things of a room: chairs, sofas, tables, bottles, screens, potted plants, and what hangs on the walls."""

from __future__ import annotations

import numpy as np

from .geometry import rotation
from .model import Model
from .textures import Material, dimmed, palette, pick

WOODS = [
    ((0.72, 0.50, 0.30), (0.56, 0.36, 0.20)),
    ((0.48, 0.29, 0.17), (0.34, 0.19, 0.11)),
    ((0.86, 0.70, 0.48), (0.74, 0.56, 0.36)),
]
FABRICS = palette('#297578 #bd3d38 #e6a833 #616b80 #4c619e #85995c #c7b299')
DARK_WOOD = Material((0.24, 0.16, 0.10))
CHAIR_SEAT, SOFA_SEAT, TABLE_TOP = 0.482, 0.475, 0.742  # heights in metres


def wood(rng: np.random.Generator, scale: float = 0.25) -> Material:
    """One of the timbers, with grain."""
    first, second = WOODS[rng.integers(len(WOODS))]
    return Material(first, 'grain', second, scale=scale, gloss=0.12, offset=tuple(rng.uniform(0, 30, 3)))


def chair(rng: np.random.Generator) -> Model:
    """A kitchen chair: wooden, or painted with a coloured seat; its back is at -z."""
    model = Model('chair')
    painted = Material(pick(rng, palette('#ebebe6 #262629 #cc4033'), 0.02), gloss=0.2)
    frame = wood(rng) if rng.random() < 0.6 else painted
    seat = Material(pick(rng, FABRICS)) if rng.random() < 0.5 else frame
    w, d, y0, top = 0.23, 0.22, CHAIR_SEAT - 0.022, rng.uniform(0.90, 1.02)
    for sx in (-1, 1):
        model.tube((sx * w * 1.02, 0, d * 1.05), (sx * w * 0.9, y0, d * 0.9), 0.020, 0.026, frame)
        model.tube((sx * w * 1.02, 0, -d * 1.2), (sx * w * 0.9, y0, -d * 0.95), 0.020, 0.026, frame)
        model.limb((sx * w * 0.9, y0, -d * 0.95), (sx * w * 0.9, top, -d * 1.3), 0.026, 0.021, frame)
        model.tube((sx * w, 0.2, d), (sx * w, 0.2, -d * 1.1), 0.013, 0.013, frame)
    model.block((0, y0, 0), (2 * w + 0.03, 0.045, 2 * d + 0.04), seat)
    if rng.random() < 0.5:
        for k in range(4):
            x = (k - 1.5) * 0.12
            model.limb((x, y0, -d * 0.97), (x, top - 0.04, -d * 1.27), 0.014, 0.014, frame)
        model.block((0, top - 0.02, -d * 1.29), (2 * w * 0.95, 0.085, 0.03), frame)
    else:
        for f in (0.35, 0.62, 0.9):
            y = y0 + f * (top - y0)
            model.block((0, y, -d * (0.97 + 0.3 * f)), (2 * w * 0.92, 0.085, 0.024), seat)
    model.discs = [(0.0, 0.0, 0.36)]
    return model


def sofa(rng: np.random.Generator) -> Model:
    """An upholstered sofa or armchair with round arms and cushions; its back is at -z."""
    model = Model('sofa')
    color = pick(rng, FABRICS)
    fabric = Material(color, 'curls', dimmed(color, 0.85), scale=0.03, gloss=0.0, bump=(0.15, 0.1))
    seats = int(rng.choice([1, 2, 2, 3]))
    width = 0.62 * seats + 0.35
    half = width / 2
    model.block((0, 0.24, 0), (width - 0.1, 0.26, 0.82), fabric)
    model.block((0, 0.52, -0.34), (width - 0.16, 0.50, 0.20), fabric, turn=rotation('x', -8))
    model.limb((-half + 0.14, 0.77, -0.375), (half - 0.14, 0.77, -0.375), 0.105, 0.105, fabric)
    for s in (-1, 1):
        x = s * (half - 0.09)
        model.block((x, 0.32, 0.0), (0.17, 0.42, 0.82), fabric)
        model.limb((x, 0.54, -0.33), (x, 0.54, 0.34), 0.105, 0.105, fabric)
        for z in (-0.34, 0.34):
            model.tube((s * (half - 0.13), 0.12, z), (s * (half - 0.12), 0, z), 0.032, 0.022, DARK_WOOD)
    inner = width - 0.38
    pitch = inner / seats
    for k in range(seats):
        x, end = -inner / 2 + (k + 0.5) * pitch, pitch / 2 - 0.06
        model.block((x, 0.41, 0.06), (pitch - 0.015, 0.13, 0.68), fabric)
        model.limb((x - end, 0.41, 0.385), (x + end, 0.41, 0.385), 0.065, 0.065, fabric)
    if rng.random() < 0.7:
        pillow = Material(pick(rng, FABRICS), 'stripes', (0.95, 0.93, 0.88), scale=0.12)
        x, turn = rng.choice([-1, 1]) * (inner / 2 - 0.2), rotation('z', rng.uniform(-25, 25))
        model.ball((x, 0.62, -0.14), (0.21, 0.19, 0.085), pillow, turn=rotation('x', -22) @ turn)
    model.discs = [(x, 0.0, 0.55) for x in np.linspace(-1, 1, seats + 1) * max(half - 0.5, 0.0)]
    return model


def table(rng: np.random.Generator) -> Model:
    """A dining table 0.74 m high, with four legs or round on a pedestal."""
    model = Model('diningtable')
    timber = wood(rng, 0.35)
    if rng.random() < 0.3:
        radius = rng.uniform(0.48, 0.62)
        model.tube((0, 0.70, 0), (0, 0.74, 0), radius - 0.02, radius, timber)
        model.tube((0, 0.05, 0), (0, 0.71, 0), 0.07, 0.05, timber)
        model.tube((0, 0, 0), (0, 0.05, 0), 0.30, 0.24, timber)
        model.discs = [(0.0, 0.0, radius)]
        return model
    half, depth = rng.uniform(0.55, 0.80), rng.uniform(0.36, 0.45)
    model.block((0, 0.72, 0), (2 * half, 0.045, 2 * depth), timber)
    model.block((0, 0.66, 0), (2 * half - 0.14, 0.08, 2 * depth - 0.12), timber)
    for sx in (-1, 1):
        for sz in (-1, 1):
            x, z = sx * (half - 0.07), sz * (depth - 0.07)
            model.tube((x, 0, z), (x, 0.70, z), 0.026, 0.042, timber)
    model.discs = [(x, 0.0, depth + 0.08) for x in np.linspace(-1, 1, 3) * (half - depth)]
    return model


def bottle(rng: np.random.Generator) -> Model:
    """A bottle of 0.3 to 0.42 m with a label and a cap."""
    model = Model('bottle')
    glass = Material(pick(rng, palette('#1a6b2e #6b3312 #337ab8 #9e1a1f'), 0.03), gloss=0.8, mirror=0.35)
    cap = Material(pick(rng, palette('#d9261f #ebbf40 #e6e6e6'), 0.02), gloss=0.3)
    label = Material((0.96, 0.94, 0.86), 'stripes', pick(rng, FABRICS), scale=0.07)
    h = rng.uniform(0.30, 0.42)
    r = h * rng.uniform(0.125, 0.155)
    model.tube((0, 0, 0), (0, 0.55 * h, 0), r * 0.96, r, glass, 'body')
    model.limb((0, 0.52 * h, 0), (0, 0.70 * h, 0), r * 0.99, r * 0.42, glass, 'body')
    model.tube((0, 0.66 * h, 0), (0, 0.95 * h, 0), r * 0.42, r * 0.34, glass, 'body')
    model.tube((0, 0.93 * h, 0), (0, h, 0), r * 0.42, r * 0.40, cap, 'cap')
    model.tube((0, 0.17 * h, 0), (0, 0.45 * h, 0), r * 1.02, r * 1.02, label, 'body')
    model.discs = [(0.0, 0.0, r * 1.5)]
    return model


def screen(rng: np.random.Generator) -> Model:
    """A television on a foot; the picture faces +z."""
    model = Model('tvmonitor')
    frame = Material((0.08, 0.08, 0.09), gloss=0.4, mirror=0.1)
    w = rng.uniform(0.95, 1.35)
    h = w * 0.58
    tint, other = pick(rng, palette('#408ce6 #f28c4c #59bf80 #b266d9')), pick(rng, palette('#f2e6b2 #1a2659'))
    shine, offset = dict(gloss=0.3, mirror=0.1, glow=0.16), (rng.uniform(0, 30), 0.0, 0.0)
    picture = Material(tint, 'abstract', other, scale=0.55, offset=offset, **shine)
    model.block((0, h / 2 + 0.09, 0), (w, h, 0.07), frame)
    model.block((0, h / 2 + 0.09, 0.035), (w - 0.08, h - 0.08, 0.008), picture, 'screen')
    model.tube((0, 0.02, 0), (0, 0.12, 0), 0.04, 0.04, frame)
    model.block((0, 0.012, 0.02), (w * 0.45, 0.024, 0.24), frame)
    model.discs = [(0.0, 0.0, 0.5)]
    return model


def cabinet(rng: np.random.Generator) -> Model:
    """A low sideboard, 0.55 m high, with two doors."""
    model = Model('cabinet')
    timber = wood(rng, 0.4)
    model.block((0, 0.30, 0), (1.5, 0.48, 0.42), timber)
    knob = Material((0.85, 0.8, 0.6), gloss=0.5)
    for s in (-1, 1):
        model.block((s * 0.37, 0.30, 0.212), (0.70, 0.40, 0.012), timber)
        model.ball((s * 0.08, 0.32, 0.23), 0.02, knob)
        for z in (-0.16, 0.16):
            model.tube((s * 0.66, 0, z), (s * 0.66, 0.08, z), 0.02, 0.03, DARK_WOOD)
    model.discs = [(x, 0.0, 0.35) for x in (-0.5, 0.0, 0.5)]
    return model


def plant(rng: np.random.Generator, factor: float = 1.0) -> Model:
    """A plant in a pot, about a metre high times `factor`: a bush, or long arching leaves."""
    model = Model('pottedplant')
    pot = Material(pick(rng, palette('#c76640 #edebe0 #406b9e #d9ad59'), 0.03), gloss=0.2)
    soil = Material((0.20, 0.14, 0.10))
    green = pick(rng, palette('#3d8533 #599940 #296b3d'), 0.04)
    model.tube((0, 0, 0), (0, 0.34, 0), 0.14, 0.20, pot)
    model.tube((0, 0.31, 0), (0, 0.37, 0), 0.22, 0.225, pot)
    model.tube((0, 0.33, 0), (0, 0.372, 0), 0.19, 0.195, soil)
    tall = rng.uniform(0.5, 0.95)
    if rng.random() < 0.5:
        foliage = Material(green, 'leaves', dimmed(green, 0.5), scale=0.05, bump=(0.9, 0.05))
        model.tube((0, 0.35, 0), (0, 0.35 + 0.6 * tall, 0), 0.03, 0.02, DARK_WOOD)
        for k in range(8):  # seven around, one on top
            angle, r = 2 * np.pi * (k + rng.uniform(0, 0.6)) / 7, 0.20 * (k < 7)
            y = 0.42 + tall * (0.5 + rng.uniform(-0.12, 0.12) + 0.28 * (k == 7))
            size = np.array([0.19, 0.17, 0.19]) * rng.uniform(0.85, 1.15)
            model.ball((r * np.cos(angle), y, r * np.sin(angle)), size, foliage)
    else:
        for k in range(13):
            blade = Material(tuple(c * rng.uniform(0.75, 1.2) for c in green), gloss=0.12)
            angle, out = 2 * np.pi * (k * 0.382), rng.uniform(0.12, 0.42)
            way = np.array([np.cos(angle), 0, np.sin(angle)])
            knee = way * out * 0.5 + (0, 0.35 + tall * rng.uniform(0.5, 0.8), 0)
            tip = knee + way * out * 0.8 + (0, rng.uniform(-0.12, 0.25) * tall, 0)
            model.limb(way * 0.04 + (0, 0.34, 0), knee, 0.022, 0.05, blade, flat=0.3)
            model.limb(knee, tip, 0.05, 0.012, blade, flat=0.3)
    model.discs = [(0.0, 0.0, 0.38)]
    return model.placed(0, 0, factor=factor)


def painting(rng: np.random.Generator) -> Model:
    """A framed picture in the plane z = 0, its centre at the origin."""
    model = Model('picture')
    w, h = rng.uniform(0.5, 1.1), rng.uniform(0.45, 0.8)
    offset = (rng.uniform(0, 30), 0.0, 0.0)
    image = Material(pick(rng, FABRICS), 'abstract', pick(rng, FABRICS), scale=0.45, offset=offset)
    frame = Material(pick(rng, palette('#33261a #d9b866 #f2f2ed'), 0.02), gloss=0.2)
    model.block((0, 0, 0.01), (w, h, 0.04), frame)
    model.block((0, 0, 0.025), (w - 0.1, h - 0.1, 0.02), image)
    return model


def window(rng: np.random.Generator) -> Model:
    """A window with a cross in the plane z = 0, its centre at the origin, bright with sky."""
    model = Model('window')
    w, h = rng.uniform(0.9, 1.4), rng.uniform(1.0, 1.3)
    white = Material((0.95, 0.95, 0.93))
    offset, light = (rng.uniform(0, 30), 0.0, 0.0), dict(glow=0.42, mirror=0.1)
    pane = Material((0.62, 0.80, 0.96), 'abstract', (0.92, 0.96, 1.0), scale=1.6, offset=offset, **light)
    model.block((0, 0, 0.01), (w, h, 0.05), white)
    for sx in (-1, 1):
        for sy in (-1, 1):
            model.block((sx * w / 4, sy * h / 4, 0.03), (w / 2 - 0.08, h / 2 - 0.08, 0.02), pane)
    model.block((0, -h / 2 - 0.02, 0.06), (w + 0.12, 0.04, 0.16), white)
    return model


def rug(rng: np.random.Generator) -> Model:
    """A flat rug on the floor."""
    model = Model('rug')
    color = pick(rng, FABRICS)
    light, texture = tuple(0.4 + 0.6 * c for c in color), str(rng.choice(['pinstripes', 'plaid', 'curls']))
    pattern = Material(color, texture, light, scale=0.22, gloss=0.0)
    if rng.random() < 0.5:
        model.tube((0, 0, 0), (0, 0.012, 0), 1.1, 1.1, pattern)
    else:
        model.block((0, 0.006, 0), (rng.uniform(1.8, 2.6), 0.012, 1.5), pattern)
    return model
