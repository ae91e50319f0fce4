"""NYUD-v2 in its four layouts, written small and read back, and what is told of trees that have none of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from PIL import Image
from scipy.io import savemat

from mmseg_polyhistor.datasets import NYUDMTDataset, SampleError
from mmseg_polyhistor.tasks import get_task

LOAD = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='LoadMultiTaskAnnotations')]
IDS = ('0001', '1449')
SMALL = (48, 64)
TASKS = ('nyud_semseg', 'depth', 'normals', 'edge')

# layout -> suffixes of image, segmentation, depth, normals, edge: the table of the field's four loaders
SUFFIXES = {
    'astmt': ('.jpg', '.mat', '.mat', '.jpg', '.png'),
    'mti_net': ('.jpg', '.png', '.npy', '.npy', '.npy'),
    'invpt': ('.png', '.png', '.npy', '.png', '.png'),
    'atrc': ('.jpg', '.png', '.npy', '.npy', '.npy'),
}
SIZES = dict(astmt=(480, 640), mti_net=(480, 640), invpt=(425, 560), atrc=(425, 560))


def _save(path: Path, array: np.ndarray, key: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == '.mat':
        savemat(path, {key: array})
    elif path.suffix == '.npy':
        np.save(path, array)
    else:
        Image.fromarray(array).save(path, **(dict(quality=95) if path.suffix == '.jpg' else {}))


def write_tree(root: Path, layout: str, size: tuple[int, int] = SMALL, lists: bool = True) -> dict[str, list]:
    """A tree of two images; returns what must be read back, per task and image."""
    rng = np.random.default_rng(0)
    image, segmentation, depth, normals, edge = SUFFIXES[layout]
    truth: dict[str, list] = {task: [] for task in TASKS}
    (root / 'gt_sets').mkdir(parents=True, exist_ok=True)
    for split in ('train', 'val'):
        if lists:
            (root / f'gt_sets/{split}.txt').write_text('\n'.join(IDS) + '\n')
    for name in IDS:
        _save(root / f'images/{name}{image}', rng.integers(0, 256, (*size, 3), np.uint8), 'image')

        ids = rng.integers(0, 41, size, np.uint8)
        _save(root / f'segmentation/{name}{segmentation}', ids, 'segmentation')
        truth['nyud_semseg'].append(np.where(ids == 0, 255, ids.astype(int) - 1))

        metres = rng.uniform(0.7, 9, size).astype(np.float32)
        metres[:4] = 0  # no measurement
        _save(root / f'depth/{name}{depth}', metres, 'depth')
        truth['depth'].append(metres)

        vectors = rng.normal(size=(*size, 3))
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        path = root / f'normals/{name}{normals}'
        if normals == '.npy':
            vectors[:, :4] = 0  # no direction
            _save(path, vectors.astype(np.float32), 'normals')
        else:
            _save(path, np.rint(127.5 * (vectors + 1)).astype(np.uint8), 'normals')
            vectors = 2 * np.asarray(Image.open(path), np.float64) / 255 - 1  # what is left after JPEG
        length = np.linalg.norm(vectors, axis=2, keepdims=True)
        truth['normals'].append(np.where(length < 0.1, 255, vectors / np.maximum(length, 1e-9)))

        lines = (rng.random(size) < 0.1).astype(np.uint8)
        png = edge == '.png'
        _save(root / f'edge/{name}{edge}', 255 * lines if png else lines.astype(np.float32), 'edge')
        truth['edge'].append(lines)
    return truth


def build(root: Path, **options: Any) -> NYUDMTDataset:
    # Serialised, every data set would cost a collection of all garbage.
    return NYUDMTDataset(**{'data_root': str(root), 'pipeline': LOAD, 'serialize_data': False, **options})


# ------------------------------------------------------------------------------------------------ the four layouts
@pytest.mark.parametrize('layout', SUFFIXES)
def test_all_labels_of_a_named_layout(tmp_path: Path, layout: str) -> None:
    truth = write_tree(tmp_path, layout)
    dataset = build(tmp_path, layout=layout)
    assert dataset.metainfo['tasks'] == TASKS
    assert len(dataset) == 2
    for k in range(2):
        sample = dataset[k]
        for spec in map(get_task, TASKS):
            label = sample[spec.gt_key]
            np.testing.assert_allclose(label, truth[spec.name][k], atol=1e-5, err_msg=spec.name)
            assert label.dtype == (np.uint8 if spec.kind in ('semantic', 'binary') else np.float32)


@pytest.mark.parametrize('layout', SUFFIXES)
def test_the_layout_is_detected_and_told(
    tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handlers', [caplog.handler])
    write_tree(tmp_path, layout, SIZES[layout])
    dataset = build(tmp_path, ann_file='gt_sets/val.txt')
    assert dataset.layout == layout
    assert caplog.messages[-1] == f'NYUDMTDataset: {tmp_path} has the layout {layout!r}'
    image, segmentation, depth, normals, edge = SUFFIXES[layout]
    paths = dataset[0]['label_paths']
    expected = dict(nyud_semseg=segmentation, depth=depth, normals=normals, edge=edge)
    assert {task: Path(path).suffix for task, path in paths.items()} == expected
    assert dataset[0]['img_path'].endswith(image)


@pytest.mark.parametrize('layout', ['astmt', 'invpt'])
def test_files_that_only_one_layout_has_may_be_of_any_size(tmp_path: Path, layout: str) -> None:
    write_tree(tmp_path, layout)
    assert build(tmp_path).layout == layout


def test_only_the_kinds_of_file_in_use_count(tmp_path: Path) -> None:
    write_tree(tmp_path, 'mti_net', SIZES['mti_net'])
    for folder in ('edge', 'normals'):
        for path in (tmp_path / folder).iterdir():
            path.unlink()
    dataset = build(tmp_path, tasks=('depth', 'nyud_semseg'))
    assert (dataset.layout, dataset.metainfo['tasks']) == ('mti_net', ('depth', 'nyud_semseg'))
    assert set(dataset[0]['label_paths']) == {'depth', 'nyud_semseg'}


def test_other_folders_and_suffixes(tmp_path: Path) -> None:
    truth = write_tree(tmp_path, 'invpt')
    (tmp_path / 'depth').rename(tmp_path / 'metres')
    for name in IDS:
        (tmp_path / f'metres/{name}.npy').rename(tmp_path / f'metres/{name}_d.npy')
    dataset = build(tmp_path, data_prefix=dict(depth=['elsewhere', 'metres']), suffixes=dict(depth='_d.npy'))
    assert dataset.layout == 'invpt'
    np.testing.assert_array_equal(dataset[1]['gt_depth_map'], truth['depth'][1])
    own = dict(depth=dict(path='depth', reader=dict(type='scalar_npy', factor=10.0)))
    options = dict(data_prefix=dict(depth='metres'), suffixes=dict(depth='_d.npy'), sources=own)
    np.testing.assert_allclose(build(tmp_path, **options)[1]['gt_depth_map'], 10 * truth['depth'][1])


def test_a_missing_label_of_the_first_image_does_not_hide_the_layout(tmp_path: Path) -> None:
    truth = write_tree(tmp_path, 'astmt')
    (tmp_path / f'edge/{IDS[0]}.png').unlink()
    dataset = build(tmp_path, allow_missing=True)
    assert dataset.layout == 'astmt'
    assert (dataset[0]['gt_edge'] == 255).all()
    np.testing.assert_array_equal(dataset[1]['gt_edge'], truth['edge'][1])
    with pytest.raises(FileNotFoundError, match=rf'edge: 1 of 2: .*edge/{IDS[0]}\.png'):
        build(tmp_path)


# --------------------------------------------------------------------------------------- wrong and ambiguous trees
def test_no_layout_fits(tmp_path: Path) -> None:
    write_tree(tmp_path, 'mti_net')
    for name in IDS:
        (tmp_path / f'edge/{name}.npy').rename(tmp_path / f'edge/{name}.png')
    with pytest.raises(ValueError, match=r"fit no known layout. Of the first id, '0001', there are .*'depth': \['.npy'\]") as e:  # fmt: skip
        build(tmp_path)
    assert "'edge': ['.png']" in str(e.value)
    assert all(f"'{layout}': {{" in str(e.value) for layout in SUFFIXES)
    assert 'name in `tasks` only what you have labels for' in str(e.value)


def test_equal_names_and_a_size_of_none_of_them(tmp_path: Path) -> None:
    write_tree(tmp_path, 'atrc')
    message = r"'0001' fit several layouts: mti_net with images of \(480, 640\), atrc with images of \(425, 560\) pixels "
    with pytest.raises(ValueError, match=message + r'.* has \(48, 64\); choose one by layout='):
        build(tmp_path)
    assert build(tmp_path, layout='atrc').layout == 'atrc'


def test_two_layouts_in_one_tree(tmp_path: Path) -> None:
    """ASTMT's files beside InvPT's: two images per id."""
    for layout in ('astmt', 'invpt'):
        write_tree(tmp_path, layout, SIZES[layout])
    with pytest.raises(ValueError, match=r'fit several layouts: astmt .*, invpt .*choose one by layout='):
        build(tmp_path)


def test_an_unknown_layout_and_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layout must be 'auto' or one of \['astmt', 'mti_net', 'invpt', 'atrc'\], got 'mtl'"):  # fmt: skip
        build(tmp_path, layout='mtl')
    with pytest.raises(FileNotFoundError, match=r'the list of images .*gt_sets/train\.txt does not exist'):
        build(tmp_path)
    assert build(tmp_path, lazy_init=True).layout == 'auto'  # nothing is looked for yet


# ------------------------------------------------------------------------------------------------------ broken files
@pytest.mark.parametrize(
    ('layout', 'file', 'array', 'message'),
    [
        ('mti_net', 'segmentation/0001.png', np.full(SMALL, 41, np.uint8), r'found ids from 41 to 41; expected class ids 0 \(no label\) to 40'),
        ('mti_net', 'segmentation/0001.png', np.zeros((*SMALL, 3), np.uint8), 'found an image of mode RGB'),
        ('astmt', 'segmentation/0001.mat', np.full(SMALL, 1.5), 'found ids that are no whole numbers'),
        ('astmt', 'segmentation/0001.mat', np.full(SMALL, np.nan), 'found float64'),
        ('astmt', 'segmentation/0001.mat', np.zeros((4, 4), np.uint8), 'found a label map of 4 x 4 pixels'),
        ('astmt', 'depth/0001.mat', np.zeros((*SMALL, 2)), r"found 'depth' as float64 \(48, 64, 2\)"),
        ('astmt', 'depth/0001.mat', np.full(SMALL, -1.0), 'such as -1; expected finite numbers of 0 and above'),
        ('mti_net', 'edge/0001.npy', np.full(SMALL, 255.0), r'found numbers from 255\.0 to 255\.0; expected .*in 0\.\.1'),
        ('mti_net', 'edge/0001.npy', np.full(SMALL, np.nan), 'found numbers from nan'),
        ('mti_net', 'edge/0001.npy', np.zeros((*SMALL, 1)), r'found float64 \(48, 64, 1\)'),
    ],
    ids=lambda value: None if isinstance(value, np.ndarray) else str(value)[:24],
)  # fmt: skip
def test_a_broken_file_is_named(
    tmp_path: Path, layout: str, file: str, array: np.ndarray, message: str
) -> None:
    write_tree(tmp_path, layout)
    _save(tmp_path / file, array, file.split('/')[0])
    with pytest.raises(SampleError, match=rf'{re.escape(file)}: .*{message}'):
        build(tmp_path, layout=layout)[0]


def test_a_mat_file_without_the_variable(tmp_path: Path) -> None:
    write_tree(tmp_path, 'astmt')
    savemat(tmp_path / 'depth/0001.mat', dict(distance=np.ones(SMALL)))
    with pytest.raises(SampleError, match=r"found the variables \['distance'\]; .* the variable 'depth'"):
        build(tmp_path)[0]


def test_edges_are_where_the_numbers_exceed_the_threshold(tmp_path: Path) -> None:
    write_tree(tmp_path, 'mti_net')
    values = np.zeros(SMALL)
    values[0, :4] = 0.5, 0.51, 0.3, 1
    np.save(tmp_path / 'edge/0001.npy', values)
    edge = build(tmp_path, layout='mti_net', tasks=('edge',))[0]['gt_edge']
    assert edge[0, :4].tolist() == [0, 1, 0, 1]
    np.save(tmp_path / 'edge/0001.npy', values > 0)
    edge = build(tmp_path, layout='mti_net', tasks=('edge',))[0]['gt_edge']
    assert edge[0, :5].tolist() == [1, 1, 1, 1, 0]
    own = dict(edge=dict(path='edge', reader=dict(type='mask_npy', threshold=1.0)))
    with pytest.raises(SampleError, match='threshold of the reader mask_npy must lie in'):
        build(tmp_path, layout='mti_net', tasks=('edge',), sources=own)[0]


# ------------------------------------------------------------------------------------------- training and evaluation
@pytest.fixture
def runner(tmp_path: Path, repo: Path) -> Runner:
    """The config's run on a small tree, with a small Swin."""
    cfg = Config.fromfile(repo / 'configs/polyhistor/swin-t_nyud.py')
    write_tree(tmp_path / 'nyud', 'astmt')
    arch = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
    cfg.model.backbone.update(arch=arch, init_cfg=None)
    cfg.model.decode_heads.update(in_channels=[16, 32, 64, 128], channels=16)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        cfg[f'{split}_dataloader'].dataset.data_root = str(tmp_path / 'nyud')
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = tmp_path.name
    return Runner.from_cfg(cfg)


def test_a_training_step_and_an_evaluation_with_the_config(runner: Runner) -> None:
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    moved = [name for name, p in runner.model.named_parameters() if not p.equal(before[name])]
    for task in TASKS:
        assert any(name.startswith(f'decode_heads.{task}.') for name in moved), task
    scalars = {key: runner.message_hub.get_scalar(key).current() for key in runner.message_hub.log_scalars}
    for task in TASKS:
        assert np.isfinite(scalars[f'train/loss_{task}']), task
    metrics = {key.removeprefix('val/'): value for key, value in scalars.items() if key.startswith('val/')}
    assert {'nyud_semseg.mIoU', 'depth.rmse', 'depth.delta1', 'normals.mean', 'edge.odsF'} < set(metrics)
    assert all(np.isfinite(metrics[key]) for key in ('nyud_semseg.mIoU', 'depth.rmse', 'normals.mean'))
    assert 'gain' not in metrics
    assert Path(runner.work_dir, 'epoch_1.pth').exists()
