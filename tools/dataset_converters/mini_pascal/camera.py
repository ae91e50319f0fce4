"""The pinhole camera: rays of pixels, the camera's frame, and the bounds of things in the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import normalize, rotation


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at (0, height, 0) that looks along -z, pitched up by `pitch` and rolled by `roll` degrees."""

    height: float
    pitch: float
    fov: float  # degrees, over the shorter side
    size: tuple[int, int]  # height, width in pixels
    roll: float = 0.0

    @property
    def position(self) -> np.ndarray:
        return np.array([0.0, self.height, 0.0])

    @property
    def axes(self) -> np.ndarray:
        """Columns: right, up, and towards the viewer, in world coordinates."""
        return rotation('x', self.pitch) @ rotation('z', self.roll)

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return min(self.size) / 2 / np.tan(np.radians(self.fov / 2))

    def slopes(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates (corner of the image = 0, 0) as slopes right and up of the ray."""
        height, width = self.size
        return (x - width / 2) / self.focal, (height / 2 - y) / self.focal

    def rays(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Unit directions (3, n) in world coordinates for slopes u, v (n,)."""
        return self.axes @ normalize(np.stack([u, v, -np.ones_like(u)]))

    def to_camera(self, vectors: np.ndarray) -> np.ndarray:
        """World directions (3, n) in the camera's frame: x right, y up, z towards the viewer."""
        return self.axes.T @ vectors

    def bounds(self, centres: np.ndarray, radii: np.ndarray) -> tuple[float, float, float, float] | None:
        """Slopes (u0, u1, v0, v1) between which balls at centres (3, k) are seen; None where one is not all in front."""
        x, y, z = self.to_camera(centres - self.position[:, None])
        depth = -z
        if (depth <= radii + 1e-3).any():
            return None
        limits = []
        for side in (x, y):
            angle, half = np.arctan2(side, depth), np.arcsin(radii / np.hypot(side, depth))
            limits += [np.tan(angle - half).min(), np.tan(angle + half).max()]
        return tuple(limits)
