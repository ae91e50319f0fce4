"""Finding room for things: a stage collects models and refuses places that collide or hide what is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .camera import Camera
from .geometry import rotation
from .light import Light
from .model import Model
from .people import person
from .poses import random_pose

Place = tuple[float, float, float]  # world x, world z, yaw in degrees
Discs = list[tuple[float, float, float]]  # world x, world z, radius


@dataclass(frozen=True)
class Plan:
    """What a scene shall hold: the number of people, and whether it stays empty of anything near."""

    people: int
    empty: bool


class Span(NamedTuple):
    """Slopes of the rays that bound a thing in the image, and its depth in metres."""

    left: float
    right: float
    bottom: float
    top: float
    depth: float


class Stage:
    """The scene under construction: background, objects, and a set frame (pivot and yaw) that walls and roads follow.

    Args:
        rng: Source of all that is random.
        camera: The camera of the scene.
        light: Sun and sky.
        pivot: Distance of the set's origin before the camera, in metres.
        yaw: Turn of the set about the vertical through its origin, in degrees.
    """

    def __init__(
        self, rng: np.random.Generator, camera: Camera, light: Light, pivot: float, yaw: float
    ) -> None:
        self.rng, self.camera, self.light = rng, camera, light
        self.pivot, self.yaw = pivot, yaw
        self.models: list[Model] = []
        self.discs: Discs = []
        self.spans: list[Span] = []
        self.half_width = camera.size[1] / 2 / camera.focal  # slope of the ray at the right edge
        self.half_height = camera.size[0] / 2 / camera.focal  # and at the upper edge
        self.ground_slope = 0.0  # rise of the ground per metre towards the viewer

    def to_world(self, x: float, z: float) -> tuple[float, float]:
        """A point of the set frame (z towards the viewer) on the ground, as world x and z."""
        moved = rotation('y', self.yaw) @ (x, 0.0, z)
        return float(moved[0]), float(moved[2] - self.pivot)

    def add(
        self, model: Model, x: float, z: float, yaw: float = 0.0, factor: float = 1.0, y: float = 0.0
    ) -> None:
        """Puts a model into the world without any check."""
        self.models.append(model.placed(x, z, yaw, factor, y))

    def add_set(self, model: Model, x: float, z: float, yaw: float = 0.0, y: float = 0.0) -> None:
        """Puts a model into the set frame without any check."""
        self.add(model, *self.to_world(x, z), self.yaw + yaw, y=y)

    def span(self, model: Model) -> Span | None:
        """Where a placed model appears; None where it reaches behind the camera."""
        bounds = self.camera.bounds(*model.hull())
        return bounds and Span(*bounds, depth=-float(np.mean([z for _, z, _ in model.discs])))

    def free(self, discs: Discs, margin: float) -> bool:
        """Whether discs reach no more than `margin` into those that are taken."""
        return all(np.hypot(x - a, z - b) >= r + q - margin for x, z, r in discs for a, b, q in self.discs)

    def visible(self, span: Span, hide: float, inside: float) -> bool:
        """Whether a share `inside` lies in the image each way, and nearer things hide at most `hide` of a farther one."""
        edges = ((span.left, span.right, self.half_width), (span.bottom, span.top, self.half_height))
        for low, high, half in edges:
            if min(high, half) - max(low, -half) < inside * min(high - low, 2 * half):
                return False
        for other in self.spans:
            overlap = min(span.right, other.right) - max(span.left, other.left)
            farther = span if span.depth > other.depth else other
            if overlap > hide * (farther.right - farther.left):
                return False
        return True

    def keep(self, placed: Model) -> None:
        """Adds a placed model and marks what it covers."""
        self.models.append(placed)
        self.discs += placed.discs
        span = self.span(placed)
        if span is not None:
            self.spans.append(span)

    def try_place(
        self,
        model: Model,
        places: Iterable[Place],
        *,
        hide: float = 0.45,
        inside: float = 0.75,
        margin: float = 0.0,
        y: float = 0.0,
    ) -> Model | None:
        """Puts the model at the first place that suits (see `free`, `visible`); None where there is none.

        Args:
            model: What to place.
            places: Candidates, in the order in which they are tried.
            hide: Largest share of a farther thing's width that a nearer one may cover.
            inside: Least share of width and of height inside the image.
            margin: Metres by which footprints may overlap.
            y: Height over the ground.
        """
        outline = Model(model.category, [], model.discs)
        centres, radii = model.hull()
        for x, z, yaw in places:
            height = y + z * self.ground_slope
            discs = outline.placed(x, z, yaw).discs
            if not self.free(discs, margin):
                continue
            bounds = self.camera.bounds(rotation('y', yaw) @ centres + np.array([[x], [height], [z]]), radii)
            depth = -float(np.mean([z for _, z, _ in discs]))
            if bounds and self.visible(Span(*bounds, depth), hide, inside):
                placed = model.placed(x, z, yaw, y=height)
                self.keep(placed)
                return placed
        return None

    def turns(self, low: float, high: float, mirrored: bool = False) -> Callable[[], float]:
        """A source of yaws between two angles; `mirrored` gives half of them the other sign."""
        return lambda: self.rng.uniform(low, high) * (self.rng.choice([-1, 1]) if mirrored else 1)

    def in_view(
        self, near: float, far: float, yaws: Callable[[], float], reach: float = 0.85
    ) -> Iterator[Place]:
        """Forty random places between two depths, within a share `reach` of the view."""
        for _ in range(40):
            depth = self.rng.uniform(near, far)
            yield self.rng.uniform(-reach, reach) * self.half_width * depth, -depth, yaws()

    def in_set(
        self, xs: tuple[float, float], zs: tuple[float, float], yaws: Callable[[], float]
    ) -> Iterator[Place]:
        """Forty random places in a rectangle of the set frame; yaws count from the set's own."""
        for _ in range(40):
            x, z = self.to_world(self.rng.uniform(*xs), self.rng.uniform(*zs))
            yield x, z, self.yaw + yaws()

    def facing(self) -> float:
        """Yaw of a person: mostly towards the viewer, sometimes away."""
        return self.rng.normal(0, 38) if self.rng.random() < 0.82 else self.rng.normal(180, 35)

    def add_people(self, count: int) -> None:
        """Places upright people, the first the largest; where it is crowded, they may hide more of what is behind."""
        for k in range(count):
            body = person(self.rng, random_pose(self.rng))
            height = max(p.surface.solid.centre[1] for p in body.pieces)
            share = self.rng.uniform(0.42, 0.85) * (1.0 if k == 0 else self.rng.uniform(0.55, 0.95))
            depth = height / (2 * self.half_height * share)
            for hide, farthest, margin in ((0.45, 1.12, 0.0), (0.8, 1.5, 0.15)):
                spots = self.in_view(depth * 0.93, depth * farthest, self.facing, 0.55 if k == 0 else 0.85)
                if self.try_place(body, spots, hide=hide, inside=0.62, margin=margin):
                    break
