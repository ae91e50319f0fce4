"""`JpegArrays`: labelled JPEG images in one `.npz` file, as a data set of mmpretrain."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

__all__ = ['DataFileError', 'JpegArrays', 'read_arrays', 'set_data_file']

SPLITS = ('train', 'val')


class DataFileError(ValueError):
    """The file of images is broken, or not of the documented form; the message says what is wrong with it."""


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file and check them.

    Args:
        path: An `.npz` file with
            - `jpeg`: uint8, all files one behind the other,
            - `offsets`: integers (n + 1), file i is `jpeg[offsets[i]:offsets[i + 1]]`,
            - `labels`: str (n), the class of each image,
            - `split`: str (n), 'train' or 'val'.

    Returns:
        The four arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        DataFileError: if the file is no `.npz`, lacks an array, or if an array has another type or shape, or does not fit
            the others. Arrays of objects, which would be unpickled, are refused.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'the file of images {str(path)!r} does not exist; name another one by data_file'
        )
    names = ('jpeg', 'offsets', 'labels', 'split')
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataFileError(f'{path} holds one array; an .npz with {list(names)} is needed')
        with file:
            if absent := [name for name in names if name not in file.files]:
                raise DataFileError(f'{path} lacks the arrays {absent}; it has {file.files}')
            arrays = {name: file[name] for name in names}
    except (zipfile.BadZipFile, EOFError, OSError) as e:
        raise DataFileError(f'{path} is no .npz file, or a broken one: {e}') from e
    except ValueError as e:
        if isinstance(e, DataFileError):
            raise
        raise DataFileError(
            f'{path} cannot be read without unpickling objects, or is no .npz file: {e}'
        ) from e
    for problem in _problems(**arrays):
        raise DataFileError(f'{path}: {problem}')
    return arrays


def _problems(jpeg: np.ndarray, offsets: np.ndarray, labels: np.ndarray, split: np.ndarray) -> Any:
    """What is wrong with the arrays, in words."""
    for name, array, kinds, wanted in (
        ('jpeg', jpeg, 'u', 'uint8'),
        ('offsets', offsets, 'iu', 'integers'),
        ('labels', labels, 'U', 'str'),
        ('split', split, 'U', 'str'),
    ):
        if array.ndim != 1 or array.dtype.kind not in kinds or (name == 'jpeg' and array.itemsize != 1):
            yield f"'{name}' is {array.dtype} of shape {array.shape}; it must be {wanted} with one axis"
    images = len(labels)
    if len(offsets) != images + 1 or len(split) != images:
        yield (
            f"'labels' has {images} entries, 'offsets' {len(offsets)} and 'split' {len(split)}; they must have n, n + 1 "
            'and n'
        )
    if offsets[0] != 0 or offsets[-1] != len(jpeg):
        yield f"'offsets' goes from {offsets[0]} to {offsets[-1]}; it must go from 0 to the {len(jpeg)} bytes of 'jpeg'"
    if len(bad := np.flatnonzero(offsets[1:] <= offsets[:-1])):
        yield f"'offsets' must grow; it does not behind entry {bad[0]} ({offsets[bad[0]]}, {offsets[bad[0] + 1]})"
    if others := sorted(set(np.unique(split).tolist()) - set(SPLITS)):
        yield f"'split' has {others}; it may have {list(SPLITS)}"


@DATASETS.register_module()
class JpegArrays(BaseDataset):
    """Images of one split of a file that `read_arrays` reads.

    Classes are the labels of all splits in alphabetical order, so that train and val number them alike.

    Args:
        data_file: The `.npz` file.
        split: 'train' or 'val'.
        **kwargs: See mmpretrain's `BaseDataset` (`pipeline`, `indices`, `test_mode`, ...).

    Raises:
        ValueError: for another split, or one without images; `DataFileError`, `FileNotFoundError` for an unfit file.

    Item:
        What the pipeline makes of `img` (uint8 (H, W, 3), BGR), `img_shape`, `ori_shape` and `gt_label`.
    """

    def __init__(self, data_file: str, split: str, **kwargs: Any) -> None:
        if split not in SPLITS:
            raise ValueError(f'split={split!r} is unknown; it must be one of {SPLITS}')
        self.data_file = data_file
        self.split = split
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Offsets and label of each image; the bytes stay in one array beside the list."""
        arrays = read_arrays(self.data_file)
        classes, labels = np.unique(arrays['labels'], return_inverse=True)
        self._metainfo['classes'] = tuple(classes.tolist())
        self._jpeg = arrays['jpeg']
        chosen = np.flatnonzero(arrays['split'] == self.split)
        if not len(chosen):
            raise DataFileError(f'{self.data_file} has no image of the split {self.split!r}')
        starts, stops = arrays['offsets'][:-1], arrays['offsets'][1:]
        return [
            dict(number=int(i), start=int(starts[i]), stop=int(stops[i]), gt_label=int(labels[i]))
            for i in chosen
        ]

    def get_data_info(self, idx: int) -> dict:
        """The decoded image and its label.

        Raises:
            DataFileError: if the bytes cannot be decoded.
        """
        info = super().get_data_info(idx)
        image = cv2.imdecode(self._jpeg[info.pop('start') : info.pop('stop')], cv2.IMREAD_COLOR)
        if image is None:
            raise DataFileError(f'{self.data_file}: image {info["number"]} cannot be decoded')
        info.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return info


def set_data_file(cfg: Config, data_file: str) -> None:
    """Have all data sets of a config read another file."""
    cfg.data_file = data_file
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.data_file = data_file
