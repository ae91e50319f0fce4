"""One composite metric for all tasks of a sample: what a config's `val_evaluator` and `test_evaluator` name."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS

from ..tasks import TaskSpec, get_tasks
from .accumulators import Accumulator, build_accumulator
from .gain import multi_task_gain, reference_row
from .prediction_files import write_prediction

__all__ = ['MultiTaskMetric']


@METRICS.register_module()
class MultiTaskMetric(BaseMetric):
    """Metrics of several dense tasks, and their multi-task gain.

    Reads `data_sample[spec.gt_field]['data']` and `data_sample[spec.pred_field]['data']` of each task and counts every
    image alone, with the accumulator that `TaskSpec.metric` asks for among those of the task's kind. What it keeps of an image are counts (8 KB for the four tasks of
    PASCAL-Context, 10 KB when pickled; 7.2 KB are the histogram of the normals), one entry per image, so that the duplicates
    with which a distributed sampler fills up are cut off exactly: the metrics are the same for any batch size, order
    and number of processes.

    It reports, as `<task>.<metric>`:

    - semantic: `mIoU`, `aAcc`, `mAcc`, in percent (`SemanticAccumulator`);
    - binary: `mIoU`, `maxF`, `maxF1`, in percent (`BinaryAccumulator`), or, for edges, `odsF`, `odsP`, `odsR`, in percent
      (`BoundaryAccumulator`);
    - unit_vector: `mean`, `median`, `rmse` in degrees, `under_11.25`, `under_22.5`, `under_30` in percent
      (`UnitVectorAccumulator`; the "rmse" that other code prints for normals is the `mean` here);
    - scalar: `rmse` in the label's unit, `abs_rel`, `delta1`, `delta2`, `delta3` in percent (`ScalarAccumulator`);

    and `gain`, in percent, where a reference row is given: the mean over the evaluated tasks; a remark tells which tasks of
    the row are not among them. A task without one valid pixel in the whole set gets nan and a warning.

    Args:
        tasks (Sequence[str], optional): The tasks to evaluate. Defaults to None: `dataset_meta['tasks']`.
        reference (str | dict, optional): The row that the gain compares with: task -> value of its
            `TaskSpec.metric`, or the name of a row of `REFERENCE_ROWS`, such as 'paper_pascal_context_swin_t'.
            Defaults to None: no gain.
        per_class (bool): Log IoU and accuracy of every class of the semantic tasks. Defaults to False.
        output_dir (str, optional): Write the predictions to `<output_dir>/<task>/<image name>.png`: palette PNG of
            class indices, 8-bit grey, 8-bit RGB normals, 16-bit grey thousandths (depth: millimetres). Two images of one name in different folders are an error.
            Defaults to None.
        format_only (bool): Write the predictions and evaluate nothing; needs no truth. Defaults to False.
        keep_results (bool): Without effect: predictions are evaluated whether they are written or not. mmseg's
            `tools/test.py --out` sets it. Defaults to False.
        collect_device (str): 'cpu' or 'gpu', where the results of several processes meet. Defaults to 'cpu'.
        collect_dir (str, optional): Folder for the exchange under 'cpu'. Defaults to None: `./.dist_test`.
        prefix (str, optional): Prefix of the metrics' names. Defaults to None.

    Raises:
        ValueError: if `format_only` comes without `output_dir`, if a task is unknown, named twice or not at all, or if
            a reference row is unknown, not positive, or lacks an evaluated task.

    `process` raises ValueError for a sample that lacks a field, whose truth and prediction differ in size, or which
    holds values that its kind of task does not allow (NaN, classes out of range, ..); the message names the image.
    """

    default_prefix = ''  # task names make the keys unique; None would have mmengine warn

    def __init__(
        self,
        *,
        tasks: Sequence[str] | None = None,
        reference: str | Mapping[str, float] | None = None,
        per_class: bool = False,
        output_dir: str | None = None,
        format_only: bool = False,
        keep_results: bool = False,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, collect_dir=collect_dir, prefix=prefix)
        if format_only and output_dir is None:
            raise ValueError('format_only=True writes predictions and evaluates nothing: it needs output_dir')
        self.reference = None if reference is None else reference_row(reference)
        self.per_class = per_class
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.format_only = format_only
        self.accumulators: dict[str, Accumulator] = {}
        self._images: dict[str, str] = {}  # name of the files written -> the image
        #: Whether the tasks are the data set's, as the config names none.
        self.tasks_of_dataset = tasks is None
        if tasks is not None:
            self._use_tasks(tasks)

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        """Set the dataset's meta information; the tasks come from it where the config names none."""
        self._dataset_meta = dataset_meta
        if self.tasks_of_dataset:
            if 'tasks' not in dataset_meta:
                raise ValueError(
                    f"the dataset's metainfo names no tasks (its keys: {list(dataset_meta)}); "
                    'set tasks=(...) of MultiTaskMetric'
                )
            self._use_tasks(dataset_meta['tasks'])

    def _use_tasks(self, tasks: Sequence[str]) -> None:
        specs = get_tasks(tasks, 'MultiTaskMetric: tasks')
        if self.reference is not None:
            missing = [spec.name for spec in specs if spec.name not in self.reference]
            if missing:
                raise ValueError(
                    f'the reference row {self.reference} lacks the evaluated tasks {missing}: add their values, '
                    'or drop the reference'
                )
        self.accumulators = {spec.name: build_accumulator(spec) for spec in specs}

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks under evaluation."""
        if not self.accumulators:
            raise ValueError('no task to evaluate: set tasks=(...) of MultiTaskMetric, or its dataset_meta')
        return tuple(a.spec for a in self.accumulators.values())

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The keys of what an evaluation reports, with the prefix."""
        if self.format_only:
            return ()
        names = [f'{name}.{key}' for name, a in self.accumulators.items() for key in a.reduce([])]
        names += [] if self.reference is None else ['gain']
        return tuple(f'{self.prefix}/{name}' if self.prefix else name for name in names)

    # ------------------------------------------------------------------------------------------- one batch
    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count (and write, with `output_dir`) every sample; exactly one entry of `self.results` per sample."""
        for sample in data_samples:
            image = sample.get('img_path')
            counts = {}
            for spec in self.specs:
                try:
                    counts[spec.name] = self._process_task(sample, spec)
                except ValueError as e:
                    raise ValueError(
                        f'task {spec.name!r} of {image or "a sample without img_path"}: {e}'
                    ) from e
            self.results.append(counts)

    def _process_task(self, sample: Mapping[str, Any], spec: TaskSpec) -> Any:
        """Write one task's prediction, if asked to, and return its counts."""
        accumulator = self.accumulators[spec.name]
        pred = _field(sample, spec, spec.pred_field)
        if self.output_dir is not None:
            array = accumulator.prediction(pred).cpu().numpy()
            if not sample.get('img_path'):
                raise ValueError('the file of a prediction is named after img_path, which the sample lacks')
            stem = Path(sample['img_path']).stem
            other = self._images.setdefault(stem, sample['img_path'])
            if other != sample['img_path']:
                raise ValueError(
                    f'its prediction would overwrite that of {other}: the files in output_dir are named after the image'
                )
            write_prediction(array, spec, self.output_dir / spec.name / f'{stem}.png')
        return None if self.format_only else accumulator.count(pred, _field(sample, spec, spec.gt_field))

    # ----------------------------------------------------------------------------------------- the whole set
    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The metrics of the whole set, flat: `<task>.<metric>`, and `gain`."""
        if self.format_only:
            print_log(f'predictions are written to {self.output_dir}', logger='current')
            return {}
        metrics: dict[str, float] = {}
        headline: dict[str, float] = {}  # task -> the metric that the gain uses
        for name, accumulator in self.accumulators.items():
            counts = [result[name] for result in results]
            values = accumulator.reduce(counts)
            metrics.update({f'{name}.{key}': value for key, value in values.items()})
            headline[name] = values[accumulator.spec.metric]
            self._log(name, accumulator, counts)
            if math.isnan(headline[name]):
                print_log(
                    f'{name}: none of the {len(results)} images has a valid pixel, its metrics are nan',
                    logger='current',
                    level=logging.WARNING,
                )
        if self.reference is not None:
            metrics.update(self._gain(headline))
        return metrics

    def _log(self, name: str, accumulator: Accumulator, counts: list) -> None:
        without = sum(accumulator.valid_pixels(count) == 0 for count in counts)
        if 0 < without < len(counts):
            print_log(
                f'{name}: {without} of {len(counts)} images have no valid pixel and do not count',
                logger='current',
            )
        for remark in accumulator.remarks(counts):
            print_log(f'{name}: {remark}', logger='current')
        table = accumulator.table(counts) if self.per_class else None
        if table is not None:
            print_log(f'{name}, per class:\n{table}', logger='current')

    def _gain(self, headline: dict[str, float]) -> dict[str, float]:
        absent = [task for task in self.reference if task not in headline]
        if absent:
            print_log(
                f'gain: the mean over {list(headline)}; the reference row also holds {absent}, which are not evaluated',
                logger='current',
            )
        return {'gain': multi_task_gain(headline, self.reference, self.specs)}


def _field(sample: Mapping[str, Any], spec: TaskSpec, field: str) -> Any:
    """The data of one field of a sample.

    Raises:
        ValueError: if it is absent; the message says what to do.
    """
    if field in sample:
        return sample[field]['data']
    remedy = (
        'the model must predict the task (a decode head of that name)'
        if field == spec.pred_field
        else 'its labels must be loaded by the test pipeline'
    )
    raise ValueError(
        f'the sample has no field {field!r} (it has {sorted(sample)}): {remedy}, '
        'or leave the task out with tasks=(...) of MultiTaskMetric'
    )
