"""Decode every file of a data set and count what is in it (used by `tools/check_dataset.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile

from ..tasks import TaskSpec, get_tasks
from .file_scan import FileScan
from .labels import LabelError, SampleError, valid_pixels, without_empty
from .photographs import check_photograph, read_head
from .readers import read_label

__all__ = ['SampleReport', 'SplitSummary', 'TaskSummary', 'inspect_sample', 'summarise']


@dataclass(frozen=True)
class SampleReport:
    """What is in the files of one sample.

    Attributes:
        image_error: What is wrong with the image, or None: it is broken, or `check_photograph` refuses it. The labels of
            such an image are not read, because their size, or their place, cannot be checked.
        errors: What is wrong with the label, for each task with a broken one.
        counts: Pixels per value, for each task with a sound label: of the class ids 0..255, or, for vectors, (valid,
            and of these: z < 0, y > 1/2, y < -1/2; ignored), or, for quantities, (valid, and of these: below each of
            `DECADES`; ignored).
        labelled: Per task with a sound label, whether it labels any pixel at all.
        turned: Whether the image has an EXIF orientation, by which it is turned or mirrored when it is loaded.
    """

    image_error: str | None = None
    errors: dict[str, str] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    labelled: dict[str, bool] = field(default_factory=dict)
    turned: bool = False


def _count_classes(label: np.ndarray, spec: TaskSpec) -> np.ndarray:
    return np.bincount(label.ravel(), minlength=256)


def _count_vectors(label: np.ndarray, spec: TaskSpec) -> np.ndarray:
    valid = valid_pixels(label, spec)
    y, z = label[valid, 1], label[valid, 2]
    return np.array([y.size, (z < 0).sum(), (y > 0.5).sum(), (y < -0.5).sum(), (~valid).sum()])


DECADES = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of a quantity: metres and millimetres are told apart by them


def _count_quantities(label: np.ndarray, spec: TaskSpec) -> np.ndarray:
    valid = valid_pixels(label, spec)
    values = label[valid]
    return np.array([values.size, *((values < limit).sum() for limit in DECADES), (~valid).sum()])


COUNT = {
    'semantic': _count_classes,
    'binary': _count_classes,
    'unit_vector': _count_vectors,
    'scalar': _count_quantities,
}


def inspect_sample(sample: Mapping[str, Any]) -> SampleReport:
    """Decode image and labels of a sample of a `FileScan`; a broken file becomes an entry of the report."""
    try:
        results = LoadImageFromFile(imdecode_backend='pillow')(dict(img_path=sample['img_path']))
        turned = read_head(sample['img_path']).turned
    except Exception as e:
        return SampleReport(image_error=f'{sample["img_path"]}: {type(e).__name__}: {e}')
    try:
        check_photograph(sample['img_path'])
    except SampleError as e:
        return SampleReport(image_error=str(e), turned=turned)
    report = SampleReport(turned=turned)
    for spec in get_tasks(sample['tasks']):
        path = sample['label_paths'][spec.name]
        if path is None:
            continue
        try:
            label = read_label(path, spec, results['ori_shape'], sample['label_readers'][spec.name])
        except LabelError as e:
            report.errors[spec.name] = str(e)
            continue
        report.counts[spec.name] = COUNT[spec.kind](label, spec)
        report.labelled[spec.name] = bool(valid_pixels(without_empty(label, spec), spec).any())
    return report


@dataclass
class TaskSummary:
    """The labels of one task in one split.

    Attributes:
        spec: The task.
        missing: Paths of label files that do not exist.
        broken: What is wrong with those that are broken.
        sound: Number of sound label files.
        unlabelled: How many of the sound ones label no pixel (no person, nothing valid).
        pixels: Sum of `SampleReport.counts`.
        images: For each of these values, in how many images it occurs.
    """

    spec: TaskSpec
    missing: list[str]
    broken: list[str]
    sound: int
    unlabelled: int
    pixels: np.ndarray
    images: np.ndarray


@dataclass
class SplitSummary:
    """All files of one split: `number` ids in the list, missing and broken images, the paths of those with an EXIF
    orientation, and the tasks' labels."""

    number: int
    missing_images: list[str]
    broken_images: list[str]
    turned_images: list[str]
    tasks: list[TaskSummary]

    def problems(self, *, allow_missing: bool = False) -> list[str]:
        """What makes the split unfit for training, one line each."""
        lines = [f'missing image: {path}' for path in self.missing_images]
        lines += [f'broken image: {message}' for message in self.broken_images]
        for task in self.tasks:
            if not allow_missing:
                lines += [f'missing {task.spec.name}: {path}' for path in task.missing]
            lines += [f'broken {task.spec.name}: {message}' for message in task.broken]
            if task.spec.kind == 'binary' and task.sound and not task.images[1]:
                lines.append(
                    f'{task.spec.name} is empty in all {task.sound} images; masks of 0 and 1, and not 0 and 255, are read by '
                    'index_image'
                )
        return lines


def summarise(scan: FileScan, reports: Sequence[SampleReport], specs: Sequence[TaskSpec]) -> SplitSummary:
    """Add up the reports of a scan's samples."""

    def summarise_task(spec: TaskSpec) -> TaskSummary:
        counts = [report.counts[spec.name] for report in reports if spec.name in report.counts]
        table = np.array(counts) if counts else np.zeros((0, 256), int)
        return TaskSummary(
            spec=spec,
            missing=scan.missing_labels[spec.name],
            broken=[report.errors[spec.name] for report in reports if spec.name in report.errors],
            sound=len(counts),
            unlabelled=sum(
                not report.labelled[spec.name] for report in reports if spec.name in report.labelled
            ),
            pixels=table.sum(axis=0),
            images=(table > 0).sum(axis=0),
        )

    return SplitSummary(
        number=len(scan.samples) + len(scan.missing_images),
        missing_images=scan.missing_images,
        broken_images=[report.image_error for report in reports if report.image_error is not None],
        turned_images=[
            sample['img_path'] for sample, report in zip(scan.samples, reports, strict=True) if report.turned
        ],
        tasks=[summarise_task(spec) for spec in specs],
    )
