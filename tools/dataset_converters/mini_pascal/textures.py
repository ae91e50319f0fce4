"""Materials: colours, procedural textures that mix them, shine and bumps, and palettes to draw them from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .noise import fractal, value_noise, wave

Color = tuple[float, float, float]  # sRGB in [0, 1]
Pattern = tuple[
    np.ndarray | float, np.ndarray | float
]  # share of the second colour, factor of the brightness; (n,)
Texture = Callable[
    [np.ndarray, np.ndarray], Pattern
]  # of points (3, n) and the pixel's footprint (n,), in units
TEXTURES: dict[str, Texture] = {}


def texture(function: Texture) -> Texture:
    """Enters a texture in the table under its name."""
    TEXTURES[function.__name__] = function
    return function


@dataclass(frozen=True)
class Material:
    """How a surface looks: two sRGB colours in [0, 1], the texture that mixes them, its scale, and its shine.

    `gloss` is the strength of the highlight, `mirror` that of the reflected sky, `glow` the light it sends out itself;
    `bump` (strength, size in metres) roughens the normals for shading, never those of the truth.
    """

    color: Color
    texture: str = 'plain'
    color2: Color = (0.0, 0.0, 0.0)
    scale: float = 1.0
    gloss: float = 0.05
    mirror: float = 0.0
    glow: float = 0.0
    bump: tuple[float, float] = (0.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@texture
def plain(p: np.ndarray, w: np.ndarray) -> Pattern:
    """One colour with a little unevenness."""
    return 0.0, 1 + 0.12 * fractal(p * 9, 2, w * 9)


@texture
def checker(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Square tiles in two colours with joints."""
    a, b = wave(p[0] / 2, w / 2), wave(p[2] / 2, w / 2)
    grout = np.maximum(wave(p[0] + 0.01, w, 0.03), wave(p[2] + 0.01, w, 0.03))
    return a + b - 2 * a * b, (1 - 0.3 * grout) * (1 + 0.12 * fractal(p * 3, 3, w * 3))


@texture
def planks(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Floor boards along z, one unit wide and six long."""
    row = np.floor(p[0])
    along = p[2] / 6 + 0.37 * row
    board = value_noise(np.stack([row * 3.7, np.floor(along) * 5.1, row * 0]))
    joint = np.maximum(wave(p[0], w, 0.05), wave(along, w / 6, 0.008))
    grain = fractal(np.stack([p[0] * 5, board * 20, p[2] * 0.5]), 3, w * 5)
    return np.clip(board * 0.75 + 0.9 * grain, 0, 1), 1 - 0.45 * joint


@texture
def bricks(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Courses of bricks one unit high; the second colour is the mortar."""
    row = np.floor(p[1])
    x = (p[0] + p[2]) / 2.6 + 0.5 * (row % 2)
    mortar = np.maximum(wave(p[1], w, 0.14), wave(x, w / 2.6, 0.055))
    tone = value_noise(np.stack([np.floor(x) * 3.1, row * 2.3, row * 0]))
    return mortar, 0.8 + 0.4 * tone * (1 - mortar) + 0.25 * fractal(p * 4, 2, w * 4)


@texture
def grass(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Patches of two greens and blades."""
    patches = fractal(p * 0.35, 3)
    blades = fractal(p * np.array([[9.0], [9.0], [4.0]]), 3, w * 9)
    return np.clip(0.45 + 1.1 * patches, 0, 1), 1 + 0.9 * blades


@texture
def gravel(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Fine speckles: sand, carpet, tarmac."""
    return np.clip(0.5 + fractal(p * 0.5, 3), 0, 1), 1 + 0.6 * fractal(p * 14, 3, w * 14)


@texture
def ripples(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Waves along x."""
    swell = fractal(p * np.array([[0.5], [1.0], [2.2]]), 4, w * 2.2)
    return np.clip(0.5 + 1.3 * swell, 0, 1), 1.0


@texture
def plaster(p: np.ndarray, w: np.ndarray) -> Pattern:
    """A painted wall."""
    return np.clip(0.4 + fractal(p * 0.6, 3), 0, 1), 1 + 0.1 * fractal(p * 25, 2, w * 25)


@texture
def stripes(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Horizontal stripes."""
    return wave(p[1], w), 1 + 0.1 * fractal(p * 3, 2, w * 3)


@texture
def pinstripes(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Vertical stripes."""
    return wave(p[0] + p[2], w, 0.35), 1 + 0.06 * fractal(p * 3, 2, w * 3)


@texture
def plaid(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Stripes both ways."""
    return 0.5 * (wave(p[1], w) + wave(p[0], w)), 1.0


@texture
def spots(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Large patches with sharp borders, as on a cow."""
    return np.clip(0.5 + 9 * (value_noise(p) - 0.52), 0, 1), 1 + 0.15 * fractal(p * 6, 2, w * 6)


@texture
def curls(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Wool, fur, hair or upholstery."""
    return np.clip(0.5 + fractal(p * 0.4, 2), 0, 1), 1 + 1.1 * fractal(p, 3, w)


@texture
def leaves(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Foliage."""
    return np.clip(0.5 + 1.6 * fractal(p * 0.5, 2), 0, 1), 1 + 1.7 * fractal(p, 3, w)


@texture
def grain(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Wood, its grain along x."""
    rings = fractal(p * np.array([[2.0], [9.0], [9.0]]), 3, w * 9)
    return np.clip(0.5 + 1.4 * rings, 0, 1), 1.0


@texture
def facade(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Rows of windows in a wall."""
    x = p[0] + p[2]
    window = wave(x, w, 0.5) * wave(p[1], w, 0.55)
    tone = value_noise(np.stack([np.floor(x) * 3.1, np.floor(p[1]) * 2.3, 0 * x]))
    return window, 1 + 0.5 * (tone - 0.5) * window + 0.1 * fractal(p * 4, 2, w * 4)


@texture
def lanes(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Asphalt with a dashed white line along x; the line lies at z = 0 of the texture."""
    line = np.clip((0.07 - np.abs(p[2])) / np.maximum(w, 0.01) + 0.5, 0, 1) * wave(p[0] / 3, w / 3)
    speckle = 1 + 0.5 * fractal(p * 14, 3, w * 14) + 0.2 * fractal(p * 0.5, 3)
    return 0.85 * line, speckle


@texture
def abstract(p: np.ndarray, w: np.ndarray) -> Pattern:
    """Soft landscape-like bands: a painting, or the picture on a screen."""
    y = p[1] + 0.6 * fractal(p * 1.5, 3)
    return np.clip(0.5 + 3 * y, 0, 1), 1 + 0.8 * fractal(p * 3 + 5, 3, w * 3)


def albedo(material: Material, points: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Linear-light reflectance (3, n) of a material at texture points (3, n) in metres.

    Args:
        material: What the surface is made of.
        points: Points in the solid's axes, in metres.
        footprint: Width of a pixel on the surface in metres, (n,): finer detail is faded out.
    """
    scaled = points / material.scale + np.array(material.offset)[:, None]
    weight, shade = TEXTURES[material.texture](scaled, footprint / material.scale)
    first, second = (linear(np.array(c))[:, None] for c in (material.color, material.color2))
    return np.clip((first + (second - first) * weight) * shade, 0, 1)


def bumps(material: Material, points: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Offsets (3, n) to unit normals at texture points (3, n) in metres; they fade where a pixel covers a bump."""
    strength, size = material.bump
    scaled = points / size
    fade = 2 * strength * np.clip(1.6 - footprint / size, 0.15, 1)
    return fade * (np.stack([value_noise(scaled + shift) for shift in (3.1, 11.7, 23.3)]) - 0.5)


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] as linear light (power 2.2)."""
    return np.maximum(srgb, 0) ** 2.2


def palette(text: str) -> list[Color]:
    """Colours from their hexadecimal names, separated by blanks: `'#ff8000 #204060'`."""
    return [tuple(byte / 255 for byte in bytes.fromhex(name[1:])) for name in text.split()]


def vary(rng: np.random.Generator, color: Color, amount: float = 0.05) -> Color:
    """The colour with a little noise: half of it in brightness, half in each channel."""
    noise = 0.5 * rng.normal(0, amount, 3) + 0.5 * rng.normal(0, amount)
    return tuple(np.clip(np.array(color) + noise, 0.02, 0.98).tolist())


def pick(rng: np.random.Generator, colors: Sequence[Color], amount: float = 0.05) -> Color:
    """One colour of a palette, varied."""
    return vary(rng, colors[rng.integers(len(colors))], amount)


def dimmed(color: Color, factor: float) -> Color:
    """The colour with every channel times a factor."""
    return tuple(factor * c for c in color)
