"""What things are called: their ids in the two label sets, the VOC palette, and the order of body parts in a file."""

from __future__ import annotations

from typing import NamedTuple


class Category(NamedTuple):
    """One row of the table: id among the 459 of PASCAL-Context, among the 21 of VOC, and PASCAL-Part's name."""

    context: int
    voc: int = 0
    part_name: str = ''


CATEGORIES: dict[str, Category] = {
    'aeroplane': Category(2, 1, 'aeroplane'),
    'boat': Category(31, 4, 'boat'),
    'bottle': Category(34, 5, 'bottle'),
    'bus': Category(45, 6, 'bus'),
    'car': Category(59, 7, 'car'),
    'chair': Category(72, 9, 'chair'),
    'cow': Category(98, 10, 'cow'),
    'diningtable': Category(397, 11, 'table'),
    'dog': Category(113, 12, 'dog'),
    'horse': Category(207, 13, 'horse'),
    'person': Category(284, 15, 'person'),
    'pottedplant': Category(308, 16, 'pottedplant'),
    'sheep': Category(347, 17, 'sheep'),
    'sofa': Category(368, 18, 'sofa'),
    'tvmonitor': Category(427, 20, 'tvmonitor'),
    # background of VOC
    'building': Category(44),
    'cabinet': Category(46),
    'fence': Category(144),
    'floor': Category(158),
    'grass': Category(187),
    'mountain': Category(259),
    'picture': Category(287),
    'road': Category(324),
    'rug': Category(330),
    'sand': Category(334),
    'sidewalk': Category(354),
    'sky': Category(360),
    'tree': Category(420),
    'wall': Category(440),
    'water': Category(445),
    'window': Category(454),
}

# PASCAL-Part's order: later masks overwrite earlier ones when parts are merged, and `head` holds all of the face.
PERSON_PARTS: list[str] = []
PERSON_PARTS += ['head', 'lear', 'rear', 'leye', 'reye', 'lebrow', 'rebrow', 'mouth', 'hair', 'nose']
PERSON_PARTS += ['torso', 'neck', 'llarm', 'luarm', 'lhand', 'rlarm', 'ruarm', 'rhand']
PERSON_PARTS += ['llleg', 'luleg', 'lfoot', 'rlleg', 'ruleg', 'rfoot']


def voc_palette() -> list[int]:
    """The 256 colours of VOC's label files as 768 bytes: the label's bits, dealt in threes to R, G, B from the top bit."""
    palette = []
    for label in range(256):
        rgb = [0, 0, 0]
        for shift in range(7, -1, -1):
            for channel in range(3):
                rgb[channel] |= (label >> channel & 1) << shift
            label >>= 3
        palette += rgb
    return palette
