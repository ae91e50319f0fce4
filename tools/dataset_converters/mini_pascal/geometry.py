"""Convex solids that rays can hit: sphere, round cone, frustum, polytope, each placed by rotation, scale and shift.

Vectors are stored components first: a bundle of n points or directions has shape (3, n).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

EPS = 1e-12


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The dot product over the first axis of two (3, n) bundles (or (3, 1), which broadcasts)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def normalize(v: np.ndarray) -> np.ndarray:
    """A (3, ...) bundle scaled to unit length."""
    return v / np.sqrt(np.maximum((v * v).sum(0), EPS))


def rotation(axis: str, degrees: float) -> np.ndarray:
    """The right-handed 3 x 3 rotation about the x, y or z axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i = 'xyz'.index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    matrix[j, j] = matrix[k, k] = c
    matrix[j, k], matrix[k, j] = -s, s
    return matrix


def frame_along(direction: np.ndarray) -> np.ndarray:
    """A rotation whose y axis is `direction`, and whose x axis stays as near to the old x axis as it can."""
    y = np.asarray(direction, float) / np.linalg.norm(direction)
    helper = np.array([1.0, 0, 0]) if abs(y[0]) < 0.95 else np.array([0, 0, 1.0])
    z = np.cross(helper, y)
    z /= np.linalg.norm(z)
    return np.stack([np.cross(y, z), y, z], axis=1)


def near_root(a: np.ndarray, half_b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The smaller root of a t^2 + 2 half_b t + c with a > 0; infinity where there is none."""
    disc = half_b * half_b - a * c
    root = (-half_b - np.sqrt(np.maximum(disc, 0))) / a
    return np.where(disc > 0, root, np.inf)


@dataclass(frozen=True)
class Sphere:
    """The unit ball about the origin; with three scales, any ellipsoid."""

    def hit(self, o: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Distance (in units of |d|) to the first point of the ray o + t d in the solid, infinity if none."""
        return near_root(dot(d, d), dot(o, d), dot(o, o) - 1)

    def normal(self, p: np.ndarray) -> np.ndarray:
        """The outward normal, of any length, at points of the surface."""
        return p

    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres (3, k) and radii (k,) of balls whose convex hull holds the solid."""
        return np.zeros((3, 1)), np.ones(1)


@dataclass(frozen=True)
class RoundCone:
    """The convex hull of a ball of radius `ra` at the origin and one of radius `rb` at (0, length, 0).

    With s = (ra - rb) / length and c = sqrt(1 - s^2), its flank is the part of the cone c q = ra - s y (q the distance
    from the axis) between the two circles of contact, y = s ra and y = length + s rb.
    """

    length: float
    ra: float
    rb: float

    def __post_init__(self) -> None:
        if abs(self.ra - self.rb) >= self.length:
            raise ValueError(f'one ball of {self} swallows the other: use a sphere')

    def hit(self, o: np.ndarray, d: np.ndarray) -> np.ndarray:
        s = (self.ra - self.rb) / self.length
        cc = 1 - s * s
        dd, od, oo = dot(d, d), dot(o, d), dot(o, o)
        t = near_root(dd, od, oo - self.ra**2)
        t = np.minimum(
            t,
            near_root(dd, od - self.length * d[1], oo - 2 * self.length * o[1] + self.length**2 - self.rb**2),
        )
        k = self.ra - s * o[1]
        a = cc * (dd - d[1] ** 2) - (s * d[1]) ** 2
        b = cc * (od - o[1] * d[1]) + k * s * d[1]
        c = cc * (oo - o[1] ** 2) - k * k
        disc = b * b - a * c
        a = np.where(np.abs(a) < EPS, EPS, a)
        root = np.sqrt(np.maximum(disc, 0))
        for flank in ((-b - root) / a, (-b + root) / a):
            y = o[1] + flank * d[1]
            on_flank = (disc > 0) & (y > s * self.ra) & (y < self.length + s * self.rb)
            t = np.where(on_flank & (flank < t), flank, t)
        return t

    def normal(self, p: np.ndarray) -> np.ndarray:
        s = (self.ra - self.rb) / self.length
        q = np.sqrt(p[0] ** 2 + p[2] ** 2)
        y = np.clip(p[1] - s * q / np.sqrt(1 - s * s), 0, self.length)
        return np.stack([p[0], p[1] - y, p[2]])

    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[0, 0], [0, self.length], [0, 0]], float), np.array([self.ra, self.rb])


@dataclass(frozen=True)
class Frustum:
    """A cylinder or cone with flat ends, about the y axis from y = 0 (radius `ra`) to y = length (radius `rb`)."""

    length: float
    ra: float
    rb: float

    def hit(self, o: np.ndarray, d: np.ndarray) -> np.ndarray:
        k = (self.ra - self.rb) / self.length
        r = self.ra - k * o[1]
        a = d[0] ** 2 + d[2] ** 2 - (k * d[1]) ** 2
        b = o[0] * d[0] + o[2] * d[2] + k * r * d[1]
        disc = b * b - a * (o[0] ** 2 + o[2] ** 2 - r * r)
        a = np.where(np.abs(a) < EPS, EPS, a)
        root = np.sqrt(np.maximum(disc, 0))
        t = np.full(np.broadcast(o[0], d[0]).shape, np.inf)
        for flank in ((-b - root) / a, (-b + root) / a):
            y = o[1] + flank * d[1]
            t = np.where((disc > 0) & (y >= 0) & (y <= self.length) & (flank < t), flank, t)
        dy = np.where(np.abs(d[1]) < EPS, EPS, d[1])
        for y, radius in ((0.0, self.ra), (self.length, self.rb)):
            end = (y - o[1]) / dy
            inside = (o[0] + end * d[0]) ** 2 + (o[2] + end * d[2]) ** 2 <= radius * radius
            t = np.where(inside & (end < t), end, t)
        return t

    def normal(self, p: np.ndarray) -> np.ndarray:
        k = (self.ra - self.rb) / self.length
        q = np.maximum(np.sqrt(p[0] ** 2 + p[2] ** 2), EPS)
        n = np.stack([p[0] / q, np.full_like(q, k), p[2] / q])
        flank = np.abs(q - self.ra + k * p[1])
        bottom, top = np.abs(p[1]), np.abs(p[1] - self.length)
        n = np.where((bottom < flank) & (bottom < top), np.array([[0], [-1.0], [0]]), n)
        return np.where((top < flank) & (top <= bottom), np.array([[0], [1.0], [0]]), n)

    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[0, 0], [0, self.length], [0, 0]], float), np.array([self.ra, self.rb])


@dataclass(frozen=True, eq=False)
class Polytope:
    """The intersection of half-spaces normal . p <= offset: boxes, wedges, prisms; one half-space is a floor or a wall."""

    normals: np.ndarray  # (k, 3), unit length
    offsets: np.ndarray  # (k,)
    corners: np.ndarray = field(default=None)  # (3, m); None: unbounded

    def hit(self, o: np.ndarray, d: np.ndarray) -> np.ndarray:
        enter, leave = 0.0, np.inf
        for n, offset in zip(self.normals, self.offsets, strict=True):
            speed = n[0] * d[0] + n[1] * d[1] + n[2] * d[2]
            gap = offset - (n[0] * o[0] + n[1] * o[1] + n[2] * o[2])
            t = gap / np.where(np.abs(speed) < EPS, EPS, speed)
            enter = np.maximum(enter, np.where(speed < 0, t, np.where((speed < EPS) & (gap < 0), np.inf, 0)))
            leave = np.minimum(leave, np.where(speed > 0, t, np.inf))
        return np.where((enter < leave) & (enter > 0), enter, np.inf)

    def normal(self, p: np.ndarray) -> np.ndarray:
        return self.normals[(self.normals @ p - self.offsets[:, None]).argmax(0)].T

    def hull(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.corners is None:
            return None
        return self.corners, np.zeros(self.corners.shape[1])


def half_space(normal: tuple[float, float, float] | np.ndarray) -> Polytope:
    """Everything behind the plane through the origin with this outward normal."""
    return Polytope(np.array([normal], float), np.zeros(1))


def box(size: tuple[float, float, float]) -> Polytope:
    """A box about the origin with these three edge lengths."""
    half = np.asarray(size, float) / 2
    normals = np.concatenate([np.eye(3), -np.eye(3)])
    corners = np.array(np.meshgrid(*[(-h, h) for h in half])).reshape(3, -1)
    return Polytope(normals, np.tile(half, 2), corners)


def convex_hull(planes: list[tuple[tuple[float, float, float], float]]) -> Polytope:
    """The bounded polytope of these (normal of any length, offset along the unit normal) half-spaces."""
    normals = np.array([n for n, _ in planes], float)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    offsets = np.array([offset for _, offset in planes], float)
    triples = np.array(list(combinations(range(len(planes)), 3)))
    systems = normals[triples]
    solvable = np.abs(np.linalg.det(systems)) > 1e-9
    points = np.linalg.solve(systems[solvable], offsets[triples[solvable]][..., None])[..., 0]
    inside = (points @ normals.T <= offsets + 1e-9).all(1)
    return Polytope(normals, offsets, points[inside].T)


def prism(profile: list[tuple[float, float]], width: float, taper: float = 0.0) -> Polytope:
    """A convex polygon in the x-y plane (counter-clockwise), extruded along z to `width`.

    `taper` leans the two flat sides inwards by that many units of z per unit of y, from y = 0 on.
    """
    planes = []
    for (x0, y0), (x1, y1) in zip(profile, profile[1:] + profile[:1], strict=True):
        n = np.array([y1 - y0, x0 - x1, 0.0]) / np.hypot(x1 - x0, y1 - y0)
        planes.append((tuple(n), n[0] * x0 + n[1] * y0))
    length = float(np.hypot(1, taper))
    planes += [((0, taper, side), width / 2 / length) for side in (-1, 1)]
    return convex_hull(planes)


Shape = Sphere | RoundCone | Frustum | Polytope


@dataclass(frozen=True, eq=False)
class Solid:
    """A shape in the world: p_world = rotation (scale * p_shape) + centre."""

    shape: Shape
    centre: np.ndarray  # (3,)
    rotation: np.ndarray  # (3, 3)
    scale: np.ndarray  # (3,)

    def moved(self, turn: np.ndarray, factor: float, shift: np.ndarray) -> Solid:
        """The solid after p -> factor * turn p + shift."""
        return Solid(
            self.shape, factor * turn @ self.centre + shift, turn @ self.rotation, self.scale * factor
        )

    def to_shape(self, points: np.ndarray) -> np.ndarray:
        """World points (3, n) in the coordinates of the shape."""
        return (self.rotation.T @ (points - self.centre[:, None])) / self.scale[:, None]

    def to_texture(self, points: np.ndarray) -> np.ndarray:
        """World points (3, n) turned into the solid's axes, in metres: where textures are looked up."""
        return self.rotation.T @ (points - self.centre[:, None])

    def hit(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Distance along world rays ((3, n) or (3, 1) each) to the first point of the solid, infinity if none.

        Only hits in front count; no ray may start inside.
        """
        inverse = self.rotation.T / self.scale[:, None]
        with np.errstate(over='ignore', invalid='ignore'):
            t = self.shape.hit(inverse @ (origins - self.centre[:, None]), inverse @ directions)
        return np.where(t > 1e-9, t, np.inf)

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Unit outward normals (3, n) at world points of the surface."""
        return self.rotation @ normalize(self.shape.normal(self.to_shape(points)) / self.scale[:, None])

    def hull(self) -> tuple[np.ndarray, np.ndarray] | None:
        """World balls whose convex hull holds the solid: centres (3, k), radii (k,); None where unbounded."""
        hull = self.shape.hull()
        if hull is None:
            return None
        centres, radii = hull
        return self.rotation @ (centres * self.scale[:, None]) + self.centre[
            :, None
        ], radii * self.scale.max()
