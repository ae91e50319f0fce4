"""Writes rendered scenes in the PASCAL_MT layout, `.mat` files included, with the same bytes on every run."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from .labels import voc_palette
from .scene import SPLITS, Scene, SceneObject, render_scene

NOTE = 'mini_pascal.json'
CONTEXT = Path('pascal-context', 'trainval')
SEMSEG = Path('semseg', 'VOC12')
ID_LISTS = Path('ImageSets', 'Context')
# the lists of ids first: they go first when a data set is replaced, and come last when it is written
WRITTEN = (
    'ImageSets',
    'JPEGImages',
    'pascal-context',
    'semseg',
    'human_parts',
    'normals_distill',
    'sal_distill',
)
MAT_HEADER = b'MATLAB 5.0 MAT-file, Platform: any, written by make_mini_pascal'
OBJECT_FIELDS = ('class', 'class_ind', 'mask', 'parts')
PART_FIELDS = ('part_name', 'mask')


class OutputFolderError(RuntimeError):
    """The output folder holds something that must not be overwritten."""


def image_id(split: str, index: int) -> str:
    """Name of an image without its suffix: `train_000007`."""
    return f'{split}_{index:06d}'


def struct_array(rows: list[tuple], fields: tuple[str, ...]) -> np.ndarray:
    """A 1 x n MATLAB struct array with these fields."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for k, row in enumerate(rows):
        array[0, k] = row
    return array


def human_parts(name: str, objects: list[SceneObject]) -> np.ndarray:
    """The `anno` of a PASCAL-Part file: `anno[0][0][1][0]` lists the objects, `[3]` of each its parts."""
    rows = []
    for thing in objects:
        parts = struct_array([(part, mask.astype(np.uint8)) for part, mask in thing.parts], PART_FIELDS)
        if not thing.parts:
            parts = parts.reshape(0, 0)
        class_index = np.array([[thing.class_index]], np.uint8)
        rows.append((thing.name, class_index, thing.mask.astype(np.uint8), parts))
    return struct_array([(name, struct_array(rows, OBJECT_FIELDS))], ('imname', 'objects'))


def write_mat(path: Path, content: dict[str, np.ndarray]) -> None:
    """Saves a MATLAB 5 file without the time of day in its header, so that equal contents are equal bytes."""
    buffer = io.BytesIO()
    savemat(buffer, content, do_compression=True)
    path.write_bytes(MAT_HEADER.ljust(116) + buffer.getvalue()[116:])


def write_scene(root: Path, name: str, scene: Scene) -> None:
    """Writes all files of one image below the root; the folders must exist."""
    Image.fromarray(scene.image).save(root / 'JPEGImages' / f'{name}.jpg', quality=92)
    write_mat(root / CONTEXT / f'{name}.mat', {'LabelMap': scene.context})
    write_mat(root / 'human_parts' / f'{name}.mat', {'anno': human_parts(name, scene.objects)})
    height, width = scene.semseg.shape
    labels = Image.frombytes('P', (width, height), scene.semseg.tobytes())
    labels.putpalette(voc_palette())
    labels.save(root / SEMSEG / f'{name}.png')
    coded = np.rint((scene.normals + 1) * 127.5).astype(np.uint8)
    Image.fromarray(coded).save(root / 'normals_distill' / f'{name}.png')
    Image.fromarray(scene.saliency).save(root / 'sal_distill' / f'{name}.png')


def render_and_write(job: tuple[str, int], *, root: Path, seed: int, size: tuple[int, int]) -> None:
    """Renders one image (split, index) and writes it: what a worker does."""
    split, index = job
    write_scene(root, image_id(split, index), render_scene(seed, index, size, split=split))


def prepare(root: Path, overwrite: bool) -> None:
    """Makes an empty tree of folders.

    Raises:
        OutputFolderError: The folder is not empty, and `overwrite` is off or the folder is none of this tool's.
    """
    if root.exists() and not root.is_dir():
        raise OutputFolderError(f'{root} is a file: name a folder that does not exist yet, or an empty one')
    if root.is_dir() and any(root.iterdir()):
        if not (root / NOTE).is_file():
            raise OutputFolderError(
                f'{root} is not empty, and no {NOTE} says that this tool wrote it: nothing there is touched; '
                f'name another folder, or empty it yourself'
            )
        if not overwrite:
            complete = all((root / ID_LISTS / f'{split}.txt').is_file() for split in SPLITS)
            state = 'a finished data set' if complete else 'a run that was interrupted'
            raise OutputFolderError(f'{root} holds {state}: pass --overwrite to write it anew')
        for name in WRITTEN:
            if (root / name).exists():
                shutil.rmtree(root / name)
    for folder in (*WRITTEN, CONTEXT, SEMSEG, ID_LISTS):
        (root / folder).mkdir(parents=True, exist_ok=True)


@contextmanager
def single_threaded_children() -> Iterator[None]:
    """Processes started inside use one thread each for linear algebra."""
    names = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, '1'))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def write_dataset(
    root: str | Path,
    *,
    train: int,
    val: int,
    size: tuple[int, int],
    seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Renders a data set into a folder; the lists of ids come last, so that a tree with lists is complete.

    Args:
        root: Folder to write to: new, empty, or written by this function before.
        train: Number of training images.
        val: Number of validation images.
        size: Height and width in pixels, at least 32 each.
        seed: Seed of everything random. Defaults to 0.
        workers: Number of processes; the files do not depend on it. Defaults to 0, none besides the caller's.
        overwrite: Whether to replace what an earlier call wrote. Defaults to False.
        progress: Called with (images done, images in all). Defaults to a function that does nothing.

    Returns:
        The root.

    Raises:
        ValueError: A number is out of its range.
        OutputFolderError: The folder must not be written to.
    """
    if min(train, val) < 0 or train + val == 0:
        raise ValueError(f'train = {train}, val = {val}: give counts >= 0, and at least one image')
    if min(size) < 32:
        raise ValueError(f'size = {size[0]} x {size[1]}: both sides need 32 pixels or more')
    if min(seed, workers) < 0:
        raise ValueError(f'seed = {seed}, workers = {workers}: both must be >= 0')
    root = Path(root)
    prepare(root, overwrite)
    about = dict(generator='make_mini_pascal', train=train, val=val, size=list(size), seed=seed)
    (root / NOTE).write_text(json.dumps(about, indent=2) + '\n')
    counts = dict(zip(SPLITS, (train, val), strict=True))
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    work = partial(render_and_write, root=root, seed=seed, size=size)
    if workers == 0:
        for done, job in enumerate(jobs, 1):
            work(job)
            progress(done, len(jobs))
    else:
        context = multiprocessing.get_context('spawn')
        with single_threaded_children(), ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                for done, _ in enumerate(pool.map(work, jobs), 1):
                    progress(done, len(jobs))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    for split, count in counts.items():
        lines = ''.join(f'{image_id(split, index)}\n' for index in range(count))
        part = root / ID_LISTS / f'{split}.part'
        part.write_text(lines)
        part.replace(part.with_suffix('.txt'))
    return root
