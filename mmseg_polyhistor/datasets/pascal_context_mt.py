"""PASCAL-Context with labels for semantic segmentation, human parts, surface normals, saliency and edges."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmseg.registry import DATASETS

from ..tasks import get_task
from .multi_task_dataset import MultiTaskDataset, class_metainfo

__all__ = ['PascalContextMTDataset']


@DATASETS.register_module()
class PascalContextMTDataset(MultiTaskDataset):
    """The multi-task PASCAL-Context of ASTMT (`PASCAL_MT`); `PASCALContext` of ATRC has the same tree.

    .. code-block:: none

        data_root
        ├── ImageSets/Context/{train,val}.txt    4,998 and 5,105 ids
        ├── JPEGImages/<id>.jpg
        ├── semseg/VOC12/<id>.png                looked for first: indices of VOC's 21 classes, 255 = ignore
        ├── semseg/pascal-context/<id>.png       where the VOC12 file is absent
        ├── human_parts/<id>.mat                 PASCAL-Part; 24 parts merge into 6
        ├── normals_distill/<id>.png             RGB, 2 * rgb / 255 - 1
        ├── pascal-context/trainval/<id>.mat     LabelMap, says where the normals hold; its borders are the edges
        └── sal_distill/<id>.png                 grey / 255 > 0.5

    Only files of the tasks in use are looked for; `ImageSets/Parts` and `json` play no part. Normals and saliency are
    distilled predictions of other networks.

    Args:
        ann_file: List of ids. Defaults to 'ImageSets/Context/train.txt'.
        tasks: Any of 'semseg', 'human_parts', 'normals', 'saliency', 'edge', in order. Defaults to the four of the
            benchmark, all but 'edge'.
        parts_cache_dir: Folder in which parsed PASCAL-Part files are kept, since parsing them takes most of the loading
            time. Defaults to None: they are parsed every time.
        **kwargs: See `MultiTaskDataset`. `data_prefix` may set other folders for 'img_path', 'semseg' (a list, looked
            through in order), 'human_parts', 'normals', 'context' and 'saliency'.
    """

    TASKS = ('semseg', 'human_parts', 'normals', 'saliency')
    METAINFO = class_metainfo(get_task('semseg'))
    DATA_PREFIX = dict(
        img_path='JPEGImages',
        semseg=('semseg/VOC12', 'semseg/pascal-context'),
        human_parts='human_parts',
        normals='normals_distill',
        context='pascal-context/trainval',
        saliency='sal_distill',
    )
    SUFFIXES = dict(
        img_path='.jpg', semseg='.png', human_parts='.mat', normals='.png', context='.mat', saliency='.png'
    )
    SOURCES = dict(
        semseg=dict(path='semseg', reader=dict(type='index_image')),
        human_parts=dict(path='human_parts', reader=dict(type='pascal_parts')),
        normals=dict(path='normals', context_path='context', reader=dict(type='pascal_normals')),
        saliency=dict(path='saliency', reader=dict(type='grey_image', threshold=0.5)),
        edge=dict(path='context', reader=dict(type='pascal_edges')),
    )

    def __init__(
        self,
        ann_file: str = 'ImageSets/Context/train.txt',
        tasks: Sequence[str] = TASKS,
        *,
        parts_cache_dir: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> None:
        if parts_cache_dir is not None:
            reader = dict(type='pascal_parts', cache_dir=os.fspath(parts_cache_dir))
            parts = dict(self.SOURCES['human_parts'], reader=reader)
            kwargs['sources'] = {'human_parts': parts, **(kwargs.get('sources') or {})}
        super().__init__(ann_file, tasks, **kwargs)
