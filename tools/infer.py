"""Apply a trained model to your own images: all its tasks, one file per task, and an overview picture per image.

For every image, OUT gets
  <task>/<name>.png    classes as a palette PNG (its indices are the classes), probabilities as 8-bit grey (p = value / 255),
                       normals as RGB (n = 2 rgb / 255 - 1), depths as 16-bit grey (millimetres)
  overview/<name>.jpg  the image and all predictions side by side, with a legend
and classes.json says what the indices mean. An image that cannot be read is reported at the end, with exit status 1; the
others are done all the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
from mmengine.config import DictAction
from mmengine.utils import ProgressBar
from PIL import Image

from mmseg_polyhistor.apis import InputError, MultiTaskInferencer, TaskPredictions, count_images
from mmseg_polyhistor.evaluation.prediction_files import write_prediction
from mmseg_polyhistor.tasks import TaskSpec
from mmseg_polyhistor.visualization import MIN_CELL, draw_sheets

EXAMPLE = """examples:
  python tools/infer.py street.jpg configs/polyhistor_lite/swin-t_pascal.py work_dirs/polyhistor_lite/swin-t_pascal/epoch_60.pth
  python tools/infer.py photographs/ CONFIG CHECKPOINT --out results --tasks semseg saliency --batch-size 4
  python tools/infer.py 'photographs/**/*.jpg' CONFIG CHECKPOINT --device cuda:1
  python tools/infer.py walk.mp4 CONFIG CHECKPOINT --no-overview
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('input', help='an image, a folder, a pattern in quotes, or a video')
    parser.add_argument('config', help='the config that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='file or URL; full, or of AdapterCheckpointHook')
    parser.add_argument(
        '--out', type=Path, default=Path('outputs'), help='folder of the results (default: outputs)'
    )
    parser.add_argument('--tasks', nargs='+', help='only these of its tasks')
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if there is one)')
    parser.add_argument('--batch-size', type=int, default=1, help='images per pass (default: 1)')
    parser.add_argument('--no-overview', action='store_true', help='no overview pictures')
    parser.add_argument(
        '--cell-size', type=int, default=320, help='longer side of a picture in the overview (default: 320)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='changes of the config, key=value'
    )
    args = parser.parse_args(arguments)
    if args.batch_size < 1:
        parser.error(f'--batch-size must be at least 1, got {args.batch_size}')
    if args.cell_size < MIN_CELL:
        parser.error(f'--cell-size must be at least {MIN_CELL}, got {args.cell_size}')
    return args


def write(prediction: TaskPredictions, specs: tuple[TaskSpec, ...], args: argparse.Namespace) -> None:
    """Write the files of one image."""
    for spec in specs:
        data = prediction.sample.get(spec.pred_field).data.cpu().numpy()
        write_prediction(data, spec, args.out / spec.name / f'{prediction.name}.png')
    if not args.no_overview:
        image = prediction.image[..., ::-1]
        sheet = draw_sheets([image], [prediction.sample], specs, draw_gt=False, cell_size=args.cell_size)
        path = args.out / 'overview' / f'{prediction.name}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path, quality=92)


def main() -> None:
    args = parse_args()
    try:
        number = count_images(args.input)
        inferencer = MultiTaskInferencer(
            args.config, args.checkpoint, device=args.device, tasks=args.tasks, cfg_options=args.cfg_options
        )
    except (InputError, OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'infer.py: {error}') from error
    errors: list[InputError] = []
    bar = ProgressBar(number, file=sys.stderr)
    done = 0
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        classes = {spec.name: list(spec.classes) for spec in inferencer.specs if spec.classes}
        (args.out / 'classes.json').write_text(json.dumps(classes, indent=1), encoding='utf-8')
        for prediction in inferencer.iterate(args.input, batch_size=args.batch_size, on_error=errors.append):
            write(prediction, inferencer.specs, args)
            done += 1
            bar.update()
    except OSError as error:  # the folder is a file, the disk is full, ..
        raise SystemExit(f'\ninfer.py: after {done} of {number} images: {error}') from error
    print(file=sys.stderr)
    print(f'{done} images, tasks {", ".join(inferencer.tasks)}: {args.out}')
    for error in errors:
        print(f'infer.py: {error}', file=sys.stderr)
    if errors:
        raise SystemExit(
            f'infer.py: {len(errors)} of {done + len(errors)} images could not be read, see above'
        )


if __name__ == '__main__':
    main()
