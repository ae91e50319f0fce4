"""Smooth noise and soft square waves, both blurred where a pixel covers their detail, so that nothing aliases."""

from __future__ import annotations

import numpy as np

LATTICE = 32
NOISE = np.random.Generator(np.random.PCG64(20221)).random(LATTICE**3)


def value_noise(p: np.ndarray) -> np.ndarray:
    """Smooth noise in [0, 1] at points (3, n): a periodic lattice of random values, interpolated with a smoothstep."""
    cell = np.floor(p)
    f = p - cell
    f = f * f * (3 - 2 * f)
    low = cell.astype(np.int64) & (LATTICE - 1)
    high = (low + 1) & (LATTICE - 1)
    z0, z1 = low[2], high[2]
    rows = [y * LATTICE for y in (low[1], high[1])]
    slabs = []
    for x in (low[0], high[0]):
        x = x * LATTICE * LATTICE
        lines = []
        for row in rows:
            base = x + row
            a, b = NOISE[base + z0], NOISE[base + z1]
            lines.append(a + (b - a) * f[2])
        slabs.append(lines[0] + (lines[1] - lines[0]) * f[1])
    return slabs[0] + (slabs[1] - slabs[0]) * f[0]


def fractal(p: np.ndarray, octaves: int, footprint: np.ndarray | float = 0.0) -> np.ndarray:
    """Noise of several octaves, centred on 0 (about +-0.5); octaves finer than the pixel's `footprint` fade out."""
    total, weight, frequency = 0.0, 0.5, 1.0
    for _ in range(octaves):
        visible = np.clip(1.5 - 2 * footprint * frequency, 0, 1)
        total = total + weight * visible * (value_noise(p * frequency + 7.3 * frequency) - 0.5)
        weight, frequency = weight / 2, frequency * 2.03
    return total


def wave(x: np.ndarray, footprint: np.ndarray, duty: float = 0.5) -> np.ndarray:
    """A square wave of period 1 (1 on a share `duty` of it), blurred over the footprint: no aliasing."""
    blur = np.maximum(footprint, 0.02)
    phase = np.abs((x - duty / 2 + 0.5) % 1 - 0.5)
    crisp = np.clip((duty / 2 - phase) / blur + 0.5, 0, 1)
    return crisp + (duty - crisp) * np.clip(2 * footprint - 0.5, 0, 1)
