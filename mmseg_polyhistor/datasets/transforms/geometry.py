"""What moving the pixels of an image does to a label map: pure functions, driven by the task's row in the table.

Pixel (column i, row j) covers the square from (i, j) to (i + 1, j + 1); its centre is (i + 0.5, j + 0.5). Images and
labels are resampled at the same points: OpenCV's `INTER_LINEAR` resize aligns centres, its `INTER_NEAREST` resize
does not (it is up to half a source pixel off), so nearest neighbours are taken by index here.

Vectors are (x right, y up, z to the viewer) while image rows grow downwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from ...tasks import TaskSpec, get_task, known_tasks
from ..labels import unit_vectors, valid_pixels

__all__ = [
    'VECTOR_INTERPOLATIONS',
    'flip_label',
    'label_maps',
    'label_specs',
    'resize_label',
    'warp_label',
    'window',
    'zoom_label',
]

VECTOR_INTERPOLATIONS = ('nearest', 'bilinear')

CV2_FLIP = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}
MIRRORED_AXES = {'horizontal': (0,), 'vertical': (1,), 'diagonal': (0, 1)}


def label_specs(results: dict) -> list[tuple[str, TaskSpec]]:
    """The label maps of a sample in the pipeline, as (key in `results`, task).

    Raises:
        ValueError: if a label map belongs to no known task.
    """
    keys = results.get('seg_fields', ())
    by_key = {spec.gt_key: spec for spec in map(get_task, known_tasks())}
    unknown = [key for key in keys if key not in by_key]
    if unknown:
        raise ValueError(f'the label maps {unknown} belong to no known task, whose keys are {sorted(by_key)}')
    return [(key, by_key[key]) for key in keys]


def label_maps(results: dict) -> list[tuple[str, TaskSpec]]:
    """As `label_specs`, for transforms that move pixels: all label maps must have the image's size.

    Raises:
        ValueError: if one has not.
    """
    labels = label_specs(results)
    size = results['img'].shape[:2]
    for key, _ in labels:
        if results[key].shape[:2] != size:
            raise ValueError(
                f'the label map {key!r} is {results[key].shape[:2]} (height, width) but the image is {size}: labels '
                "that are loaded after a resize keep the file's size. Move LoadMultiTaskAnnotations before all "
                'transforms that move pixels, or behind the last of them.'
            )
    return labels


# ------------------------------------------------------------------------------------------------------------ flip
def _keep(label: np.ndarray, spec: TaskSpec, *args: object) -> np.ndarray:
    return label


def _negate(label: np.ndarray, spec: TaskSpec, direction: str) -> np.ndarray:
    """Mirror the vectors of a label map that was mirrored, in place."""
    valid = valid_pixels(label, spec)
    for axis in MIRRORED_AXES[direction]:
        np.negative(label[..., axis], out=label[..., axis], where=valid)
    return label


FLIP = {'keep': _keep, 'negate_x': _negate}


def flip_label(label: np.ndarray, direction: str, spec: TaskSpec) -> np.ndarray:
    """Mirror a label map.

    With the rule 'negate_x', a vector's x changes its sign under a horizontal flip; under a vertical one it is y, under
    a diagonal one (both) x and y.
    """
    return FLIP[spec.flip](cv2.flip(label, CV2_FLIP[direction]), spec, direction)


# ------------------------------------------------------------------------------------------------------ resampling
def _resample(
    label: np.ndarray,
    spec: TaskSpec,
    vector_interpolation: str,
    nearest: Callable[[np.ndarray, int], np.ndarray],
    linear: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Resample a label map, given both ways to resample an array (`nearest` with the value for outside)."""
    if spec.kind == 'unit_vector' and vector_interpolation == 'bilinear':
        valid = valid_pixels(label, spec).view(np.uint8)
        smooth = linear(cv2.copyTo(label, valid))  # zero where not valid
        return unit_vectors(smooth, spec.ignore_value, nearest(valid, 0).view(bool))
    return nearest(label, spec.ignore_value)


def resize_label(
    label: np.ndarray, size: tuple[int, int], spec: TaskSpec, vector_interpolation: str = 'bilinear'
) -> np.ndarray:
    """Resample a label map to (width, height) `size`.

    Args:
        label: The map.
        size: (width, height), as OpenCV and mmcv order it.
        spec: The task. Classes and quantities take the nearest neighbour.
        vector_interpolation: How a 'unit_vector' task is resampled. 'nearest' copies vectors: exact at creases, half
            a pixel off elsewhere. 'bilinear' blends the valid ones and scales the result to length 1, on the pixels
            whose nearest neighbour is valid: smaller errors in the mean, but blends across creases. Defaults to
            'bilinear'.
    """
    columns, rows = (
        (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, label.shape[1::-1], strict=True)
    )
    return _resample(
        label,
        spec,
        vector_interpolation,
        nearest=lambda array, outside: array.take(rows, axis=0).take(columns, axis=1),
        linear=lambda array: cv2.resize(array, size, interpolation=cv2.INTER_LINEAR),
    )


def _divide(label: np.ndarray, spec: TaskSpec, factor: float) -> np.ndarray:
    """Divide the values of a label map, in place."""
    return np.divide(label, np.float32(factor), out=label, where=valid_pixels(label, spec))


ZOOM = {'keep': _keep, 'divide': _divide}


def zoom_label(label: np.ndarray, factor: float, spec: TaskSpec) -> np.ndarray:
    """What a zoom of the image by `factor` (above 1 enlarges) does to the values of a label map, in place.

    With the rule 'divide' they are divided by it: enlarged twice, things look half as far away. That holds for a zoom
    that stands for another distance, not for a change of the number of pixels, so that `resize_label` leaves it out.
    """
    return ZOOM[spec.zoom](label, spec, factor)


def _turn(label: np.ndarray, spec: TaskSpec, matrix: np.ndarray) -> np.ndarray:
    """Turn the vectors of a label map that was warped by `matrix`, in place."""
    cos, sin = matrix[:, 0] / np.hypot(*matrix[:, 0])  # where the image's x axis goes, y downwards
    valid = valid_pixels(label, spec)
    x, y = label[..., 0].copy(), label[..., 1].copy()
    np.copyto(label[..., 0], np.float32(cos) * x + np.float32(sin) * y, where=valid)
    np.copyto(label[..., 1], np.float32(cos) * y - np.float32(sin) * x, where=valid)
    return label


ROTATE = {'keep': _keep, 'turn_xy': _turn}


def warp_label(
    label: np.ndarray, matrix: np.ndarray, spec: TaskSpec, vector_interpolation: str = 'bilinear'
) -> np.ndarray:
    """Rotate and zoom a label map on a canvas of its own size; what comes in from outside carries no label.

    Args:
        label: The map.
        matrix: (2, 3), takes source to destination pixel coordinates (x right, y down, (0, 0) the centre of the first
            pixel): a rotation, a uniform zoom and a shift.
        spec: The task. With the rule 'turn_xy' its vectors turn with the image, as a camera that rolled the other way
            would see them; with the rule 'divide' its values are divided by the zoom.
        vector_interpolation: See `resize_label`. Defaults to 'bilinear'.
    """
    size = label.shape[1::-1]
    warped = _resample(
        label,
        spec,
        vector_interpolation,
        nearest=lambda array, outside: cv2.warpAffine(
            array, matrix, size, flags=cv2.INTER_NEAREST, borderValue=(outside,) * 4
        ),
        linear=lambda array: cv2.warpAffine(array, matrix, size, flags=cv2.INTER_LINEAR),
    )
    turned = ROTATE[spec.rotate](warped, spec, matrix)
    return zoom_label(turned, float(np.hypot(*matrix[:, 0])), spec)


# ---------------------------------------------------------------------------------------------------------- window
def window(
    array: np.ndarray, top: int, left: int, shape: tuple[int, int], outside: float | Sequence[float]
) -> np.ndarray:
    """The window of (height, width) `shape` whose first pixel is (top, left) of `array`.

    The window may reach beyond the array on every side; what lies outside is filled with `outside`.
    """
    height, width = shape
    bottom, right = top + height, left + width
    inside = array[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[:2] == (height, width):
        return np.ascontiguousarray(inside)
    out = np.empty((height, width, *array.shape[2:]), array.dtype)
    out[:] = outside
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return out
