"""Cars, buses, aeroplanes and boats; their fronts face +x (boats and aeroplanes +z), wheels and hulls stand on y = 0."""

from __future__ import annotations

import numpy as np

from .geometry import convex_hull, prism, rotation
from .model import Model
from .textures import Material, dimmed, palette, pick, vary

PAINTS = palette('#c7211f #1f4c9e #ebebe6 #f5b826 #296b57 #8c99a8 #e67326')
LIVERIES = palette('#c7211f #1f4d9e #f5b826 #296b57 #e67326')
HULLS = palette('#c7211f #1f4d9e #ebebe6 #8c522e')
SAILS = palette('#f7f5ed #f7f5ed #e65940 #f7cc59')
BUS_PAINTS = palette('#d92924 #f2b21f #2673b8 #409461')
GLASS = Material((0.10, 0.14, 0.18), gloss=0.5, mirror=0.75)
TYRE = Material((0.07, 0.07, 0.07), gloss=0.05)
RIM = Material((0.70, 0.72, 0.74), gloss=0.5)
WHITE_LIGHT = Material((1.0, 0.97, 0.85), gloss=0.5, glow=0.25)
RED_LIGHT = Material((0.85, 0.08, 0.06), gloss=0.4, glow=0.15)


def add_wheels(model: Model, places: list[float], r: float, track: float) -> None:
    """Adds pairs of wheels of radius r at these x; `track` is the width over the outer walls of the tyres."""
    number = 1
    for x in places:
        for s in (-1, 1):
            name, outer = f'wheel_{number}', s * track / 2
            inner = (x, r, outer - s * 0.25)
            model.tube(inner, (x, 1.06 * r, outer - s * 0.012), 1.2 * r, 1.2 * r, TYRE)
            model.tube(inner, (x, r, outer), r, 0.97 * r, TYRE, name)
            model.tube((x, r, outer - s * 0.1), (x, r, outer + s * 0.012), 0.62 * r, 0.55 * r, RIM, name)
            number += 1


# length, height of the roof, and the x of windscreen and rear window at their feet and their tops, in metres
CARS = {
    'saloon': (4.3, 1.42, (0.95, 0.22), (-1.45, -1.00)),
    'hatchback': (3.8, 1.48, (1.00, 0.30), (-1.80, -1.45)),
    'van': (4.2, 1.78, (1.25, 0.72), (-2.00, -1.85)),
}


def car(rng: np.random.Generator) -> Model:
    """A saloon, hatchback or van."""
    paint = Material(pick(rng, PAINTS, 0.03), gloss=0.55, mirror=0.30)
    groove, bumper, plate = (
        Material(dimmed(paint.color, 0.5)),
        Material((0.16, 0.16, 0.17)),
        Material((0.95, 0.95, 0.9)),
    )
    length, roof, (front, front_top), (rear, rear_top) = CARS[rng.choice(list(CARS))]
    half, width, deck, lean = length / 2 * rng.uniform(0.95, 1.05), 1.74, 0.92, 0.28
    model = Model('car')
    nose = [(half - 0.1, 0.27), (half, 0.50), (half - 0.08, 0.72), (front + 0.05, deck)]
    tail = [(-half + 0.35, deck + 0.03), (-half + 0.03, 0.80), (-half, 0.5), (-half + 0.1, 0.27)]
    model.add(prism(nose + tail, width), (0, 0, 0), paint)
    foot, head = deck - 0.05, roof - 0.03
    cabin = [(rear, foot), (front, foot), (front_top, head), (rear_top, head)]
    model.add(prism(cabin, width - 0.14 + 2 * lean * deck, lean), (0, 0, 0), GLASS, 'window_1')
    low, high = roof - 0.06, roof + 0.02
    top = [(rear_top - 0.08, low), (front_top + 0.08, low), (front_top - 0.15, high), (rear_top + 0.1, high)]
    model.add(prism(top, width - 0.10 + 2 * lean * deck, lean), (0, 0, 0), paint)
    door = (front + rear) / 2 - 0.15
    for s, side in ((-1, 'left'), (1, 'right')):
        out, inner = s * (width / 2 - 0.085), s * (width / 2 - 0.085 - lean * (roof - deck))
        for x, x_top in ((front, front_top), (door, door + 0.02), (rear, rear_top)):
            model.limb((x - 0.03, deck - 0.02, out), (x_top, roof - 0.05, inner), 0.045, 0.04, paint)
        mirror = (front - 0.12, deck + 0.07, s * (width / 2 + 0.06))
        model.ball(mirror, (0.06, 0.07, 0.09), paint, f'{side}mirror')
        lamp = 1 if s < 0 else 2
        model.ball((half - 0.09, 0.63, s * 0.62), (0.09, 0.075, 0.16), WHITE_LIGHT, f'headlight_{lamp}')
        model.ball((-half + 0.04, 0.72, s * 0.66), (0.06, 0.085, 0.14), RED_LIGHT)
        model.block((-0.1, 0.62, s * (width / 2 + 0.002)), (2 * half - 0.9, 0.035, 0.012), groove)
    for s, name in ((1, 'fliplate'), (-1, 'bliplate')):
        x = s * (half - 0.06)
        model.limb((x, 0.40, -0.7), (x, 0.40, 0.7), 0.085, 0.085, bumper)
        model.block((s * (half + 0.02), 0.42, 0), (0.03, 0.11, 0.42), plate, name)
    add_wheels(model, [-half * 0.62, half * 0.64], 0.33, width + 0.03)
    model.discs = [(x * half, 0.0, 1.05) for x in (-0.62, 0.0, 0.62)]
    return model


def bus(rng: np.random.Generator) -> Model:
    """A city bus with a band of windows and a stripe."""
    color = pick(rng, BUS_PAINTS, 0.03)
    paint = Material(color, gloss=0.4, mirror=0.2)
    stripe = Material((0.96, 0.95, 0.92), gloss=0.4, mirror=0.2)
    if rng.random() < 0.5:
        paint, stripe = stripe, paint
    model = Model('bus')
    half, width, top = rng.uniform(3.4, 4.2), 2.35, 2.85
    nose = [(half, 0.35), (half + 0.1, 0.9), (half, top - 0.15), (half - 0.2, top)]
    tail = [(-half + 0.2, top), (-half, top - 0.2), (-half, 0.35)]
    model.add(prism(nose + tail, width), (0, 0, 0), paint)
    model.block((0, 0.85, 0), (2 * half - 0.04, 0.32, width + 0.02), stripe)
    panes = round(half * 2 / 1.25)
    step = (2 * half - 0.3) / panes
    for k in range(panes):
        x = -half + 0.15 + (k + 0.5) * step
        model.block((x, 1.82, 0), (step - 0.14, 0.88, width + 0.03), GLASS, f'window_{k + 1}')
    model.block((half - 0.02, 1.68, 0), (0.24, 1.25, width - 0.3), GLASS, f'window_{panes + 1}')
    model.block((half - 0.02, 2.58, 0), (0.2, 0.26, 1.3), TYRE)
    model.block((half + 0.085, 2.58, 0), (0.02, 0.14, 1.0), Material((1.0, 0.68, 0.15), glow=0.6))
    model.block((-half, 1.85, 0), (0.06, 0.9, width - 0.5), GLASS, f'window_{panes + 2}')
    for s, side, lamp in ((-1, 'left', 1), (1, 'right', 2)):
        model.ball((half + 0.04, 0.68, s * 0.85), (0.10, 0.12, 0.16), WHITE_LIGHT, f'headlight_{lamp}')
        model.ball((-half, 0.8, s * 0.95), (0.06, 0.16, 0.10), RED_LIGHT)
        mirror = (half + 0.15, 2.1, s * (width / 2 + 0.12))
        model.ball(mirror, (0.06, 0.2, 0.09), TYRE, f'{side}mirror')
    model.block((half + 0.09, 0.48, 0), (0.06, 0.14, 0.5), stripe, 'fliplate')
    add_wheels(model, [-half * 0.58, half * 0.62], 0.46, width + 0.03)
    model.discs = [(x * half, 0.0, 1.35) for x in (-0.75, -0.25, 0.25, 0.75)]
    return model


def aeroplane(rng: np.random.Generator) -> Model:
    """An airliner with two engines, nose to +z, its axis at y = 0."""
    model = Model('aeroplane')
    hull = Material((0.94, 0.95, 0.97), gloss=0.4, mirror=0.12)
    accent = Material(pick(rng, LIVERIES, 0.03), gloss=0.4, mirror=0.1)
    grey = Material((0.62, 0.65, 0.69), gloss=0.4, mirror=0.15)
    model.limb((0, 0, 4.2), (0, 0, -1.8), 0.78, 0.76, hull, 'body')
    model.limb((0, 0, 4.0), (0, -0.12, 5.3), 0.76, 0.38, hull, 'body')
    model.limb((0, 0, -1.6), (0, 0.45, -6.0), 0.75, 0.2, hull, 'stern')
    model.limb((0, -0.09, 4.2), (0, -0.09, -1.8), 0.73, 0.72, accent, 'body')
    model.ball((0, 0.33, 5.05), (0.42, 0.18, 0.35), GLASS, 'body')
    for k in range(9):
        model.ball((0, 0.22, 3.6 - 0.62 * k), (0.785, 0.11, 0.11), GLASS, 'body')
    for name, s, engine in (('l', 1, 'engine_1'), ('r', -1, 'engine_2')):
        model.limb((s * 0.4, -0.35, 1.1), (s * 5.4, 0.15, -1.5), 1.15, 0.42, grey, f'{name}wing', flat=0.12)
        model.limb((s * 0.2, 0.45, -5.3), (s * 2.0, 0.6, -6.2), 0.6, 0.28, grey, 'tail', flat=0.13)
        model.limb((s * 2.1, -0.75, 1.4), (s * 2.1, -0.75, 0.0), 0.36, 0.26, accent, engine)
        model.tube((s * 2.1, -0.75, 1.6), (s * 2.1, -0.75, 1.79), 0.27, 0.27, TYRE, engine)
    model.ball((0, 1.2, -5.75), (0.09, 1.25, 0.62), accent, 'tail', turn=rotation('x', -28))
    return model


def boat(rng: np.random.Generator) -> Model:
    """A sailing boat or a small motor boat, bow to +z; the water line is y = 0."""
    model = Model('boat')
    sails = rng.random() < 0.65
    white = Material(vary(rng, (0.94, 0.93, 0.91), 0.02), gloss=0.3)
    paint = white if sails and rng.random() < 0.6 else Material(pick(rng, HULLS, 0.03), gloss=0.3)
    trim = Material((0.60, 0.38, 0.20), 'grain', (0.42, 0.25, 0.13), scale=0.2)
    sides = [((s, -0.42, 0.0), 0.78) for s in (-1, 1)] + [((s, -0.45, 0.75), 1.22) for s in (-1, 1)]
    sides.append(((0, -0.35, -1), 1.85))
    rim = [(normal, offset + 0.035) for normal, offset in sides]
    model.add(convex_hull(sides + [((0, 1, 0), 0.55), ((0, -1, 0), 0.45)]), (0, 0, 0), paint)
    model.add(convex_hull(rim + [((0, 1, 0), 0.60), ((0, -1, 0), -0.50)]), (0, 0, 0), trim)
    if sails:
        add_sails(model, trim, rng)
    else:
        ahead = rotation('y', -90)
        cabin = prism([(-1.1, 0.55), (0.75, 0.55), (0.35, 1.25), (-0.95, 1.25)], 1.5, 0.18)
        panes = prism([(-0.9, 0.78), (0.66, 0.78), (0.44, 1.12), (-0.85, 1.12)], 1.53, 0.18)
        model.add(cabin, (0, 0, 0), white, turn=ahead)
        model.add(panes, (0, 0, 0), GLASS, turn=ahead)
        model.tube((0, 1.2, -0.5), (0, 1.9, -0.5), 0.025, 0.02, trim)
        model.limb((0.0, 0.75, -1.75), (0, 0.2, -1.95), 0.17, 0.1, TYRE)
    model.discs = [(0.0, z, 0.95) for z in (-1.1, 0.0, 1.1)]
    return model


def add_sails(model: Model, timber: Material, rng: np.random.Generator) -> None:
    """Adds mast, boom, mainsail and jib, swung to one side."""
    cloth = Material(pick(rng, SAILS, 0.02), 'stripes', (0.80, 0.80, 0.80), scale=1.1, gloss=0.0)
    foot, tall, swing = (0, 0, 0.25), rng.uniform(3.6, 4.6), rng.uniform(-25, 25)
    aft, fore = rotation('y', 90 + swing), rotation('y', 90 - 0.6 * swing)
    model.tube((0, 0.5, 0.25), (0, 0.6 + tall, 0.25), 0.05, 0.03, timber)
    model.add(prism([(0.08, 0.95), (2.0, 0.85), (0.08, tall + 0.4)], 0.04), foot, cloth, turn=aft)
    model.add(prism([(-1.75, 0.75), (-0.15, 0.9), (-0.1, tall - 0.3)], 0.04), foot, cloth, turn=fore)
    model.tube((0, 0.85, 0.25), aft @ (2.0, 0, 0) + (0, 0.85, 0.25), 0.04, 0.035, timber)
