"""Loading a sample's label maps."""

from __future__ import annotations

from mmseg.registry import TRANSFORMS

from ...tasks import get_tasks
from ..labels import ignore_map
from ..photographs import check_photograph
from ..readers import read_label
from .base import MultiTaskTransform

__all__ = ['LoadMultiTaskAnnotations']


@TRANSFORMS.register_module()
class LoadMultiTaskAnnotations(MultiTaskTransform):
    """Read the label maps of a sample's tasks, each with the reader that its data set names.

    A task without label in this image (its path is None) gets a map that is all ignore. A sample without
    `label_paths`, as at inference, passes unchanged. Placed before the transforms, the labels move with the image;
    placed behind them (test time), they keep the image file's own size.

    Required Keys: ori_shape, tasks, label_paths, label_readers, img_path (optional). Added Keys: `gt_key` of each task, seg_fields.

    Args:
        check_photographs: Refuse a photograph with labels whose EXIF orientation leaves open where they belong, or whose
            grey values have more than 8 bits (see `mmseg_polyhistor.datasets.photographs`). It reads the head of
            the image's file once more. Defaults to True; False: the labels are known to fit the image as it is
            loaded.

    Raises:
        LabelError: (when called) if a file is broken, or does not fit the image or the task; it names the file.
        SampleError: (when called) if `check_photographs` refuses the photograph.
        KeyError: (when called) if no image was loaded before.
    """

    def __init__(self, *, check_photographs: bool = True) -> None:
        self.check_photographs = check_photographs

    def transform(self, results: dict) -> dict:
        """Add the label maps."""
        if results.get('label_paths') is None:
            return results
        if 'ori_shape' not in results:
            raise KeyError("LoadMultiTaskAnnotations needs the image's size: put LoadImageFromFile before it")
        shape = tuple(results['ori_shape'][:2])
        if self.check_photographs and 'img_path' in results and any(results['label_paths'].values()):
            check_photograph(results['img_path'])
        fields = results.setdefault('seg_fields', [])
        for spec in get_tasks(results['tasks']):
            path = results['label_paths'][spec.name]
            if path is None:
                label = ignore_map(spec, shape)
            else:
                label = read_label(path, spec, shape, results['label_readers'][spec.name])
            results[spec.gt_key] = label
            if spec.gt_key not in fields:
                fields.append(spec.gt_key)
        return results
