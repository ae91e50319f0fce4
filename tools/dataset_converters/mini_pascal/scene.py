"""From a seed to a finished scene: composition, rendering, the four truths, saliency, and the camera's noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .backdrop import daylight
from .camera import Camera
from .indoors import indoor_light, room
from .labels import CATEGORIES, PERSON_PARTS
from .outdoors import meadow, shore, street
from .render import Renderer
from .stage import Plan, Stage

SPLITS = ('train', 'val')
PLACES = ((room, 0.38), (street, 0.23), (meadow, 0.27), (shore, 0.12))
EMPTY_SHARE = 0.05  # scenes with nothing near: no salient object, no person
PEOPLE = ((0, 0.08), (1, 0.48), (2, 0.29), (3, 0.15))  # of the other scenes: planned number of people

SALIENT_MASS = 0.015  # least share of the image's weight, see `saliency`
SALIENT_RATIO = 0.5  # least share of the most salient object's weight


@dataclass
class SceneObject:
    """One visible object of a VOC class, as PASCAL-Part lists it.

    Attributes:
        name: PASCAL-Part's class name.
        class_index: VOC class, 1..20.
        mask: Where it is seen, bool (h, w).
        parts: Names and masks of its visible parts, in the file's order; empty for classes without parts.
    """

    name: str
    class_index: int
    mask: np.ndarray
    parts: list[tuple[str, np.ndarray]] = field(default_factory=list)


@dataclass
class Scene:
    """A rendered picture and its truths, all of size h x w.

    Attributes:
        image: RGB, uint8 (h, w, 3).
        context: PASCAL-Context ids, uint16 (h, w), 0..459.
        semseg: VOC classes, uint8 (h, w), 0..20.
        objects: The visible objects of the VOC classes with their parts.
        normals: Unit normals in the camera's frame (x right, y up, z to the viewer), float32 (h, w, 3); the sky's
            point at the viewer.
        saliency: 255 on the salient objects, else 0, uint8 (h, w).
        camera: The camera that saw it.
    """

    image: np.ndarray
    context: np.ndarray
    semseg: np.ndarray
    objects: list[SceneObject]
    normals: np.ndarray
    saliency: np.ndarray
    camera: Camera


def compose(rng: np.random.Generator, size: tuple[int, int]) -> Stage:
    """Draws place, camera, light, and everything that stands in the scene."""
    makers, weights = zip(*PLACES, strict=True)
    place = makers[rng.choice(len(makers), p=weights)]
    counts, shares = zip(*PEOPLE, strict=True)
    plan = Plan(people=int(rng.choice(counts, p=shares)), empty=rng.random() < EMPTY_SHARE)
    if place is room:
        camera = Camera(
            rng.uniform(1.2, 1.6), rng.uniform(-13, -6), rng.uniform(52, 62), size, rng.normal(0, 0.7)
        )
        stage = Stage(rng, camera, indoor_light(rng), rng.uniform(3.7, 5.2), rng.uniform(-26, 26))
    else:
        camera = Camera(
            rng.uniform(1.15, 1.75), rng.uniform(-7, -1), rng.uniform(48, 58), size, rng.normal(0, 0.7)
        )
        stage = Stage(rng, camera, daylight(rng), rng.uniform(8.2, 10.0), rng.uniform(-20, 20))
    place(stage, plan)
    return stage


def saliency(instance: np.ndarray, semseg: np.ndarray) -> np.ndarray:
    """The salient objects of an index map by rule: those that are large and central.

    Every pixel weighs exp(-r^2 / (2 0.4^2)), r its distance from the image's centre over half the diagonal; an object's
    mass is the share of all weight that its pixels hold, and people count double. Salient are the heaviest object, if
    its mass is at least `SALIENT_MASS`, and those with at least `SALIENT_RATIO` of that mass.

    Args:
        instance: Index of the visible object per pixel, (h, w), -1 where there is none.
        semseg: VOC classes, (h, w).

    Returns:
        Bool (h, w).
    """
    weight = np.exp(-radius_squared(instance.shape) / (2 * 0.4**2))
    mass = np.bincount(instance[instance >= 0], weight[instance >= 0]) / weight.sum()
    mass[np.unique(instance[semseg == CATEGORIES['person'].voc])] *= 2
    if not mass.size or mass.max() < SALIENT_MASS:
        return np.zeros(instance.shape, bool)
    return np.isin(instance, np.flatnonzero(mass >= SALIENT_RATIO * mass.max()))


def radius_squared(shape: tuple[int, int]) -> np.ndarray:
    """Squared distance of the pixels (h, w) from the centre; 1 at the corners."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    return ((2 * y + 1 - height) ** 2 + (2 * x + 1 - width) ** 2) / (height**2 + width**2)


def render_scene(seed: int, index: int, size: tuple[int, int], *, split: str = 'train') -> Scene:
    """Composes and renders one scene; the same arguments give the same bytes.

    Args:
        seed: Seed of the data set, >= 0.
        index: Number of the image in its split, >= 0.
        size: Height and width in pixels.
        split: 'train' or 'val': two independent streams of scenes.

    Returns:
        The picture and its truths.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    stage = compose(rng, size)
    surfaces, context, voc, instance, names = [], [], [], [], []
    for k, model in enumerate(stage.models):
        category = CATEGORIES[model.category]
        for piece in model.pieces:
            surfaces.append(piece.surface)
            names.append(piece.parts)
            context.append(category.context)
            voc.append(category.voc)
            instance.append(k if category.voc else -1)
    image = Renderer(surfaces, stage.camera, stage.light).picture()
    # a ray that meets nothing has index -1: the row of the sky goes last
    context_map = np.array([*context, CATEGORIES['sky'].context], np.uint16)[image.index]
    voc_map = np.array([*voc, 0], np.uint8)[image.index]
    instance_map = np.array([*instance, -1])[image.index]
    objects = [
        describe(stage.models[k].category, instance_map == k, image.index, names)
        for k in np.unique(instance_map[instance_map >= 0])
    ]
    return Scene(
        image=develop(image.color, rng),
        context=context_map,
        semseg=voc_map,
        objects=objects,
        normals=image.normals,
        saliency=np.where(saliency(instance_map, voc_map), 255, 0).astype(np.uint8),
        camera=stage.camera,
    )


def describe(category: str, mask: np.ndarray, index: np.ndarray, names: list[tuple[str, ...]]) -> SceneObject:
    """An object with the masks of its visible parts; a piece may belong to several (an eye to `head` and `leye`)."""
    row = CATEGORIES[category]
    parts: dict[str, np.ndarray] = {}
    for piece in np.unique(index[mask]):
        for name in names[piece]:
            seen = mask & (index == piece)
            parts[name] = parts[name] | seen if name in parts else seen
    order = {name: k for k, name in enumerate(PERSON_PARTS)}
    ranked = sorted(parts, key=lambda name: (order.get(name, len(order)), name))
    return SceneObject(row.part_name, row.voc, mask, [(name, parts[name]) for name in ranked])


def develop(color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours in [0, 1] as 8-bit RGB: exposure, a slight vignette, and the sensor's noise."""
    exposed = color * rng.uniform(0.93, 1.05) * (1 - 0.14 * radius_squared(color.shape[:2]))[..., None]
    noise = rng.normal(0, rng.uniform(0.004, 0.014), color.shape)
    return np.clip(255 * (exposed + noise) + 0.5, 0, 255).astype(np.uint8)
