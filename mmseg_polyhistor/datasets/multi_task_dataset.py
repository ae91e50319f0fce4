"""A data set of images with several label maps each, described by tables: folders, suffixes, readers."""

from __future__ import annotations

import copy
import logging
import os
import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from ..adapters.checks import check_keywords
from ..task_rows import add_tasks
from ..tasks import TaskSpec, get_tasks, register_task
from .file_scan import FileScan, first_names, read_ids, scan_files, source_files
from .labels import SampleError
from .readers import get_reader, register_reader

__all__ = ['MultiTaskDataset', 'class_metainfo']


@DATASETS.register_module()
class MultiTaskDataset(BaseDataset):
    """Images with label maps for several dense tasks.

    Three tables describe where the files lie; a subclass gives them as class attributes, the arguments of the same
    name add to them. With `ann_file` holding one id a line, an image lies at `data_prefix['img_path'] / (id +
    suffixes['img_path'])`, and likewise every other kind of file:

    .. code-block:: python

        dict(
            type='MultiTaskDataset',
            data_root='data/street',
            ann_file='train.txt',
            new_tasks=[dict(name='garments', kind='semantic', classes=('skin', 'shirt', 'trousers'))],
            tasks=('garments', 'saliency'),
            data_prefix=dict(img_path='images', garments='garments', saliency='masks'),
            suffixes=dict(img_path='.jpg', garments='.png', saliency='.png'),
            sources=dict(
                garments=dict(path='garments', reader=dict(type='index_image')),
                saliency=dict(path='saliency', reader=dict(type='grey_image', threshold=0.5)),
            ),
            pipeline=train_pipeline,
        )

    A source names the label's reader (see `mmseg_polyhistor.datasets.readers`) and, as `path` and any further
    argument of the reader that is a file, the kind of file. Only files of the tasks in use are looked for. Nothing is
    written anywhere under `data_root`.

    A photograph with an EXIF orientation is turned when `LoadImageFromFile` reads it: its labels must be drawn on the
    turned photograph. Where their size cannot tell whether they were, `LoadMultiTaskAnnotations` refuses it.

    A sample holds `img_path`, `tasks`, `label_paths` (per task, the path or None), `label_readers`, `seg_fields` and
    `sample_idx`. The metainfo holds `tasks`, and `classes` and `palette` of the first semantic task unless `METAINFO`
    or `metainfo` gives them.

    Args:
        ann_file: List of ids, one a line; blank lines are passed over. Defaults to ''.
        tasks: Names of the tasks, in order (see `mmseg_polyhistor.tasks`). Defaults to None: every task in `sources`.
        new_tasks: Rows that are added to the table of tasks before names are looked up, each a dict with `name`, `kind` and
            what else is special (see `mmseg_polyhistor.task_rows.complete_row`). Defaults to ().
        data_root: What relative paths start from; a `~` is the home folder. Defaults to ''.
        data_prefix: Folder per kind of file, or several folders that are looked through in order. Defaults to None.
        suffixes: What an id is followed by, per kind of file. Defaults to None.
        sources: Reader and kinds of file, per task. Defaults to None.
        allow_missing: A label file that does not exist makes the task ignored for that image, and one warning tells
            the counts; an image that does not exist is an error all the same. Defaults to False: an error.
        metainfo: Adds to `METAINFO`. Defaults to None.
        **kwargs: `filter_cfg`, `indices`, `serialize_data`, `pipeline`, `test_mode`, `lazy_init` and `max_refetch` of
            `mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: if the list, images, or (without `allow_missing`) labels do not exist; the message gives
            the count per task and names the first few.
        ValueError: if the list holds no id or holds one twice, a task has no source, the tables do not fit together, or a
            row of `new_tasks` is wrong or differs from a known task of its name.
    """

    METAINFO: dict = {}
    DATA_PREFIX: Mapping[str, str | Sequence[str]] = {}
    SUFFIXES: Mapping[str, str] = {}
    SOURCES: Mapping[str, Mapping[str, Any]] = {}

    def __init__(
        self,
        ann_file: str = '',
        tasks: Sequence[str] | None = None,
        *,
        new_tasks: Sequence[Mapping[str, Any]] = (),
        data_root: str = '',
        data_prefix: Mapping[str, str | Sequence[str]] | None = None,
        suffixes: Mapping[str, str] | None = None,
        sources: Mapping[str, Mapping[str, Any]] | None = None,
        allow_missing: bool = False,
        metainfo: Mapping[str, Any] | None = None,
        pipeline: Sequence[dict | Callable] = (),
        **kwargs: Any,
    ) -> None:
        check_keywords(type(self), kwargs)
        add_tasks(new_tasks, f'{type(self).__name__}: new_tasks')
        self.sources = {**copy.deepcopy(dict(self.SOURCES)), **(sources or {})}
        self.specs = get_tasks(self.sources if tasks is None else tasks, f'{type(self).__name__}: tasks')
        self.tasks = tuple(spec.name for spec in self.specs)
        self.suffixes = {**self.SUFFIXES, **(suffixes or {})}
        self.allow_missing = allow_missing
        prefix = {**self.DATA_PREFIX, **(data_prefix or {})}
        self._check_tables(prefix, metainfo or {})
        super().__init__(
            ann_file=os.fspath(ann_file),
            metainfo=self._complete_metainfo(metainfo or {}),
            data_root=osp.expanduser(os.fspath(data_root or '')),
            data_prefix=prefix,
            pipeline=list(pipeline),
            **kwargs,
        )

    # ------------------------------------------------------------------------------------------ the tables
    def _check_tables(self, prefix: Mapping[str, Any], metainfo: Mapping[str, Any]) -> None:
        name = type(self).__name__
        if 'tasks' in metainfo:
            raise ValueError(f"{name}: metainfo must not hold 'tasks'; give the argument `tasks`")
        without = [task for task in self.tasks if task not in self.sources]
        if without:
            raise ValueError(
                f'{name}: no source for the tasks {without}, only for {list(self.sources)}; '
                'give `sources=dict(<task>=dict(path=<kind of file>, reader=dict(type=...)))`'
            )
        for kind in sorted(set(prefix) ^ set(self.suffixes)):
            raise ValueError(
                f'{name}: the kind of file {kind!r} is in only one of data_prefix and suffixes; '
                f'data_prefix has {sorted(prefix)}, suffixes has {sorted(self.suffixes)}'
            )
        if 'img_path' not in prefix:
            raise ValueError(f"{name}: data_prefix and suffixes need 'img_path', the images")
        for task in self.tasks:
            source = self.sources[task]
            if 'path' not in source or 'type' not in source.get('reader', {}):
                raise ValueError(
                    f'{name}: the source of task {task!r} needs path=<kind of file> and reader=dict(type=...), '
                    f'got {source!r}'
                )
            get_reader(source['reader']['type'])
            unknown = [kind for kind in source_files(source).values() if kind not in prefix]
            if unknown:
                raise ValueError(
                    f'{name}: the source of task {task!r} names the kinds of file {unknown}; '
                    f'data_prefix has {sorted(prefix)}'
                )

    def _complete_metainfo(self, metainfo: Mapping[str, Any]) -> dict[str, Any]:
        semantic = [spec for spec in self.specs if spec.kind == 'semantic'][:1]
        own = {key: value for spec in semantic for key, value in class_metainfo(spec).items()}
        own.update(self.METAINFO)
        given = list(metainfo.get('classes', own.get('classes', ())))
        if 'classes' in own and given != list(own['classes']):
            raise ValueError(
                f'{type(self).__name__}: metainfo names the classes {given}, but the labels have '
                f'{list(own["classes"])}; a task with other classes is a row of its own (mmseg_polyhistor.tasks)'
            )
        return {**own, **metainfo, 'tasks': self.tasks}

    def _join_prefix(self) -> None:
        """As `BaseDataset._join_prefix`, for one folder or several per kind of file."""
        self.ann_file = osp.join(self.data_root, self.ann_file)
        self.data_prefix = {
            kind: [
                osp.join(self.data_root, os.fspath(folder))
                for folder in ([folders] if isinstance(folders, (str, os.PathLike)) else folders)
            ]
            for kind, folders in self.data_prefix.items()
        }

    # ------------------------------------------------------------------------------- the rows, in other processes
    def __getstate__(self) -> dict[str, Any]:
        """The attributes, and the readers in use."""
        names = {self.sources[task]['reader']['type'] for task in self.tasks}
        return {**self.__dict__, '_readers': {name: get_reader(name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the attributes, and make tasks and readers known: a worker that was spawned, not forked, has not
        imported the user's modules."""
        for name, reader in state.pop('_readers').items():
            register_reader(name, force=True)(reader)
        for spec in state['specs']:
            register_task(spec, force=True)
        self.__dict__.update(state)

    # ------------------------------------------------------------------------------------------- the files
    def scan_files(self) -> FileScan:
        """Look for the files of all images of the list; see `read_ids` for what it raises."""
        if not osp.isfile(self.ann_file) and self.data_root and not osp.isdir(self.data_root):
            raise FileNotFoundError(
                f'the list of images {self.ann_file} does not exist; check data_root: {self.data_root!r} is no folder, seen '
                f'from {os.getcwd()}'
            )
        return scan_files(read_ids(self.ann_file), self.tasks, self.sources, self.data_prefix, self.suffixes)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The samples of all images of the list (called by `full_init`)."""
        scan = self.scan_files()
        number = len(scan.samples) + len(scan.missing_images)
        lines = [
            f'  {t}: {len(p)} of {number}: {first_names(p)}' for t, p in scan.missing_labels.items() if p
        ]
        head = f'{type(self).__name__}: of the {number} images in {self.ann_file}'
        if scan.missing_images:
            raise FileNotFoundError(
                f'{head}, {len(scan.missing_images)} do not exist: {first_names(scan.missing_images)}\n'
                f'Check data_root ({self.data_root!r}) and data_prefix.'
            )
        if lines and not self.allow_missing:
            raise FileNotFoundError(
                '\n'.join([f'{head}, some lack labels:', *lines])
                + f'\nCheck data_root ({self.data_root!r}) and data_prefix, name in `tasks` only what you have labels '
                'for, or pass allow_missing=True to ignore a task where its label is missing.'
            )
        if lines:
            print_log(
                '\n'.join([f'{head}, some lack labels, which are ignored:', *lines]),
                'current',
                logging.WARNING,
            )
        return scan.samples

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on sample `idx`.

        Raises:
            SampleError: whatever goes wrong in the pipeline, with the path of the image.
        """
        sample = self.get_data_info(idx)
        img_path = sample['img_path']
        try:
            return self.pipeline(sample)
        except SampleError:  # names its file already
            raise
        except Exception as e:
            raise SampleError(f'{img_path}: {type(e).__name__}: {e}') from e


def class_metainfo(spec: TaskSpec) -> dict[str, list]:
    """`classes` and `palette` of a semantic task, as plain lists that may lie in a checkpoint."""
    return dict(classes=list(spec.classes), palette=[list(colour) for colour in spec.palette])
