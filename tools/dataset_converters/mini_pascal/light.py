"""Sun and sky: the light of a scene, the colour of the sky in every direction, and the film curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import dot, normalize
from .noise import fractal
from .textures import linear


@dataclass(frozen=True)
class Light:
    """Sun and sky of a scene, all colours sRGB in [0, 1]; indoors the "sky" is what windows and ceiling give."""

    sun: tuple[float, float, float]  # direction towards the sun, any length
    sun_color: tuple[float, float, float] = (1.0, 0.95, 0.85)
    sun_power: float = 2.4
    softness: float = 0.03  # radius of the sun's disc at distance 1
    zenith: tuple[float, float, float] = (0.35, 0.55, 0.85)
    horizon: tuple[float, float, float] = (0.8, 0.88, 0.95)
    bounce: tuple[float, float, float] = (0.45, 0.42, 0.38)
    ambient: float = 0.75
    clouds: float = 0.0
    cloud_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    haze: float = 0.0  # share of the horizon's colour mixed in, per metre


def sky(light: Light, directions: np.ndarray) -> np.ndarray:
    """Linear colour (3, n) of the sky, or below the horizon of the far ground, in these directions (3, n)."""
    up = directions[1]
    zenith, horizon, bounce = (
        linear(np.array(c))[:, None] for c in (light.zenith, light.horizon, light.bounce)
    )
    color = horizon + (zenith - horizon) * np.clip(up, 0, 1) ** 0.55
    if light.clouds > 0:
        plane = directions[[0, 2, 1]] / (np.maximum(up, 0) + 0.12) * np.array([[1.0], [1.3], [0.0]])
        density = fractal(plane * 1.1 + np.array(light.cloud_offset)[:, None], 4) + light.clouds - 0.35
        cover = np.clip(density * 3.5, 0, 0.92) * np.clip(up * 8, 0, 1)
        white = 1.05 - 0.35 * np.clip(density * 2 - 0.2, 0, 1)
        color = color + (white - color) * cover
    glow = np.clip(dot(directions, normalize(np.array(light.sun))[:, None]), 0, 1) ** 40
    color = color + 0.35 * glow * linear(np.array(light.sun_color))[:, None]
    return np.where(up > 0, color, horizon + (bounce - horizon) * np.clip(-up * 6, 0, 1))


def tone(color: np.ndarray) -> np.ndarray:
    """Linear light to display values in [0, 1]: Narkowicz's fit (2015) of the ACES film curve, then power 1 / 2.2."""
    x = np.maximum(color, 0) * 0.75
    return np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1) ** (1 / 2.2)
