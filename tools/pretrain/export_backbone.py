"""Write the backbone of a pretrained classifier, alone and in half precision, for AdaptedSwin to load.

The weights are those that the checkpoint holds as 'state_dict', which are the averaged ones where the training averaged
(EMAHook). They are rounded to float16, and the classifier with the rounded backbone is evaluated on the config's test
data, so that the accuracy is that of the file. What kind of file is written goes by its suffix:

  .safetensors   needs the package safetensors; the facts stand in the file's metadata
  .pth           torch.save of dict(state_dict=..., meta=<the facts>)

The file, its size, its SHA-256 and the facts are printed: architecture, window, image size, accuracy, epoch.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# A checkout works without installation; the configs import modules of this folder as `pretrain.<name>`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from torch import Tensor

from mmseg_polyhistor.engine import AtomicLocalBackend
from mmseg_polyhistor.engine.key_accounting import key_differences
from mmseg_polyhistor.engine.safe_load import load_from_local
from pretrain.jpeg_arrays import set_data_file

PREFIX = 'backbone.'
SUFFIXES = ('.safetensors', '.pth')

EXAMPLES = """examples:
  python tools/pretrain/export_backbone.py tools/pretrain/configs/swin-nano_10e.py \\
      work_dirs/pretrain/swin-nano_10e/epoch_10.pth --out swin-nano.safetensors --data-file tinyimagenet32_jpeg.npz

In a config, swin-nano is then:
  backbone=dict(
      type='AdaptedSwin', arch=dict(embed_dims=48, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]), window_size=4,
      init_cfg=dict(type='Pretrained', checkpoint='swin-nano.safetensors'))
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config that the classifier was trained with')
    parser.add_argument('checkpoint', help='a checkpoint of the training')
    parser.add_argument('--out', required=True, type=Path, help=f'the file to write: {" or ".join(SUFFIXES)}')
    parser.add_argument('--data-file', help="the .npz of images, instead of the config's data_file")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value: settings of the config'
    )
    args = parser.parse_args(arguments)
    if args.out.suffix not in SUFFIXES:
        parser.error(f'--out {args.out}: the suffix must be {" or ".join(SUFFIXES)}')
    if args.out.suffix == '.safetensors' and importlib.util.find_spec('safetensors') is None:
        parser.error(
            f'--out {args.out}: needs the package safetensors (pip install safetensors); or write a .pth'
        )
    return args


def in_half_precision(classifier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's entries of a classifier's state dict, under the backbone's names, float32 rounded to float16.

    Raises:
        ValueError: if there are none, or if a weight is not finite in float16.
    """
    weights = {
        key.removeprefix(PREFIX): value.half() if value.is_floating_point() else value
        for key, value in classifier.items()
        if key.startswith(PREFIX)
    }
    if not weights:
        raise ValueError(f'no key starts with {PREFIX!r}; keys start like {list(classifier)[:3]}')
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f'{key} has values that are not finite, or beyond the range of float16')
    return weights


def evaluate(cfg: Config, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Accuracy of a classifier with the given weights, on the test data of its config.

    Raises:
        ValueError: if the weights do not fit the classifier.
    """
    cfg = cfg.copy()
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks'):
        cfg.pop(key, None)
    cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None, load_from=None, resume=False)
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        runner = Runner.from_cfg(cfg)
        if differences := key_differences(runner.model, weights):
            raise ValueError(f'the weights do not fit the model of the config:\n{differences}')
        runner.model.load_state_dict(weights)
        return {key: float(value) for key, value in runner.test().items()}


def facts(cfg: Config, checkpoint: Mapping, accuracy: Mapping[str, float]) -> dict[str, str]:
    """What a file says about itself: text, since the metadata of safetensors are."""
    backbone = cfg.model.backbone
    return dict(
        architecture=json.dumps(backbone.arch),
        window_size=str(backbone.window_size),
        image_size=str(backbone.img_size),
        epoch=str(checkpoint['meta']['epoch']),
        iterations=str(checkpoint['meta']['iter']),
        averaged=str('ema_state_dict' in checkpoint),
        classes=str(cfg.model.head.num_classes),
        **{key: f'{value:.2f}' for key, value in accuracy.items()},
    )


def to_bytes(weights: dict[str, Tensor], meta: dict[str, str], suffix: str) -> bytes:
    """The file's content."""
    if suffix == '.safetensors':
        from safetensors.torch import save

        return save({key: value.contiguous() for key, value in weights.items()}, meta)
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=weights), buffer)
    return buffer.getvalue()


def export(args: argparse.Namespace) -> None:
    """Evaluate, write and report.

    Raises:
        ValueError, RuntimeError, FileNotFoundError: if config, checkpoint or data are unfit.
    """
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    if args.data_file:
        set_data_file(cfg, args.data_file)
    checkpoint = load_from_local(args.checkpoint, 'cpu')
    if absent := {'state_dict', 'meta'} - set(checkpoint):
        raise ValueError(f'{args.checkpoint} is no checkpoint of a training: it lacks {sorted(absent)}')
    weights = in_half_precision(checkpoint['state_dict'])
    rounded = {PREFIX + key: value for key, value in weights.items()}
    accuracy = evaluate(cfg, {**checkpoint['state_dict'], **rounded})
    meta = facts(cfg, checkpoint, accuracy)
    content = to_bytes(weights, meta, args.out.suffix)
    AtomicLocalBackend().put(content, args.out)
    print(f'{args.out}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}')
    for key, value in meta.items():
        print(f'  {key:16} {value}')


def main() -> None:
    args = parse_args()
    try:
        export(args)
    except (FileNotFoundError, RuntimeError, ValueError) as e:
        raise SystemExit(f'export_backbone.py: {e}') from e


if __name__ == '__main__':
    main()
