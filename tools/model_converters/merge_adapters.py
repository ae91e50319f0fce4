"""Merge what a linear method has learnt (LoRA, BitFit, ...) into the encoder, for inference without the method.

Writes a config and a checkpoint that run under tools/test.py like any others: the encoder without adapters where all
tasks share the changes, else one encoder per task. Both models see a random image first, and the largest difference of
their logits is printed. Methods that no stock network can stand for are refused, with the reason.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout works without installation

from mmseg.registry import MODELS

import mmseg_polyhistor  # noqa: F401  (registers the models, also for configs that do not import the package)
from mmseg_polyhistor.adapters import CannotMergeError
from mmseg_polyhistor.engine.safe_load import load_from_local
from mmseg_polyhistor.models.backbones import merged_segmentor

TOLERANCE = 1e-3  # of the largest logit, in float32

EXAMPLES = """examples:
  python tools/model_converters/merge_adapters.py configs/lora/plain_swin-t_pascal.py \\
      work_dirs/lora/plain_swin-t_pascal/epoch_60.pth --out work_dirs/merged
  python tools/test.py work_dirs/merged/config.py work_dirs/merged/merged.pth
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='full, or of AdapterCheckpointHook')
    parser.add_argument('--out', required=True, type=Path, help='folder for config.py and merged.pth')
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    checkpoint = load_from_local(args.checkpoint, 'cpu')
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(checkpoint.get('state_dict', checkpoint))
    try:
        merged_cfg, weights = merged_segmentor(cfg.model, model)
    except (CannotMergeError, ValueError) as error:
        raise SystemExit(f'merge_adapters.py: {error}') from error
    merged = MODELS.build(merged_cfg).eval()
    merged.load_state_dict(weights)

    torch.manual_seed(0)
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        before, after = model(image), merged(image)
    for task, logits in before.items():
        difference, largest = (logits - after[task]).abs().max(), logits.abs().max()
        print(f'{task}: logits differ by at most {difference:.2e}, of {largest:.2e}')
        if difference > TOLERANCE * largest:
            raise SystemExit(
                f'merge_adapters.py: the merged model does not compute what {type(model.backbone.adapters).__name__} '
                'does; nothing was written. Is its adapter_as_linear() right?'
            )

    args.out.mkdir(parents=True, exist_ok=True)
    cfg.model = merged_cfg
    cfg.dump(str(args.out / 'config.py'))
    meta = {key: value for key, value in checkpoint.get('meta', {}).items() if key == 'dataset_meta'}
    torch.save(dict(meta=meta, state_dict=weights), args.out / 'merged.pth')
    print(f'written: {args.out / "config.py"} and {args.out / "merged.pth"}')


if __name__ == '__main__':
    main()
