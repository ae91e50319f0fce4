"""Turn a checkpoint of adapters and decoders (AdapterCheckpointHook) into a full one, or a full one into such a one.

`--to full` restores the frozen backbone from the file that the config or the checkpoint names, checked by its hash, and
writes all weights: a checkpoint that needs no other file, for mmseg's tools and other people's machines. `--to adapters`
leaves the frozen backbone out, with a record of where it came from. What is needed to resume a training is left out in
either case.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout works without installation

from mmengine.runner.checkpoint import save_checkpoint
from mmseg.registry import MODELS

import mmseg_polyhistor  # noqa: F401  (registers the models, also for configs that do not import the package)
from mmseg_polyhistor.engine.hooks.adapter_checkpoint_hook import frozen_backbones, without_frozen
from mmseg_polyhistor.engine.safe_load import load_from_local

EXAMPLE = """examples:
  python tools/model_converters/adapter_checkpoint.py configs/polyhistor_lite/swin-t_pascal.py \\
      work_dirs/polyhistor_lite/swin-t_pascal/epoch_60.pth --to full --out polyhistor_lite_full.pth
  python tools/model_converters/adapter_checkpoint.py CONFIG epoch_60.pth --to full --out full.pth \\
      --cfg-options model.backbone.init_cfg.checkpoint=checkpoints/swin_tiny_patch4_window7_224.pth
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config that the checkpoint was trained with')
    parser.add_argument('checkpoint', type=Path, help='a checkpoint, full or of adapters and decoders')
    parser.add_argument('--to', required=True, choices=('full', 'adapters'), help='what to write')
    parser.add_argument('--out', required=True, type=Path, help='the file to write; it must not exist')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='changes of the config, key=value: model.backbone.init_cfg.checkpoint=... names the backbone elsewhere',
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    if args.out.exists():
        raise SystemExit(f'adapter_checkpoint.py: {args.out} exists; remove it, or name another file')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    model = MODELS.build(cfg.model)
    try:
        checkpoint = load_from_local(str(args.checkpoint), 'cpu')
        model.load_state_dict(checkpoint.get('state_dict', checkpoint))
        weights = model.state_dict()
        meta = {k: v for k, v in checkpoint.get('meta', {}).items() if k != 'frozen_backbones'}
        if args.to == 'adapters':
            records = {}
            for name, backbone in frozen_backbones(model):
                source = backbone.frozen_source()
                if source is None:
                    raise RuntimeError(
                        f'the frozen weights of {name or "the model"} are not those of the file that its init_cfg names '
                        f'({(backbone.pretrained_source() or ["none"])[0]}): nothing could restore them'
                    )
                records[name] = backbone.frozen_record(*source)
            if not records:
                raise RuntimeError(f'no backbone of {args.config} is frozen: there is nothing to leave out')
            weights = without_frozen(model, weights, records)
            meta['frozen_backbones'] = {name: asdict(record) for name, record in records.items()}
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'adapter_checkpoint.py: {error}') from error
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        dict(meta=meta, state_dict=weights), str(args.out), backend_args=dict(backend='atomic_local')
    )
    values = sum(v.numel() for v in weights.values() if isinstance(v, torch.Tensor))
    print(f'written: {args.out}, {args.out.stat().st_size / 1e6:.1f} MB, {values:,} values')


if __name__ == '__main__':
    main()
