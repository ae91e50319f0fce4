"""Images and labels as real data sets have them, through the real pipelines, model, metric and tools.

Every case either goes all the way, with finite losses and gradients and defined metrics, or is refused by an error that
names the file and the reason.
"""

from __future__ import annotations

import io
import json
import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image
from scipy.io import savemat

from mmseg_polyhistor.datasets import PascalContextMTDataset, SampleError

REPO = Path(__file__).resolve().parents[2]
MINI = REPO / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py'
PASCAL = REPO / 'configs' / '_base_' / 'datasets' / 'pascal_context_mt.py'
CONTEXT_WITH_NORMALS, CONTEXT_WITHOUT = 3, 2  # ids of PASCAL-Context


# ----------------------------------------------------------------------------------------------------- writing cases
def struct_array(fields: Sequence[str], rows: Sequence[tuple]) -> np.ndarray:
    """A MATLAB struct array 1 x n."""
    array = np.zeros((1, len(rows)), [(name, 'O') for name in fields])
    for index, row in enumerate(rows):
        array[0, index] = tuple(row)
    return array


def write_case(
    root: Path,
    name: str,
    photograph: bytes,
    shape: tuple[int, int],
    *,
    semseg: np.ndarray | int = 1,
    parts: dict[str, np.ndarray] | None = None,
    saliency: np.ndarray | int = 1,
    context: int = CONTEXT_WITH_NORMALS,
    without: Sequence[str] = (),
) -> None:
    """Write a photograph and its labels of (height, width) `shape`; numbers stand for maps that are alike everywhere.

    Without `parts` there is a person without parts; `without` names folders whose file is left out.
    """
    for folder in (
        'JPEGImages',
        'semseg/VOC12',
        'human_parts',
        'normals_distill',
        'pascal-context/trainval',
        'sal_distill',
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / f'JPEGImages/{name}.jpg').write_bytes(photograph)
    full = np.ones(shape, np.uint8)
    labels = Image.fromarray(full * np.uint8(semseg) if np.isscalar(semseg) else semseg)
    labels.putpalette([0] * 768)
    labels.save(root / f'semseg/VOC12/{name}.png')
    rows = struct_array(('part_name', 'mask'), list(parts.items())) if parts else np.zeros((0, 0))
    objects = struct_array(('class', 'class_ind', 'mask', 'parts'), [('person', 15, full, rows)])
    anno = struct_array(('imname', 'objects'), [(name, objects)])
    savemat(root / f'human_parts/{name}.mat', {'anno': anno}, do_compression=True)
    Image.fromarray(np.full((*shape, 3), (128, 128, 255), np.uint8)).save(
        root / f'normals_distill/{name}.png'
    )
    savemat(root / f'pascal-context/trainval/{name}.mat', {'LabelMap': full.astype(np.uint16) * context})
    grey = full * np.uint8(255) * saliency if np.isscalar(saliency) else saliency
    Image.fromarray(grey.astype(np.uint8)).save(root / f'sal_distill/{name}.png')
    for folder in without:
        (path,) = (root / folder).glob(f'{name}.*')
        path.unlink()


def photo(shape: tuple[int, int], mode: str = 'RGB', orientation: int | None = None, fmt: str = '') -> bytes:
    """A photograph of noise, encoded; PNG where JPEG cannot hold the mode. Loaders look at the bytes, not at the name."""
    rng = np.random.default_rng(0)
    if mode == 'I;16':
        image = Image.fromarray(rng.integers(0, 2**16, shape).astype(np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, fmt or ('JPEG' if mode in ('RGB', 'L', 'CMYK') else 'PNG'), exif=exif)
    return buffer.getvalue()


def one_pixel(shape: tuple[int, int], value: int, background: int = 0) -> np.ndarray:
    array = np.full(shape, background, np.uint8)
    array[shape[0] // 2, shape[1] // 2] = value
    return array


SIZE = (33, 47)
ALL_LABELS = ('semseg/VOC12', 'human_parts', 'normals_distill', 'sal_distill')
HEAD = dict(parts={'head': np.ones(SIZE, np.uint8)})
# name -> (photograph, shape of the labels, other arguments of write_case)
CASES: dict[str, tuple[bytes, tuple[int, int], dict]] = {
    'plain': (photo(SIZE), SIZE, HEAD),
    'nobody': (photo(SIZE), SIZE, {}),
    'no files of parts and normals': (photo(SIZE), SIZE, dict(without=('human_parts', 'normals_distill'))),
    'no label at all': (photo(SIZE), SIZE, dict(without=ALL_LABELS)),
    'empty masks': (photo(SIZE), SIZE, dict(semseg=0, saliency=0, context=CONTEXT_WITHOUT)),
    'all ignored': (
        photo(SIZE),
        SIZE,
        dict(semseg=255, context=CONTEXT_WITHOUT, without=('sal_distill',)),
    ),
    'full masks': (photo(SIZE), SIZE, dict(semseg=20, saliency=1, **HEAD)),
    'objects of one pixel': (
        photo(SIZE),
        SIZE,
        dict(
            semseg=one_pixel(SIZE, 15, 255),
            parts={'lhand': one_pixel(SIZE, 1)},
            saliency=one_pixel(SIZE, 255),
        ),
    ),
    'parts without a pixel': (photo(SIZE), SIZE, dict(parts={'head': np.zeros(SIZE, np.uint8)})),
    **{f'mode {mode}': (photo(SIZE, mode), SIZE, HEAD) for mode in ('L', 'CMYK', 'P', 'RGBA', 'LA', '1')},
    **{f'EXIF {k}, labels turned': (photo(SIZE[::-1], orientation=k), SIZE, HEAD) for k in (5, 6, 7, 8)},
    **{
        f'{height} x {width}': (
            photo((height, width), fmt='PNG'),
            (height, width),
            dict(parts={'head': np.ones((height, width), np.uint8)}),
        )
        for height, width in ((1, 1), (1, 501), (501, 1), (7, 3), (2, 2))
    },
}


def bomb() -> bytes:
    """A black PNG image of 20,000 x 20,000 pixels; Pillow draws the line at 178,956,970."""
    side = 20_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, 'big') + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big')

    head = side.to_bytes(4, 'big') * 2 + bytes((1, 0, 0, 0, 0))
    data = zlib.compress(bytes(side // 8 + 1) * side, 1)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', data) + chunk(b'IEND', b'')


# name -> (photograph, shape of the labels, what the error says behind the path of the file)
REFUSED: dict[str, tuple[bytes, tuple[int, int], str]] = {
    **{
        f'EXIF {k}': (photo(SIZE, orientation=k), SIZE, f'the EXIF orientation {k}, by which it is turned')
        for k in (2, 3, 4)
    },
    **{
        f'EXIF {k}, square': (photo((9, 9), orientation=k), (9, 9), f'the EXIF orientation {k}, ')
        for k in (5, 6, 7, 8)
    },
    **{
        f'EXIF {k}, labels as stored': (photo(SIZE, orientation=k), SIZE, 'Height and width are swapped')
        for k in (5, 6, 7, 8)
    },
    'grey of 16 bits': (photo(SIZE, 'I;16'), SIZE, 'mode I;16, grey values of more than 8 bits'),
    'too large for Pillow': (bomb(), SIZE, 'DecompressionBombError: Image size (400000000 pixels) exceeds'),
    'cut off': (photo(SIZE)[:-400], SIZE, 'OSError: image file is truncated'),
    'empty': (b'', SIZE, 'cannot identify image file'),
    'a text': (b'no image', SIZE, 'cannot identify image file'),
    'labels of another size': (
        photo(SIZE),
        (33, 46),
        "33 x 46 pixels (height x width); expected the image's size",
    ),
}


# ------------------------------------------------------------------------------------------------------- the pieces
def pipelines(config: Path, size: int = 64) -> tuple[list[dict], list[dict]]:
    """The training and the test pipeline of a config; its size is smaller, for the time."""
    cfg = Config.fromfile(config)
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        resize = next(t for t in pipeline if t['type'] == 'MultiTaskResize')
        resize['scale'] = (size, size)
    return cfg.train_pipeline, cfg.test_pipeline


def data_set(
    root: Path, names: Sequence[str], pipeline: list[dict], **options: object
) -> PascalContextMTDataset:
    (root / 'list.txt').write_text('\n'.join(names) + '\n')
    return PascalContextMTDataset(
        'list.txt', data_root=root, pipeline=pipeline, allow_missing=True, **options
    )


@pytest.fixture(scope='module')
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, in one data set."""
    root = tmp_path_factory.mktemp('faults')
    for name, (photograph, shape, options) in CASES.items():
        write_case(root, name, photograph, shape, **options)
    return root


@pytest.fixture(scope='module')
def model() -> torch.nn.Module:
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(MINI).model)
    model.init_weights()
    return model


def train_step(model: torch.nn.Module, samples: list[dict]) -> dict[str, torch.Tensor]:
    """The losses of a batch; they and all gradients must be finite."""
    model.train()
    model.zero_grad()
    losses = model(**model.data_preprocessor(pseudo_collate(samples), True), mode='loss')
    model.parse_losses(losses)[0].backward()
    assert {name.removeprefix('loss_') for name in losses} == {'semseg', 'human_parts', 'saliency', 'normals'}
    for name, loss in losses.items():
        assert torch.isfinite(loss), name
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
    return {name: loss.detach() for name, loss in losses.items()}


# ---------------------------------------------------------------------------------------------------- what goes through
@pytest.mark.parametrize('config', [MINI, PASCAL], ids=['mini', 'pascal'])
@pytest.mark.parametrize('name', list(CASES))
def test_a_batch_of_the_case_alone_trains(
    tree: Path, model: torch.nn.Module, config: Path, name: str
) -> None:
    """Alone, so that nothing but this case decides on losses, shares of classes and statistics of norms."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', RuntimeWarning)
        losses = train_step(model, [data_set(tree, [name], pipelines(config)[0])[0]])
    zero = {
        'nobody': {
            'human_parts',
            'saliency',
        },  # saliency: balanced by the batch, one class alone weighs nothing
        'no label at all': {'semseg', 'human_parts', 'saliency', 'normals'},
        'all ignored': {'semseg', 'human_parts', 'saliency', 'normals'},
        'empty masks': {'human_parts', 'saliency', 'normals'},
        'no files of parts and normals': {'human_parts', 'saliency', 'normals'},
        'parts without a pixel': {'human_parts', 'saliency'},
    }.get(name)
    if zero is not None and config == MINI:
        assert {task.removeprefix('loss_') for task, loss in losses.items() if loss == 0} - zero == set()
        assert all(losses[f'loss_{task}'] == 0 for task in zero - {'saliency'})


def test_a_batch_of_all_cases_trains(tree: Path, model: torch.nn.Module) -> None:
    samples = data_set(tree, list(CASES), pipelines(MINI)[0])
    losses = train_step(model, [samples[k] for k in range(len(samples))])
    assert all(loss > 0 for loss in losses.values())


def evaluate(model: torch.nn.Module, dataset: PascalContextMTDataset) -> dict[str, float]:
    model.eval()
    evaluator = Evaluator(dict(type='MultiTaskMetric'))
    evaluator.dataset_meta = dataset.metainfo
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('error', RuntimeWarning)
        for k in range(len(dataset)):
            evaluator.process(data_samples=model.test_step(pseudo_collate([dataset[k]])))
        return evaluator.evaluate(len(dataset))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged."""
    records: list[str] = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'log', lambda level, message, *a, **k: records.append(message))
    return records


def test_all_cases_are_evaluated_and_what_does_not_count_is_told(
    tree: Path, model: torch.nn.Module, logged: list[str]
) -> None:
    metrics = evaluate(model, data_set(tree, list(CASES), pipelines(MINI)[1], test_mode=True))
    assert all(math.isfinite(value) for value in metrics.values())
    text = '\n'.join(logged)
    number = len(CASES)
    assert f'human_parts: 2 of {number}: {tree}/human_parts/no files of parts and normals.mat' in text
    # nobody, no files, no label, empty masks, all ignored, no pixel
    assert f'human_parts: 6 of {number} images have no valid pixel and do not count' in text
    assert f'semseg: 2 of {number} images have no valid pixel and do not count' in text
    assert f'saliency: 2 of {number} images have no valid pixel and do not count' in text
    assert f'normals: 4 of {number} images have no valid pixel and do not count' in text


def test_a_set_without_any_label_has_no_metrics_and_says_so(
    tree: Path, model: torch.nn.Module, logged: list[str]
) -> None:
    metrics = evaluate(model, data_set(tree, ['no label at all'], pipelines(MINI)[1], test_mode=True))
    assert all(math.isnan(value) for value in metrics.values())
    for task in ('semseg', 'human_parts', 'saliency', 'normals'):
        assert f'{task}: none of the 1 images has a valid pixel, its metrics are nan' in logged


def test_an_image_of_24_megapixels(tmp_path: Path, model: torch.nn.Module) -> None:
    shape = (4000, 6000)
    photograph = io.BytesIO()
    Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(photograph, 'JPEG')
    write_case(tmp_path, 'large', photograph.getvalue(), shape, parts={'torso': np.ones(shape, np.uint8)})
    losses = train_step(model, [data_set(tmp_path, ['large'], pipelines(PASCAL)[0])[0]])
    assert all(losses[f'loss_{task}'] > 0 for task in ('semseg', 'human_parts', 'normals'))


def test_one_value_per_channel(tree: Path, model: torch.nn.Module) -> None:
    """An image of one pixel is padded to a map of more; without the padding, the norm says what it lacks."""
    pipeline = [
        t for t in pipelines(MINI)[0] if t['type'] not in ('MultiTaskResize', 'MultiTaskRandomRotate')
    ]
    sample = data_set(tree, ['1 x 1'], pipeline)[0]
    assert sample['inputs'].shape == (3, 1, 1)
    train_step(model, [sample])
    padding = model.data_preprocessor.train_padding
    model.data_preprocessor.train_padding = dict(size_divisor=1)
    try:
        with pytest.raises(
            ValueError, match=r'Expected more than 1 value per channel when training, got .*1, 1\]'
        ):
            train_step(model, [sample])
    finally:
        model.data_preprocessor.train_padding = padding


# ------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize('name', list(REFUSED))
def test_what_is_refused_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    photograph, shape, message = REFUSED[name]
    write_case(tmp_path, 'x', photograph, shape)
    with pytest.raises(SampleError) as caught:
        data_set(tmp_path, ['x'], pipelines(PASCAL)[0])[0]
    assert message in str(caught.value)
    assert str(caught.value).startswith(f'{tmp_path}/')
    assert '/x.' in str(caught.value)


# --------------------------------------------------------------------------------------------------------- the tools
@pytest.mark.integration
def test_the_tools_train_and_evaluate_all_of_it(tools: Callable, tree: Path, tmp_path: Path) -> None:
    """Train and test with every case in one data set; then one photograph is turned by half, and both tools name it."""
    for split in ('train', 'val'):
        path = tree / f'ImageSets/Context/{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(CASES) + '\n')
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
_base_ = {str(MINI)!r}
data = dict(data_root={str(tree)!r}, allow_missing=True)
alone = dict(num_workers=0, persistent_workers=False, dataset=data)
train_dataloader = dict(batch_size=4, **alone)
val_dataloader = alone
test_dataloader = alone
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""
    )
    work_dir = tmp_path / 'work'
    _, printed = tools.start('train.py', config, '--work-dir', work_dir, cwd=tmp_path)
    number = len(CASES)
    assert f'human_parts: {2} of {number}: ' in printed
    assert 'some lack labels, which are ignored' in printed
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if 'loss' in line]
    assert len(steps) == -(-number // 4) or len(steps) == number // 4
    assert all(
        math.isfinite(value) for line in lines for key, value in line.items() if 'loss' in key or '.' in key
    )

    test = ['test.py', config, work_dir / 'epoch_1.pth', '--work-dir', tmp_path / 'test']
    _, printed = tools.start(*test, cwd=tmp_path)
    assert f'human_parts: 6 of {number} images have no valid pixel and do not count' in printed
    (result,) = (tmp_path / 'test').glob('*/*.json')
    metrics = json.loads(result.read_text())
    tested = {key: value for key, value in metrics.items() if '.' in key}
    assert tested
    assert all(math.isfinite(value) for value in tested.values())
    trained = next(line for line in lines if 'semseg.mIoU' in line)
    assert {key: trained[key] for key in tested} == pytest.approx(tested)

    sound = tree / 'JPEGImages/plain.jpg'
    content = sound.read_bytes()
    try:
        sound.write_bytes(photo(SIZE, orientation=3))
        for command in (['train.py', config, '--work-dir', tmp_path / 'refused'], test):
            (status,), printed = tools.start(*command, cwd=tmp_path, expect=None)
            assert status != 0
            assert f'{sound}: found a photograph of 33 x 47 pixels' in printed
            assert 'EXIF orientation 3' in printed
    finally:
        sound.write_bytes(content)
