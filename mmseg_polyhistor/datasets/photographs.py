"""What the file of a photograph says about itself, where its labels or its colours would suffer from it in silence."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from .labels import SampleError

__all__ = ['FileHead', 'check_photograph', 'deep_grey', 'read_head']

EXIF_ORIENTATION = 0x0112  # 1: as it is stored; 2 to 8: the other turns and mirror images
QUARTER_TURNS = range(5, 9)
DEEP_MODES = ('I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')  # grey of 16 or 32 bits

REMEDY = (
    'Or load the labels with LoadMultiTaskAnnotations(check_photographs=False), if they are known to fit the image as '
    'LoadImageFromFile gives it'
)


@dataclass(frozen=True)
class FileHead:
    """The head of an image file.

    Attributes:
        mode: Pillow's name for its kind of pixels.
        shape: (height, width) as it is stored.
        orientation: Its EXIF orientation, 1 to 8; 1 where it has none or another number.
    """

    mode: str
    shape: tuple[int, int]
    orientation: int

    @property
    def turned(self) -> bool:
        """Whether a reader that minds the orientation turns or mirrors the image."""
        return self.orientation != 1


def read_head(path: str) -> FileHead | None:
    """The head of an image file, without its pixels; None for what Pillow cannot open (another format, or a path of a
    file backend)."""
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
            return FileHead(image.mode, image.size[::-1], orientation if orientation in range(1, 9) else 1)
    except OSError:
        return None


def check_photograph(path: str) -> None:
    """Refuse a photograph that does not show what its labels were drawn on.

    `LoadImageFromFile` turns and mirrors a photograph by its EXIF orientation. Whether its labels were drawn on the
    turned photograph or on the stored one, only the size can tell, and that only after a quarter turn of an image that is
    not square; a half turn or a mirror image would train on labels in the wrong place. And Pillow cuts grey values of 16
    bits off at 255, which leaves white.

    Raises:
        SampleError: naming the file, what was found, and what to do.
    """
    head = read_head(path)
    if head is None:
        return
    if head.turned and not (head.orientation in QUARTER_TURNS and head.shape[0] != head.shape[1]):
        raise SampleError(
            f'{path}: found a photograph of {head.shape[0]} x {head.shape[1]} pixels (height x width) with the EXIF '
            f'orientation {head.orientation}, by which it is turned or mirrored when it is loaded; the size of its labels '
            'does not tell whether they were drawn on the turned photograph. Store it upright, without the orientation. '
            f'{REMEDY}: as it is turned, or as it is stored with color_type="color_ignore_orientation"'
        )
    if problem := deep_grey(path, head):
        raise SampleError(f'{problem}. Convert it. {REMEDY}: imdecode_backend="cv2" divides 16 bits by 256')


def deep_grey(path: str, head: FileHead) -> str:
    """What is wrong with a file of grey values that Pillow cuts off, without a full stop; empty for any other file."""
    if head.mode not in DEEP_MODES:
        return ''
    return (
        f'{path}: found a photograph of mode {head.mode}, grey values of more than 8 bits, which Pillow cuts off at 255; '
        'expected 8 bits per channel'
    )
