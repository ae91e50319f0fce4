"""The data set on a small tree of its layout, and on the sample data."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_polyhistor.datasets import LabelError, PascalContextMTDataset, SampleError
from mmseg_polyhistor.tasks import get_task

LOAD = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='LoadMultiTaskAnnotations')]
TEST = [*LOAD, dict(type='PackMultiTaskInputs')]
TRAIN = [
    *LOAD,
    dict(type='MultiTaskRandomFlip', prob=0.5),
    dict(type='MultiTaskRandomRotate', degree=20.0, scale_range=(0.75, 1.25)),
    dict(type='MultiTaskRandomCrop', crop_size=16),
    dict(type='PackMultiTaskInputs'),
]


def build(root: Path, **options: Any) -> PascalContextMTDataset:
    return PascalContextMTDataset(**{'data_root': str(root), 'pipeline': LOAD, **options})


def test_all_labels_of_all_images(pascal_tree: SimpleNamespace) -> None:
    dataset = build(pascal_tree.root)
    assert len(dataset) == 3
    for k in range(3):
        sample = dataset[k]
        assert sample['tasks'] == ('semseg', 'human_parts', 'normals', 'saliency')
        assert sample['sample_idx'] == k
        assert Path(sample['img_path']).stem == pascal_tree.ids[k]
        keys = [get_task(task).gt_key for task in sample['tasks']]
        assert sample['seg_fields'] == keys
        for task, key in zip(sample['tasks'], keys, strict=True):
            np.testing.assert_allclose(sample[key], pascal_tree.truth[task][k], atol=1e-6)


def test_edges_are_a_fifth_task_on_demand(pascal_tree: SimpleNamespace) -> None:
    shutil.rmtree(pascal_tree.root / 'normals_distill')
    dataset = build(pascal_tree.root, tasks=('edge', 'saliency'), pipeline=TRAIN)
    sample = dataset[0]['data_samples']
    assert sample.gt_edge.data.shape == (1, 16, 16)
    label = build(pascal_tree.root, tasks=('edge',))[1]['gt_edge']
    assert label.dtype == np.uint8
    assert label.shape == pascal_tree.shape
    assert set(np.unique(label)) == {0, 1}


def test_semseg_comes_from_voc_where_it_is_there(pascal_tree: SimpleNamespace) -> None:
    folders = [
        Path(info['label_paths']['semseg']).parent.name
        for info in map(build(pascal_tree.root).get_data_info, range(3))
    ]
    assert folders == ['pascal-context', 'VOC12', 'VOC12']


@pytest.mark.parametrize(
    ('tasks', 'unneeded'),
    [
        (('semseg',), ('human_parts', 'normals_distill', 'pascal-context', 'sal_distill')),
        (('saliency', 'human_parts'), ('semseg', 'normals_distill', 'pascal-context')),
        (('normals',), ('semseg', 'human_parts', 'sal_distill')),
    ],
)
def test_only_the_files_of_the_tasks_are_needed(
    pascal_tree: SimpleNamespace, tasks: tuple[str, ...], unneeded: tuple[str, ...]
) -> None:
    for folder in unneeded:
        shutil.rmtree(pascal_tree.root / folder)
    sample = build(pascal_tree.root, tasks=list(tasks))[0]
    assert sample['tasks'] == tasks
    assert sample['seg_fields'] == [get_task(task).gt_key for task in tasks]


def test_nothing_is_written_under_the_root(pascal_tree: SimpleNamespace, tmp_path: Path) -> None:
    def snapshot() -> dict[Path, tuple[int, int]]:
        return {
            p: (p.stat().st_mtime_ns, p.stat().st_size)
            for p in [pascal_tree.root, *pascal_tree.root.rglob('*')]
        }

    before = snapshot()
    plain, cached = build(pascal_tree.root), build(pascal_tree.root, parts_cache_dir=tmp_path / 'cache')
    for _ in range(2):
        for k in range(3):
            np.testing.assert_array_equal(plain[k]['gt_human_parts'], cached[k]['gt_human_parts'])
    assert snapshot() == before
    assert len(list((tmp_path / 'cache').glob('*.png'))) == 3


# ------------------------------------------------------------------------------------------------- missing files
def test_missing_labels_are_one_error_with_counts_and_names(pascal_tree: SimpleNamespace) -> None:
    root = pascal_tree.root
    (root / 'human_parts/2008_000002.mat').unlink()
    (root / 'semseg/pascal-context/2008_000001.png').unlink()
    shutil.rmtree(root / 'pascal-context')
    with pytest.raises(FileNotFoundError) as caught:
        build(root)
    lines = str(caught.value).splitlines()
    assert 'of the 3 images in' in lines[0]
    assert lines[1].startswith('  semseg: 1 of 3: ')
    assert 'VOC12/2008_000001.png or ' in lines[1]
    assert lines[1].endswith('pascal-context/2008_000001.png')
    assert lines[2] == f'  human_parts: 1 of 3: {root}/human_parts/2008_000002.mat'
    assert lines[3].startswith(f'  normals: 3 of 3: {root}/pascal-context/trainval/2008_000001.mat, ')
    assert 'allow_missing=True' in lines[4]


def test_allow_missing_ignores_the_task_in_that_image_and_warns(
    pascal_tree: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(
        'mmseg_polyhistor.datasets.multi_task_dataset.print_log', lambda message, *_: warnings.append(message)
    )
    (pascal_tree.root / 'human_parts/2008_000001.mat').unlink()
    shutil.rmtree(pascal_tree.root / 'pascal-context')
    dataset = build(pascal_tree.root, allow_missing=True)
    assert dataset.get_data_info(0)['label_paths']['human_parts'] is None
    sample = dataset[0]
    assert (sample['gt_human_parts'] == 255).all()
    assert (sample['gt_normals'] == 255).all()
    assert sample['gt_normals'].shape == (*pascal_tree.shape, 3)
    np.testing.assert_array_equal(dataset[1]['gt_human_parts'], pascal_tree.truth['human_parts'][1])
    (warning,) = warnings
    assert 'human_parts: 1 of 3' in warning
    assert 'normals: 3 of 3' in warning


@pytest.mark.parametrize('allow_missing', [False, True])
def test_a_missing_image_is_always_an_error(pascal_tree: SimpleNamespace, allow_missing: bool) -> None:
    (pascal_tree.root / 'JPEGImages/2008_000003.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'of the 3 images in .*, 1 do not exist: .*2008_000003\.jpg'):
        build(pascal_tree.root, allow_missing=allow_missing)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'the list of images is empty'),
        ('\n  \n', 'the list of images is empty'),
        ('2008_000001\n2008_000002\n2008_000001\n', r'1 ids stand in the list more than once: 2008_000001'),
    ],
)
def test_unfit_lists(pascal_tree: SimpleNamespace, content: str, message: str) -> None:
    path = pascal_tree.root / 'ImageSets/Context/train.txt'
    path.write_text(content)
    with pytest.raises(ValueError, match=f'train.txt: .*{message}'):
        build(pascal_tree.root)


def test_blank_lines_and_windows_line_ends_are_passed_over(pascal_tree: SimpleNamespace) -> None:
    (pascal_tree.root / 'ImageSets/Context/train.txt').write_bytes(
        b'2008_000002\r\n\r\n 2008_000003 \r\n\r\n'
    )
    assert len(build(pascal_tree.root)) == 2


def test_a_byte_order_mark_is_no_part_of_the_first_id(pascal_tree: SimpleNamespace) -> None:
    (pascal_tree.root / 'ImageSets/Context/train.txt').write_text('2008_000002\n', encoding='utf-8-sig')
    assert Path(build(pascal_tree.root).get_data_info(0)['img_path']).stem == '2008_000002'


def test_a_missing_list_is_named(pascal_tree: SimpleNamespace) -> None:
    with pytest.raises(
        FileNotFoundError, match=r'ImageSets/Context/test\.txt does not exist; check data_root'
    ):
        build(pascal_tree.root, ann_file='ImageSets/Context/test.txt')


# -------------------------------------------------------------------------------------------------- broken files
def test_a_truncated_photograph_is_an_error_that_names_it(pascal_tree: SimpleNamespace) -> None:
    path = pascal_tree.root / 'JPEGImages/2008_000002.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    dataset = build(pascal_tree.root)
    dataset[0]
    with pytest.raises(SampleError, match=r'2008_000002\.jpg: OSError: .*truncated'):
        dataset[1]


@pytest.mark.parametrize(
    ('task', 'file'),
    [
        ('semseg', 'semseg/VOC12/2008_000002.png'),
        ('human_parts', 'human_parts/2008_000002.mat'),
        ('normals', 'normals_distill/2008_000002.png'),
        ('normals', 'pascal-context/trainval/2008_000002.mat'),
        ('saliency', 'sal_distill/2008_000002.png'),
    ],
)
def test_a_broken_label_is_an_error_that_names_it(pascal_tree: SimpleNamespace, task: str, file: str) -> None:
    path = pascal_tree.root / file
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(LabelError, match=file):
        build(pascal_tree.root, tasks=[task])[1]


def test_a_label_of_another_size_is_an_error_that_names_it(pascal_tree: SimpleNamespace) -> None:
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(pascal_tree.root / 'sal_distill/2008_000001.png')
    with pytest.raises(
        LabelError, match=r"2008_000001\.png: found a label map of 5 x 5 .* image's size, 20 x 28"
    ):
        build(pascal_tree.root)[0]


# --------------------------------------------------------------------------------------- the arguments' meaning
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(tasks=['semseg', 'edges']), "unknown task 'edges'"),
        (dict(tasks='semseg'), 'sequence of names'),
        (
            dict(data_prefix=dict(depth='depth')),
            "kind of file 'depth' is in only one of data_prefix and suffixes",
        ),
        (
            dict(sources=dict(semseg=dict(path='masks', reader=dict(type='index_image')))),
            r"kinds of file \['masks'\]",
        ),
        (dict(sources=dict(semseg=dict(path='semseg'))), "source of task 'semseg' needs path"),
        (
            dict(sources=dict(semseg=dict(path='semseg', reader=dict(type='nope')))),
            "unknown label reader 'nope'",
        ),
        (dict(metainfo=dict(tasks=('semseg',))), "metainfo must not hold 'tasks'"),
        (dict(metainfo=dict(classes=('cat', 'dog'))), 'a task with other classes is a row of its own'),
    ],
)
def test_wrong_arguments(pascal_tree: SimpleNamespace, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(pascal_tree.root, **options)


def test_other_folders(pascal_tree: SimpleNamespace, tmp_path: Path) -> None:
    root = pascal_tree.root
    (root / 'sal_distill').rename(root / 'masks')
    (root / 'human_parts').rename(tmp_path / 'elsewhere')
    prefix = dict(
        saliency='masks',
        human_parts=str(tmp_path / 'elsewhere'),
        semseg=['semseg/pascal-context', 'semseg/VOC12'],
    )
    dataset = build(root, data_prefix=prefix)
    np.testing.assert_array_equal(dataset[0]['gt_saliency'], pascal_tree.truth['saliency'][0])
    np.testing.assert_array_equal(dataset[0]['gt_human_parts'], pascal_tree.truth['human_parts'][0])
    assert (dataset[2]['gt_seg_map'] == 0).all(), 'the first folder of the list counts'


def test_indices_lazy_init_and_unserialized(pascal_tree: SimpleNamespace) -> None:
    assert len(build(pascal_tree.root, indices=2)) == 2
    assert [build(pascal_tree.root, indices=[2, 0])[k]['img_path'][-5] for k in range(2)] == ['3', '1']
    plain = build(pascal_tree.root, serialize_data=False)
    np.testing.assert_array_equal(plain[1]['gt_seg_map'], pascal_tree.truth['semseg'][1])
    lazy = build(pascal_tree.root / 'nowhere', lazy_init=True)
    assert lazy.metainfo['classes'][15] == 'person'
    with pytest.raises(FileNotFoundError):
        lazy.full_init()


def test_a_config_builds_it(pascal_tree: SimpleNamespace) -> None:
    cfg = Config(
        dict(
            dataset=dict(
                type='PascalContextMTDataset',
                data_root=str(pascal_tree.root),
                ann_file='ImageSets/Context/val.txt',
                tasks=['semseg', 'normals'],
                data_prefix=dict(semseg=['semseg/VOC12', 'semseg/pascal-context']),
                pipeline=TEST,
                test_mode=True,
            )
        )
    )
    dataset = DATASETS.build(cfg.dataset)
    sample = dataset[0]['data_samples']
    assert type(dataset.get_data_info(0)['label_readers']['normals']) is dict
    assert sample.gt_sem_seg.data.dtype == torch.uint8
    assert sample.gt_normals.data.shape == (3, *pascal_tree.shape)


def test_the_metainfo_is_plain(pascal_tree: SimpleNamespace) -> None:
    def kinds(value: object) -> set[type]:
        if isinstance(value, dict):
            return {dict} | {k for item in value.values() for k in kinds(item)}
        if isinstance(value, (list, tuple)):
            return {type(value)} | {k for item in value for k in kinds(item)}
        return {type(value)}

    metainfo = build(pascal_tree.root, tasks=('human_parts', 'semseg')).metainfo
    assert metainfo['tasks'] == ('human_parts', 'semseg')
    assert metainfo['classes'] == list(get_task('semseg').classes)
    assert metainfo['palette'][15] == [192, 128, 128], "VOC's colour of a person"
    assert kinds(metainfo) <= {dict, list, tuple, str, int}
    assert pickle.loads(pickle.dumps(metainfo)) == metainfo
    assert 'tasks' not in PascalContextMTDataset.METAINFO


def batches(root: Path, workers: int, pipeline: list[dict], seed: int = 3) -> list[dict]:
    cfg = dict(
        batch_size=2,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
        dataset=dict(type='PascalContextMTDataset', data_root=str(root), pipeline=pipeline),
    )
    np.random.seed(seed)  # noqa: NPY002
    iterator = iter(Runner.build_dataloader(cfg, seed=seed))
    try:
        return list(iterator)
    finally:
        if workers:
            iterator._shutdown_workers()  # else an error's traceback keeps them until the next garbage collection


def same(a: list[dict], b: list[dict]) -> bool:
    fields = [get_task(task).gt_field for task in ('semseg', 'human_parts', 'normals', 'saliency')]
    return all(
        torch.equal(u, v)
        for x, y in zip(a, b, strict=True)
        for u, v in [
            *zip(x['inputs'], y['inputs'], strict=True),
            *(
                (s.get(f).data, t.get(f).data)
                for s, t in zip(x['data_samples'], y['data_samples'], strict=True)
                for f in fields
            ),
        ]
    )


def test_workers_give_the_samples_that_the_main_process_gives(pascal_tree: SimpleNamespace) -> None:
    alone, workers = (batches(pascal_tree.root, number, TEST) for number in (0, 2))
    assert len(alone) == 2
    assert same(alone, workers)


def test_augmentation_in_workers_repeats_with_the_seed(pascal_tree: SimpleNamespace) -> None:
    first, again, other = (batches(pascal_tree.root, 2, TRAIN, seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


def test_an_error_in_a_worker_still_names_the_file(pascal_tree: SimpleNamespace) -> None:
    (pascal_tree.root / 'sal_distill/2008_000002.png').write_bytes(b'broken')
    with pytest.raises(
        LabelError, match=r'sal_distill/2008_000002\.png: found a file that cannot be decoded'
    ):
        batches(pascal_tree.root, 1, TEST)


# ------------------------------------------------------------------------------------------------ the sample data
def test_the_real_files_serve_three_tasks(shared_data: Path) -> None:
    samples = []
    for split in ('train', 'val'):
        dataset = build(
            shared_data / 'pascal_real18',
            ann_file=f'ImageSets/Context/{split}.txt',
            tasks=('semseg', 'human_parts', 'saliency'),
            data_prefix=dict(saliency='sal_pseudo'),
        )
        samples += [dataset[k] for k in range(len(dataset))]
    assert len(samples) == 18
    for sample in samples:
        with Image.open(sample['label_paths']['semseg']) as mask:
            np.testing.assert_array_equal(sample['gt_seg_map'], np.array(mask))
        person = sample['gt_seg_map'] == 15
        parts = sample['gt_human_parts'] > 0
        assert (parts & person).sum() >= 0.9 * person.sum(), 'almost all of a person is some part'
        assert set(np.unique(sample['gt_human_parts'])) <= set(range(7))
        assert set(np.unique(sample['gt_saliency'])) <= {0, 1}
    assert sum((sample['gt_human_parts'] > 0).any() for sample in samples) == 8


def test_the_real_files_say_what_is_missing(shared_data: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'normals: 12 of 12: .*\n  saliency: 12 of 12'):
        build(shared_data / 'pascal_real18')


def test_rendered_scenes_serve_all_tasks(shared_data: Path) -> None:
    dataset = build(shared_data / 'scenes', indices=12, pipeline=TEST)
    assert len(dataset) == 12
    for k in range(12):
        sample = dataset[k]['data_samples']
        assert dataset[k]['inputs'].shape == (3, 256, 256)
        normals = sample.gt_normals.data
        valid = (normals != 255).all(0)
        assert valid.float().mean() > 0.5
        torch.testing.assert_close(
            normals.norm(dim=0)[valid], torch.ones(int(valid.sum())), atol=1e-5, rtol=0
        )
        parts, semseg = sample.gt_human_parts.data[0], sample.gt_sem_seg.data[0]
        if (parts == 255).all():
            assert not (semseg == 15).any(), 'only an image without a person has no parts'
        else:
            assert ((parts > 0) <= (semseg == 15)).all(), 'parts lie on persons'
