"""The construction kit: a model is a list of solids with materials and part names, standing on y = 0, facing +z."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .geometry import Frustum, RoundCone, Shape, Solid, Sphere, box, frame_along, rotation
from .textures import Material

Vec = tuple[float, float, float] | np.ndarray
IDENTITY = np.eye(3)


@dataclass(frozen=True)
class Surface:
    """A solid with its material; `casts` says whether it throws shadows (walls and floors do not)."""

    solid: Solid
    material: Material
    casts: bool = True


@dataclass(frozen=True)
class Piece:
    """One surface of a model and the names of the parts that it belongs to (an eye is `head` and `leye`)."""

    surface: Surface
    parts: tuple[str, ...] = ()


@dataclass
class Model:
    """An object: its category, its pieces, and the discs (x, z, radius) that it covers on the ground."""

    category: str
    pieces: list[Piece] = field(default_factory=list)
    discs: list[tuple[float, float, float]] = field(default_factory=list)
    yaw: float = 0.0

    def add(
        self,
        shape: Shape,
        centre: Vec,
        material: Material,
        *parts: str,
        turn: np.ndarray = IDENTITY,
        scale: Vec = (1, 1, 1),
    ) -> None:
        """Adds a shape, scaled, turned and then moved to `centre`."""
        solid = Solid(shape, np.asarray(centre, float), np.asarray(turn, float), np.asarray(scale, float))
        self.pieces.append(Piece(Surface(solid, material), parts))

    def ball(
        self, centre: Vec, radii: float | Vec, material: Material, *parts: str, turn: np.ndarray = IDENTITY
    ) -> None:
        """Adds an ellipsoid with these radii."""
        self.add(Sphere(), centre, material, *parts, turn=turn, scale=np.broadcast_to(radii, 3))

    def limb(
        self, a: Vec, b: Vec, ra: float, rb: float, material: Material, *parts: str, flat: float = 1.0
    ) -> None:
        """Adds a round cone from a to b; `flat` squashes it along its own z axis."""
        a, b = np.asarray(a, float), np.asarray(b, float)
        shape = RoundCone(float(np.linalg.norm(b - a)), ra, rb)
        self.add(shape, a, material, *parts, turn=frame_along(b - a), scale=(1, 1, flat))

    def tube(self, a: Vec, b: Vec, ra: float, rb: float, material: Material, *parts: str) -> None:
        """Adds a cylinder or cone with flat ends from a to b."""
        a, b = np.asarray(a, float), np.asarray(b, float)
        self.add(Frustum(float(np.linalg.norm(b - a)), ra, rb), a, material, *parts, turn=frame_along(b - a))

    def block(
        self, centre: Vec, size: Vec, material: Material, *parts: str, turn: np.ndarray = IDENTITY
    ) -> None:
        """Adds a box."""
        self.add(box(size), centre, material, *parts, turn=turn)

    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """Balls that hold all pieces: centres (3, k), radii (k,)."""
        centres, radii = zip(*(p.surface.solid.hull() for p in self.pieces), strict=True)
        return np.concatenate(centres, axis=1), np.concatenate(radii)

    def placed(self, x: float, z: float, yaw: float = 0.0, factor: float = 1.0, y: float = 0.0) -> Model:
        """A copy turned by `yaw` degrees about the vertical, scaled, and moved to (x, y, z)."""
        turn, shift = rotation('y', yaw), np.array([x, y, z], float)
        pieces = [
            replace(p, surface=replace(p.surface, solid=p.surface.solid.moved(turn, factor, shift)))
            for p in self.pieces
        ]
        discs = []
        for dx, dz, radius in self.discs:
            moved = factor * turn @ (dx, 0, dz) + shift
            discs.append((float(moved[0]), float(moved[2]), radius * factor))
        return Model(self.category, pieces, discs, self.yaw + yaw)
