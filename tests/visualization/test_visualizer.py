"""The visualizer writes its sheets through files, backends and mmseg's own hook."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from mmseg_polyhistor.tasks import get_tasks
from mmseg_polyhistor.visualization import MultiTaskVisualizer, draw_sheets

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')


@pytest.fixture
def visualizer(tmp_path) -> MultiTaskVisualizer:
    """Built as the runner builds it."""
    config = dict(
        type='MultiTaskVisualizer',
        name=str(tmp_path),  # instances are global, by name
        vis_backends=[dict(type='LocalVisBackend')],
        save_dir=str(tmp_path),
        cell_size=128,
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return VISUALIZERS.build(config)


def test_writes_a_file(visualizer, image, sample, tmp_path):
    visualizer.dataset_meta = dict(tasks=('semseg', 'normals'))
    out = tmp_path / 'new folder' / 'sheet.png'
    visualizer.add_datasample('a', image, sample, out_file=str(out))
    expected = draw_sheets([image], [sample], get_tasks(('semseg', 'normals')), cell_size=128)
    np.testing.assert_array_equal(np.array(Image.open(out)), expected)
    np.testing.assert_array_equal(visualizer.get_image(), expected)
    assert not (tmp_path / 'vis_data' / 'vis_image').exists()


def test_goes_through_the_backend(visualizer, image, sample, tmp_path):
    visualizer.add_datasample('a', image, sample, draw_gt=False, with_labels=False, step=3)
    written = np.array(Image.open(tmp_path / 'vis_data' / 'vis_image' / 'a_3.png'))
    expected = draw_sheets([image], [sample], draw_gt=False, legend=False, cell_size=128)
    np.testing.assert_array_equal(written, expected)


def test_under_mmsegs_hook(visualizer, image, sample, tmp_path):
    Image.fromarray(image).save(tmp_path / 'photo.png')
    sample.set_metainfo(dict(img_path=str(tmp_path / 'photo.png')))
    visualizer.dataset_meta = dict(tasks=TASKS, classes=('a',), palette=((0, 0, 0),))
    hook = SegVisualizationHook(draw=True, interval=1)
    assert hook._visualizer is visualizer
    hook.after_test_iter(SimpleNamespace(iter=5), 0, {}, [sample])
    (path,) = (tmp_path / 'vis_data' / 'vis_image').glob(
        'test_photo.png_*.png'
    )  # mmseg and its fork count steps apart
    written = np.array(Image.open(path))
    np.testing.assert_array_equal(written, draw_sheets([image], [sample], cell_size=128))


def test_serves_mmsegs_inferencer(visualizer, image, sample):
    """MMSegInferencer demands its class, sets meta information without tasks, an opacity, and fetches the image."""
    assert isinstance(visualizer, SegLocalVisualizer)
    visualizer.set_dataset_meta(classes=('a',), palette=[(0, 0, 0)])
    visualizer.alpha = 0.5
    visualizer.add_datasample(
        'a', image, sample, draw_gt=False, draw_pred=True, out_file=None, with_labels=True
    )
    expected = draw_sheets([image], [sample], draw_gt=False, alpha=0.5, cell_size=128)
    np.testing.assert_array_equal(visualizer.get_image(), expected)


def test_shows_on_demand(visualizer, image, sample, monkeypatch):
    shown = []
    monkeypatch.setattr(visualizer, 'show', lambda *args, **kwargs: shown.append((args, kwargs)))
    visualizer.add_datasample('a', image, sample, show=True, wait_time=2)
    ((sheet,), arguments), = shown  # fmt: skip
    assert arguments == dict(win_name='a', wait_time=2)
    np.testing.assert_array_equal(sheet, draw_sheets([image], [sample], cell_size=128))


def test_errors_where_truth_and_prediction_are_drawn(image, sample, tmp_path):
    visualizer = MultiTaskVisualizer(str(tmp_path / 'errors'), cell_size=128, draw_error=True)
    for kwargs in (dict(), dict(draw_gt=False), dict(draw_pred=False)):
        visualizer.add_datasample('a', image, sample, out_file=str(tmp_path / 'sheet.png'), **kwargs)
        expected = draw_sheets([image], [sample], draw_error=not kwargs, cell_size=128, **kwargs)
        np.testing.assert_array_equal(visualizer.get_image(), expected)


class _Writer:
    """What mmengine's backend calls of TensorBoard's `SummaryWriter`."""

    def __init__(self, folder: str) -> None:
        self.images = []

    def add_image(self, name: str, image: np.ndarray, step: int, dataformats: str) -> None:
        self.images.append((name, image, step, dataformats))


def _wandb() -> SimpleNamespace:
    """What mmengine's backend calls of WandB."""
    module = SimpleNamespace(logged=[], init=lambda **kwargs: None, Image=lambda array: ('image', array))
    module.log = lambda content, **kwargs: module.logged.append(content)
    return module


def test_hands_sheets_to_tensorboard_and_wandb(image, sample, tmp_path, monkeypatch):
    """Stand-ins for the two services, behind mmengine's own backends."""
    tensorboard = SimpleNamespace(SummaryWriter=_Writer)
    wandb = _wandb()
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', tensorboard)
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    with DefaultScope.overwrite_default_scope('mmseg'):
        visualizer = VISUALIZERS.build(
            dict(
                type='MultiTaskVisualizer',
                name=str(tmp_path),
                vis_backends=[dict(type='TensorboardVisBackend'), dict(type='WandbVisBackend')],
                save_dir=str(tmp_path),
                cell_size=128,
            )
        )
    visualizer.add_datasample('val_a.jpg', image, sample, step=7)
    expected = draw_sheets([image], [sample], cell_size=128)
    ((name, sheet, step, order),) = visualizer.get_backend('TensorboardVisBackend').experiment.images
    assert (name, step, order) == ('val_a.jpg', 7, 'HWC')
    np.testing.assert_array_equal(sheet, expected)
    ((key, (_, sheet)),) = (item for content in wandb.logged for item in content.items())
    assert key == 'val_a.jpg'
    np.testing.assert_array_equal(sheet, expected)
