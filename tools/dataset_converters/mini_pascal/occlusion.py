"""What keeps light away: the shadows of the sun, soft at the edges, and the darkening near other things."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .geometry import Frustum, Polytope, RoundCone, Solid, dot


def scatter(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Two uncorrelated pseudo-random numbers in [0, 1) per pixel position, (2, n): a hash of the coordinates."""
    key = (8 * x).astype(np.int64) * 1973 + (8 * y).astype(np.int64) * 9277
    words = np.stack([key * 26699 | 1, key * 48611 + 7919]) & 0xFFFFFFFF
    for _ in range(2):
        words = ((words >> 15) ^ words) * 0x2C1B3C6D & 0xFFFFFFFF
    return words / 2.0**32


def occluders(solid: Solid) -> list[tuple[float, float, float, float]]:
    """A few balls (x, y, z, radius) that stand in for the solid when it darkens what is near it."""
    shape, scale = solid.shape, solid.scale
    if isinstance(shape, RoundCone | Frustum):
        wide, shares = float(np.sqrt(scale[0] * scale[2])), (0.0, 0.5, 1.0)
        places = [(0, f * shape.length, 0) for f in shares]
        radii = [wide * (shape.ra + f * (shape.rb - shape.ra)) for f in shares]
    elif isinstance(shape, Polytope):
        low, high = shape.corners.min(1), shape.corners.max(1)
        half = (high - low) * scale / 2
        radius = max(half.min(), 0.35 * np.median(half))
        counts = [int(np.clip(np.ceil(h / radius), 1, 4)) for h in half]
        steps = [
            np.linspace(-1, 1, n) * max(h - radius, 0) / s
            for n, h, s in zip(counts, half, scale, strict=True)
        ]
        places = np.array(np.meshgrid(*steps)).reshape(3, -1).T + (low + high) / 2
        radii = [radius] * len(places)
    else:
        places, radii = [(0, 0, 0)], [float(np.cbrt(scale.prod()))]
    centres = solid.rotation @ (np.array(places, float) * scale).T + solid.centre[:, None]
    return [(*centre, radius) for centre, radius in zip(centres.T, radii, strict=True)]


class Occlusion:
    """Answers which points the sun and the open sky reach.

    Args:
        solids: All solids of the scene, None for those that throw no shadow.
        sun: Unit vector towards the sun.
        softness: Radius of the sun's disc at distance 1.
        focal: Focal length of the camera in pixels: what is smaller than a pixel does not darken its surroundings.
    """

    def __init__(
        self, solids: Sequence[Solid | None], sun: np.ndarray, softness: float, focal: float
    ) -> None:
        self.solids, self.sun, self.softness = solids, sun, softness
        self.side = np.cross(sun, (0.0, 0.0, 1.0) if abs(sun[2]) < 0.9 else (1.0, 0.0, 0.0))
        self.side /= np.linalg.norm(self.side)
        self.other = np.cross(sun, self.side)
        self.casters = [i for i, solid in enumerate(solids) if solid is not None]
        self.shades = np.array([self._shade(solids[i]) for i in self.casters]).reshape(-1, 5)
        balls = np.array([ball for i in self.casters for ball in occluders(solids[i])]).reshape(-1, 4)
        depth, radius = -balls[:, 2], balls[:, 3]
        self.balls = balls[(radius > 0.035) & (depth < focal * radius)]

    def _shade(self, solid: Solid) -> tuple[float, ...]:
        """Limits of a solid's shadow, penumbra included, along both axes across the light, and its end along the light."""
        centres, radii = solid.hull()
        reach = min(10.0, float((centres[1] + radii).max()) / max(self.sun[1], 0.1))
        margin = radii + self.softness * reach
        a, b, c = (axis @ centres for axis in (self.side, self.other, self.sun))
        return (
            (a - margin).min(),
            (a + margin).max(),
            (b - margin).min(),
            (b + margin).max(),
            (c + radii).max(),
        )

    def sunlit(self, points: np.ndarray, index: np.ndarray, dither: np.ndarray) -> np.ndarray:
        """Whether a ray from each point (3, n) reaches the sun, as 0 or 1, (n,).

        Args:
            points: Points just above surfaces.
            index: The solid that each point lies on (n,): it does not shade itself.
            dither: Two numbers in [0, 1) per point (2, n): the spot of the sun's disc that is looked for.
        """
        a = self.side @ points
        order = np.argsort(a)
        a, points, index, dither = a[order], points[:, order], index[order], dither[:, order]
        angle, radius = 2 * np.pi * dither[0], self.softness * np.sqrt(dither[1])
        spot = np.cos(angle) * self.side[:, None] + np.sin(angle) * self.other[:, None]
        towards = self.sun[:, None] + radius * spot
        b, c = self.other @ points, self.sun @ points
        free = np.ones(a.shape, bool)
        starts, stops = np.searchsorted(a, self.shades[:, 0]), np.searchsorted(a, self.shades[:, 1])
        for i, (_, _, b0, b1, c1), start, stop in zip(self.casters, self.shades, starts, stops, strict=True):
            part = slice(start, stop)
            near = (b[part] >= b0) & (b[part] <= b1) & (c[part] <= c1) & free[part] & (index[part] != i)
            near = np.flatnonzero(near) + start
            if near.size:
                free[near] = ~np.isfinite(self.solids[i].hit(points[:, near], towards[:, near]))
        share = np.empty(a.shape)
        share[order] = free
        return share

    def openness(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Ambient share (n,) left open at points (3, n): a ball of radius r at distance d hides cos (r/d)^2 of it."""
        order = np.argsort(points[0])
        (x, y, z), normals = points[:, order], normals[:, order]
        free = np.ones(x.shape)
        starts = np.searchsorted(x, self.balls[:, 0] - 3 * self.balls[:, 3])
        stops = np.searchsorted(x, self.balls[:, 0] + 3 * self.balls[:, 3])
        for (cx, cy, cz, radius), start, stop in zip(self.balls, starts, stops, strict=True):
            part, reach = slice(start, stop), 3 * radius
            near = np.flatnonzero((np.abs(y[part] - cy) < reach) & (np.abs(z[part] - cz) < reach)) + start
            if near.size:
                to_ball = np.stack([cx - x[near], cy - y[near], cz - z[near]])
                d2 = np.maximum(dot(to_ball, to_ball), 1e-9)
                d = np.sqrt(d2)
                cosine = np.maximum(dot(to_ball, normals[:, near]) / d, 0)
                hidden = cosine * np.minimum(radius * radius / d2, 1) * np.clip(3 - d / radius, 0, 1)
                free[near] *= 1 - 0.75 * hidden
        share = np.empty(x.shape)
        share[order] = free
        return share
