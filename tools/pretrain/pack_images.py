"""Pack labelled images into the one .npz file of small JPEGs that tools/pretrain trains on.

TRAIN and VAL are folders with a folder of images per class; a class's images may lie deeper. Where the images of VAL lie in one
folder, as in Tiny ImageNet, --val-labels names a file whose lines begin with an image's name and its class. Both splits must have
the same classes. An image is turned as its EXIF says, cut to its largest centred square, resized (bicubic, antialiased), and
encoded anew. Nothing is left out: the first image that cannot be read ends the work with its name.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
import mmengine
import numpy as np
from PIL import Image, ImageOps

from mmseg_polyhistor.engine import AtomicLocalBackend

SUFFIXES = ('.jpeg', '.jpg', '.png')
Labelled = Sequence[tuple[Path, str]]

EXAMPLES = """examples:
  python tools/pretrain/pack_images.py data/pretrain/tinyimagenet32_jpeg.npz --train tiny-imagenet-200/train \\
      --val tiny-imagenet-200/val/images --val-labels tiny-imagenet-200/val/val_annotations.txt
  python tools/pretrain/pack_images.py data/pretrain/birds.npz --train birds/train --val birds/val --size 64
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='the .npz file to write')
    parser.add_argument('--train', required=True, type=Path, help='folder of the training images')
    parser.add_argument('--val', required=True, type=Path, help='folder of the validation images')
    parser.add_argument(
        '--val-labels', type=Path, help='file with a line per validation image: name, class, anything'
    )
    parser.add_argument('--size', type=int, default=32, help='side of the images in pixels (default: 32)')
    parser.add_argument(
        '--quality', type=int, default=95, help='quality of the JPEGs, 1 to 100 (default: 95)'
    )
    args = parser.parse_args(arguments)
    if args.out.suffix != '.npz':
        parser.error(f'{args.out}: the suffix must be .npz')
    if args.size < 1 or not 1 <= args.quality <= 100:
        parser.error('--size must be at least 1, and --quality between 1 and 100')
    return args


def by_folder(folder: Path) -> Labelled:
    """Images below the folders of the classes, in the order of their paths.

    Raises:
        FileNotFoundError: if there is no such folder, or a class has no image.
    """
    classes = sorted(path for path in _listed(folder) if path.is_dir())
    if not classes:
        raise FileNotFoundError(
            f'{folder} has no folders, which would be the classes; --val-labels is for images of one folder'
        )
    found = []
    for path in classes:
        images = sorted(image for image in path.rglob('*') if image.suffix.lower() in SUFFIXES)
        if not images:
            raise FileNotFoundError(f'{path} holds no image ({", ".join(SUFFIXES)})')
        found += [(image, path.name) for image in images]
    return found


def by_file(folder: Path, labels: Path) -> Labelled:
    """The images of one folder, in the order of a file of labels.

    Raises:
        FileNotFoundError: if the folder, the file, or an image that it names does not exist.
        ValueError: if a line has no class, an image is named twice, or one of the folder is not named.
    """
    present = {image.name for image in _listed(folder) if image.suffix.lower() in SUFFIXES}
    found: dict[Path, str] = {}
    for number, line in enumerate(labels.read_text(encoding='utf-8').splitlines(), start=1):
        if not line.strip():
            continue
        name, label, *_ = [*line.split(), '']
        where = f'{labels}, line {number}'
        if not label:
            raise ValueError(f'{where}: {line!r} is not a name and a class')
        if folder / name in found:
            raise ValueError(f'{where}: {name} stands there twice')
        if name not in present:
            raise FileNotFoundError(f'{where}: {folder / name} does not exist')
        found[folder / name] = label
    if unnamed := sorted(present - {path.name for path in found}):
        raise ValueError(
            f'{labels} does not name {len(unnamed)} images of {folder}, the first is {unnamed[0]}'
        )
    return list(found.items())


def _listed(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f'the folder {folder} does not exist')
    return folder.iterdir()


def encode(path: Path, size: int, quality: int) -> bytes:
    """A JPEG of the image's centre.

    Raises:
        ValueError: if the file cannot be decoded.
    """
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert('RGB')
        ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC).save(buffer, 'JPEG', quality=quality)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # what Pillow raises
        raise ValueError(f'{path} cannot be decoded: {e}') from e
    return buffer.getvalue()


def pack(splits: Mapping[str, Labelled], size: int, quality: int) -> dict[str, np.ndarray]:
    """The arrays that `read_arrays` describes; a progress bar on stderr.

    Raises:
        ValueError: if the splits have not the same classes, or an image cannot be decoded.
    """
    train, val = ({label for _, label in splits[name]} for name in ('train', 'val'))
    if alone := sorted(train ^ val):
        raise ValueError(
            f'the splits must have the same classes; {len(alone)} are in one of them alone, such as {alone[0]!r} in '
            f'{"train" if alone[0] in train else "val"}'
        )
    images = [(path, label, split) for split, labelled in splits.items() for path, label in labelled]
    files = [
        encode(path, size, quality) for path, _, _ in mmengine.track_iter_progress(images, file=sys.stderr)
    ]
    print(file=sys.stderr)  # the bar ends without a line break
    return dict(
        jpeg=np.frombuffer(b''.join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=np.array([label for _, label, _ in images]),
        split=np.array([split for _, _, split in images]),
    )


def main(arguments: list[str] | None = None) -> int:
    """Read, pack, write; returns the exit status."""
    args = parse_args(arguments)
    try:
        splits = dict(
            train=by_folder(args.train),
            val=by_file(args.val, args.val_labels) if args.val_labels else by_folder(args.val),
        )
        arrays = pack(splits, args.size, args.quality)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        AtomicLocalBackend().put(buffer.getvalue(), args.out)
    except (OSError, ValueError) as error:
        raise SystemExit(f'pack_images.py: {error}') from error
    counts = ', '.join(f'{len(labelled)} {name}' for name, labelled in splits.items())
    print(f'{args.out}: {counts} images of {len(set(arrays["labels"]))} classes, {buffer.tell():,} bytes')
    return 0


if __name__ == '__main__':
    sys.exit(main())
