"""How often files are opened: labels once per validation, PASCAL-Part files once at all where there is a cache."""

from __future__ import annotations

import builtins
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.structures import PixelData

from mmseg_polyhistor.datasets import PascalContextMTDataset, pascal_labels
from mmseg_polyhistor.tasks import get_tasks

PIPELINE = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='MultiTaskResize', scale=(32, 32)),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='PackMultiTaskInputs'),
]
FILES_PER_IMAGE = 6  # image, four labels, and the context that says where normals hold


def make_loader(root: Path, cache: Path | None, workers: int = 0):
    dataset = PascalContextMTDataset(
        'ImageSets/Context/val.txt', data_root=root, parts_cache_dir=cache, pipeline=PIPELINE, test_mode=True
    )
    sampler = dict(type='DefaultSampler', shuffle=False)
    return Runner.build_dataloader(dict(batch_size=1, num_workers=workers, sampler=sampler, dataset=dataset))


def validate(loader) -> dict[str, float]:
    """What mmengine's validation loop does, with a model that predicts the truth."""
    evaluator = Evaluator(dict(type='MultiTaskMetric'))
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        for sample in batch['data_samples']:
            for spec in get_tasks(loader.dataset.tasks):
                truth = sample.get(spec.gt_field).data
                known = truth * (truth != spec.ignore_value)
                prediction = known.float() if spec.kind == 'binary' else known
                sample.set_data({spec.pred_field: PixelData(data=prediction)})
        evaluator.process(data_samples=batch['data_samples'], data_batch=batch)
    return evaluator.evaluate(len(loader.dataset))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, pascal_tree: SimpleNamespace) -> Counter:
    """How often each file of the tree was opened, by its path below the root."""
    counts: Counter = Counter()
    plain_open = builtins.open

    def counting_open(file, *args, **kwargs):
        if isinstance(file, (str, Path)) and Path(file).is_relative_to(pascal_tree.root):
            counts[Path(file).relative_to(pascal_tree.root).as_posix()] += 1
        return plain_open(file, *args, **kwargs)

    monkeypatch.setattr(builtins, 'open', counting_open)
    return counts


def test_a_validation_opens_every_file_once(opened: Counter, pascal_tree: SimpleNamespace) -> None:
    loader = make_loader(pascal_tree.root, None)
    opened.clear()  # of the list of ids
    metrics = validate(loader)
    assert metrics['semseg.mIoU'] == pytest.approx(100)
    assert metrics['normals.mean'] == pytest.approx(0, abs=0.1)
    assert {name: number for name, number in opened.items() if number != 1} == {
        f'JPEGImages/{image}.jpg': 2 for image in pascal_tree.ids
    }, 'the head of a photograph is read a second time, for its orientation'
    assert len(opened) == FILES_PER_IMAGE * len(pascal_tree.ids)


def test_parts_are_parsed_in_the_first_validation_alone(
    opened: Counter, pascal_tree: SimpleNamespace, tmp_path: Path
) -> None:
    loader = make_loader(pascal_tree.root, tmp_path / 'cache')
    opened.clear()
    first = validate(loader)
    assert sum(name.startswith('human_parts/') for name in opened) == len(pascal_tree.ids)
    opened.clear()
    assert validate(loader) == first
    assert not any(name.startswith('human_parts/') for name in opened)
    assert len(opened) == (FILES_PER_IMAGE - 1) * len(pascal_tree.ids)


def test_the_cache_serves_all_epochs_and_processes(
    pascal_tree: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse, log = pascal_labels.parse_parts, tmp_path / 'parsed'

    def logging_parse(path, shape):
        with open(log, 'a', encoding='utf-8') as file:
            file.write(f'{Path(path).stem}\n')
        return parse(path, shape)

    monkeypatch.setattr(pascal_labels, 'parse_parts', logging_parse)
    truth = [sample for batch in make_loader(pascal_tree.root, None) for sample in batch['data_samples']]
    log.unlink()
    for workers in (2, 2, 0):
        loader = make_loader(pascal_tree.root, tmp_path / 'cache', workers)
        for _ in range(2):
            samples = [sample for batch in loader for sample in batch['data_samples']]
            for sample, expected in zip(samples, truth, strict=True):
                assert (sample.gt_human_parts.data == expected.gt_human_parts.data).all()
    assert sorted(log.read_text().split()) == sorted(pascal_tree.ids)
