"""The ray caster: nearest hits, soft shadows, contact shading, reflections, and adaptive antialiasing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .geometry import dot, normalize
from .light import Light, sky, tone
from .model import Surface
from .occlusion import Occlusion, scatter
from .textures import albedo, bumps, linear

NOTHING = -1  # index of rays that hit nothing: they see the sky


@dataclass
class Picture:
    """What the camera sees: colour (h, w, 3) in [0, 1], and at the pixel centres surface indices and normals."""

    color: np.ndarray
    index: np.ndarray  # (h, w), NOTHING where the ray meets nothing
    normals: np.ndarray  # (h, w, 3) float32, camera frame


@dataclass
class Hits:
    """Points of surfaces that rays met, sorted by surface; every array has n entries (or (3, n) for vectors)."""

    points: np.ndarray
    directions: np.ndarray
    distance: np.ndarray
    index: np.ndarray
    dither: np.ndarray  # (2, n), random numbers of the pixel
    normals: np.ndarray
    shading: np.ndarray  # normals with bumps
    base: np.ndarray  # (3, n), linear reflectance
    gloss: np.ndarray
    mirror: np.ndarray
    glow: np.ndarray


class Renderer:
    """Traces and shades rays of one camera through a list of surfaces."""

    def __init__(self, surfaces: list[Surface], camera: Camera, light: Light) -> None:
        self.surfaces, self.camera, self.light = surfaces, camera, light
        hulls = [s.solid.hull() for s in surfaces]
        self.bounds = [hull and camera.bounds(*hull) for hull in hulls]  # None: may fill the image
        self.sun = normalize(np.array(light.sun))
        casters = [s.solid if s.casts else None for s in surfaces]
        self.occlusion = Occlusion(casters, self.sun, light.softness, camera.focal)

    def trace(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Casts rays with slopes u, v (n,): unit directions (3, n), distances (n,), indices of the surfaces (n,)."""
        directions = self.camera.rays(u, v)
        origin = self.camera.position[:, None]
        distance, index = np.full(u.shape, np.inf), np.full(u.shape, NOTHING)
        for i, (surface, bounds) in enumerate(zip(self.surfaces, self.bounds, strict=True)):
            if bounds is None:
                seen = np.arange(u.size)
            else:
                seen = np.flatnonzero(
                    (u >= bounds[0]) & (u <= bounds[1]) & (v >= bounds[2]) & (v <= bounds[3])
                )
            if seen.size:
                t = surface.solid.hit(origin, directions[:, seen])
                nearer = t < distance[seen]
                distance[seen[nearer]] = t[nearer]
                index[seen[nearer]] = i
        return directions, distance, index

    def look_up(
        self, x: np.ndarray, y: np.ndarray, directions: np.ndarray, distance: np.ndarray, index: np.ndarray
    ) -> Hits:
        """Points, normals and materials where the rays of pixel positions x, y (n,) hit; all rays must hit."""
        n = index.size
        hits = Hits(
            points=self.camera.position[:, None] + directions * distance,
            directions=directions,
            distance=distance,
            index=index,
            dither=scatter(x, y),
            **{name: np.empty((3, n)) for name in ('normals', 'shading', 'base')},
            **{name: np.empty(n) for name in ('gloss', 'mirror', 'glow')},
        )
        ends = np.flatnonzero(np.diff(index)) + 1
        for start, stop in zip([0, *ends], [*ends, n], strict=True):
            group = slice(start, stop)
            surface = self.surfaces[index[start]]
            normals = surface.solid.normal(hits.points[:, group])
            slant = np.maximum(-dot(normals, directions[:, group]), 0.15)
            footprint = distance[group] / self.camera.focal / np.sqrt(slant)
            place = surface.solid.to_texture(hits.points[:, group])
            material = surface.material
            hits.normals[:, group] = hits.shading[:, group] = normals
            if material.bump[0] > 0:
                rough = surface.solid.rotation @ bumps(material, place, footprint)
                hits.shading[:, group] = normalize(normals + rough)
            hits.base[:, group] = albedo(material, place, footprint)
            hits.gloss[group], hits.mirror[group], hits.glow[group] = (
                material.gloss,
                material.mirror,
                material.glow,
            )
        return hits

    def shade(self, hits: Hits) -> np.ndarray:
        """Linear colour (3, n): sun, sky and bounced light, highlight, reflection, haze."""
        light, sun_way = self.light, self.sun[:, None]
        sun = light.sun_power * linear(np.array(light.sun_color))[:, None]
        zenith, horizon, bounce = (
            linear(np.array(color))[:, None] for color in (light.zenith, light.horizon, light.bounce)
        )
        facing = np.where(dot(hits.normals, sun_way) > 0, np.maximum(dot(hits.shading, sun_way), 0), 0)
        front = np.flatnonzero(facing > 0)
        above = hits.points[:, front] + 1e-4 * hits.normals[:, front]
        sunlit = np.zeros_like(facing)
        sunlit[front] = self.occlusion.sunlit(above, hits.index[front], hits.dither[:, front])
        upward = 0.5 + 0.5 * hits.shading[1]
        ambient = 1.6 * light.ambient * (bounce + (0.5 * (zenith + horizon) - bounce) * upward)
        ambient = ambient * self.occlusion.openness(hits.points, hits.normals)
        color = hits.base * (sun * (facing * sunlit) + ambient + 3.0 * hits.glow)
        half_way = normalize(sun_way - hits.directions)
        color += sun * (hits.gloss * sunlit * np.clip(dot(hits.shading, half_way), 0, 1) ** 40)
        shiny = np.flatnonzero(hits.mirror > 0)
        if shiny.size:
            n, d = hits.shading[:, shiny], hits.directions[:, shiny]
            view = np.clip(-dot(n, d), 0, 1)
            share = hits.mirror[shiny] * (0.25 + 0.75 * (1 - view) ** 4)
            color[:, shiny] += (sky(light, d + 2 * view * n) - color[:, shiny]) * share
        return horizon + (color - horizon) * np.exp(-light.haze * hits.distance)

    def sample(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colours in [0, 1] (3, n), surface indices (n,) and world normals (3, n) at pixel positions x, y (n,)."""
        directions, distance, index = self.trace(*self.camera.slopes(x, y))
        color, normals = sky(self.light, directions), -directions
        hit = np.flatnonzero(index != NOTHING)
        if hit.size:
            hit = hit[np.argsort(index[hit], kind='stable')]
            hits = self.look_up(x[hit], y[hit], directions[:, hit], distance[hit], index[hit])
            color[:, hit], normals[:, hit] = self.shade(hits), hits.normals
        return tone(color), index, normals

    def picture(self) -> Picture:
        """Renders the picture: one ray per pixel, four more where neighbours differ in surface or colour."""
        shape = height, width = self.camera.size
        y, x = (grid.ravel() + 0.5 for grid in np.mgrid[:height, :width])
        color, index, normals = self.sample(x, y)
        rough = np.flatnonzero(unlike(color.reshape(3, *shape), index.reshape(shape)))
        spread = np.array([(-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)]).T[:, :, None]
        more, _, _ = self.sample((x[rough] + spread[0]).ravel(), (y[rough] + spread[1]).ravel())
        color[:, rough] = (color[:, rough] + more.reshape(3, 4, -1).sum(1)) / 5
        return Picture(
            color=color.reshape(3, *shape).transpose(1, 2, 0),
            index=index.reshape(shape),
            normals=self.camera.to_camera(normals).reshape(3, *shape).transpose(1, 2, 0).astype(np.float32),
        )


def unlike(color: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Pixels (h, w) that differ from a neighbour in surface (h, w), or by more than 0.05 in a colour (3, h, w)."""
    rough = np.zeros(index.shape, bool)
    for one, other in (
        ((slice(1, None),), (slice(-1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(-1))),
    ):
        step = np.abs(color[(slice(None), *one)] - color[(slice(None), *other)]).max(0) > 0.05
        step |= index[one] != index[other]
        rough[one] |= step
        rough[other] |= step
    return rough
