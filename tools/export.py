"""Write a trained model as ONNX or as a torch.export program: one file, one input, one output per task.

The graph holds everything from the image to the predictions: normalisation, padding, the encoder with adapter weights as
constants (no hyper-networks; changes that all tasks share are merged into the encoder), the decoders, and what turns
logits into predictions at the size of the image. The file takes images of any number and size, unless --no-dynamic.

Input   images       float32 (B, 3, H, W), RGB, 0 to 255
Output  one per task, by its name:
  semantic           int64 (B, 1, H, W), the class
  binary             float32 (B, 1, H, W), the probability
  unit vector        float32 (B, 3, H, W), at length one
  scalar             float32 (B, 1, H, W)

Before the file gets its name it is run on random images of several sizes, with onnxruntime or torch, and refused if it
differs from the model. Exporting Swin-T takes one to two minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS

from mmseg_polyhistor.export import (
    CHANNEL_ORDERS,
    FIX_THE_SIZE,
    FORMATS,
    OUTPUTS,
    ExportError,
    ExportNetwork,
    largest_differences,
    require_packages,
    write_file,
)

SUFFIXES = {'onnx': '.onnx', 'torch_export': '.pt2'}
DEFAULT_SHAPE = (512, 512)

EXAMPLES = """examples:
  python tools/export.py configs/polyhistor_lite/swin-t_pascal.py \\
      work_dirs/polyhistor_lite/swin-t_pascal/epoch_60.pth --out polyhistor_lite.onnx
  python tools/export.py CONFIG CHECKPOINT --out semseg.onnx --tasks semseg --outputs logits
  python tools/export.py CONFIG CHECKPOINT --out fixed.onnx --no-dynamic --shape 448 448 --opset 20
  python tools/export.py CONFIG CHECKPOINT --out model.pt2 --format torch_export
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='file or URL; full, or of AdapterCheckpointHook')
    parser.add_argument('--out', required=True, type=Path, help='the file to write')
    parser.add_argument(
        '--format', choices=list(FORMATS), default='onnx', help='what to write (default: onnx)'
    )
    parser.add_argument('--tasks', nargs='+', help='only these of its tasks (default: all)')
    parser.add_argument(
        '--outputs',
        choices=OUTPUTS,
        default='predictions',
        help='predictions, or the logits that they are made of (default: predictions)',
    )
    parser.add_argument(
        '--preprocessing',
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make normalisation and padding part of the file; without, images must be what the model's data "
        'preprocessor makes (default: yes)',
    )
    parser.add_argument(
        '--channel-order',
        choices=CHANNEL_ORDERS,
        default='rgb',
        help='of the images, with preprocessing (default: rgb)',
    )
    parser.add_argument(
        '--dynamic',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='take images of any number and size; without, one image of --shape at a time (default: yes)',
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help="the image that is checked, and with --no-dynamic the only one (default: the config's crop_size, else 512 512)",
    )
    parser.add_argument(
        '--opset',
        type=int,
        metavar='N',
        help="version of ONNX's operators, 18 or higher (default: torch's choice)",
    )
    parser.add_argument(
        '--check',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='run the file and compare it with the model (default: yes)',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-3,
        help='largest difference allowed, relative to the largest logit (default: 1e-3)',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='changes of the config, key=value'
    )
    args = parser.parse_args(arguments)
    suffix = SUFFIXES[args.format]
    if args.out.suffix != suffix:
        parser.error(f'--out of the format {args.format} must end with {suffix}, got {args.out}')
    if args.shape and min(args.shape) < 1:
        parser.error(f'--shape must be two positive numbers, got {args.shape}')
    if args.opset is not None and args.format != 'onnx':
        parser.error('--opset is an option of --format onnx')
    return args


def check_sizes(shape: tuple[int, int], dynamic: bool) -> list[tuple[int, int, int]]:
    """The images (B, H, W) that a file is checked with: one of `shape`, and, if any will do, two of an odd other size.

    The latter is not below what backbones take without padding: MiT and PVTv2 begin at 29 x 29.
    """
    height, width = shape
    other = (2, max(width * 2 // 3 + 1, 33), max(height * 3 // 4 + 1, 37))
    return [(1, height, width)] + ([other] if dynamic else [])


def image_shape(args: argparse.Namespace, cfg: Config) -> tuple[int, int]:
    """Height and width of the image that is checked: `--shape`, or the config's `crop_size`, where one number is both.

    Raises:
        ValueError: if `crop_size` is something else.
    """
    shape = args.shape or cfg.get('crop_size') or DEFAULT_SHAPE
    if isinstance(shape, int):
        shape = (shape, shape)
    pair = isinstance(shape, (list, tuple)) and len(shape) == 2
    if not pair or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            f'crop_size of {args.config} must be (height, width) or one number, positive, got {shape!r}; or give '
            '--shape H W'
        )
    return tuple(shape)


def tell(step: str) -> None:
    """A line for a step that takes a while."""
    print(f'{step} ...', flush=True)


def export(args: argparse.Namespace) -> None:
    """Load, write, check, and give the file its name."""
    require_packages(args.format, check=args.check)
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    shape = image_shape(args, cfg)
    tell(f'loading {args.checkpoint}')
    segmentor = MODELS.build(cfg.model)
    load_checkpoint(segmentor, args.checkpoint, map_location='cpu')
    network = ExportNetwork(
        segmentor,
        tasks=args.tasks,
        outputs=args.outputs,
        preprocessing=args.preprocessing,
        channel_order=args.channel_order,
    )
    if segmentor.test_cfg.mode != 'whole':
        print(
            "test_cfg.mode is 'slide', but the file passes images as a whole: give it windows to slide yourself"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix='.export-') as folder:
        written = Path(folder, args.out.name)
        begin = time.perf_counter()
        fixed = None if args.dynamic else (1, *shape)
        write_file(network, written, form=args.format, shape=fixed, opset=args.opset, tell=tell)
        print(f'done in {time.perf_counter() - begin:.0f} s', flush=True)
        if args.check:
            sizes = check_sizes(shape, args.dynamic)
            text = ', '.join(f'{b} x {h} x {w}' for b, h, w in sizes)
            tell(f'checking on random images ({text})')
            advice = f'. {FIX_THE_SIZE}' if args.dynamic else ''
            try:
                found = largest_differences(written, args.format, network, segmentor, sizes)
            except (ExportError, ValueError) as error:
                raise ExportError(f'{error}; nothing was written{advice}') from error
            for task, difference in found.items():
                print(f'  {task}: differs by at most {difference.largest:.2e}, of {difference.scale:.2e}')
            if bad := [task for task, difference in found.items() if not difference.within(args.tolerance)]:
                raise ExportError(
                    f'{", ".join(bad)}: the file differs from the model by more than {args.tolerance:g} (--tolerance) of the '
                    f'largest logit; nothing was written{advice}'
                )
        for path in Path(folder).iterdir():  # the weights of large models lie in a second file
            path.replace(args.out.parent / path.name)
    print(f'written: {args.out}, tasks {", ".join(spec.name for spec in network.specs)}')


def main() -> None:
    args = parse_args()
    try:
        export(args)
    except (ExportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise SystemExit(f'export.py: {error}') from error


if __name__ == '__main__':
    main()
