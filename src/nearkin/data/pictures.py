"""The one reader of picture files: pixels as every viewer shows them, in bounded memory.

Only the formats of FORMATS are tried, whatever a file's name says, and only regular files are
opened. Pictures of more than WHOLE pixels are reduced while they are decoded; a Model's
preprocess.json may have another number.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from nearkin.data import heic
from nearkin.files import IrregularFile, open_regular

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "AVIF")
ENDINGS = {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm"}
ENDINGS |= {".ppm", ".tif", ".tiff", ".webp"}
HEIC = {".heic", ".heif", ".hif"}
"""Phones' own format, which takes the package pi-heif: `pip install 'nearkin[heic]'`."""
WHOLE = 50_000_000
"""Pixels up to which a picture is decoded as it is; a larger one, which is to be shrunk, is reduced
on the way by a power of two, to no less than twice the short side that is asked for."""
LARGEST = 400_000_000
"""Pixels beyond which a picture is refused."""
BYTES = 1_200_000_000
"""The most that the decoded pixels of one picture may take."""
LARGEST_HEIC = 150_000_000
"""Pixels beyond which a HEIC picture is refused: it is decoded whole, in a process of its own."""
BAND = 1_000_000  # pixels of a large picture that are converted at a time
PASSING = {errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EAGAIN, errno.ESTALE}
PASSING |= {errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.EINTR, errno.ENODEV, errno.EBUSY}
"""What the system says of a file that tells nothing about the picture in it."""

ORIENTATION = 0x0112  # EXIF's tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each orientation but 1 (upright) asks a viewer to do."""
LIMIT, LARGE = threading.Lock(), threading.Lock()


class BadPicture(ValueError):
    """A file that is missing, empty, truncated, too large or no picture; the message names it."""


class UnreadableFile(OSError):
    """A file that the system does not give now, whatever is in it; the message names it."""


def readable_endings() -> set[str]:
    """The endings of files that are taken for pictures here, with what optional packages read."""
    return ENDINGS | (HEIC if heic.can_read() else set())


def read(
    path: Path,
    channels: int = 3,
    short_side: int = 0,
    above: int = WHOLE,
    spare: int = 0,
    file: BinaryIO | None = None,
) -> np.ndarray:
    """The picture of a file as (H, W, C) uint8, by `decoded`.

    file: what holds its bytes, where it is no file of its own; `path` then names it.

    Raises:
        BadPicture: the file is missing, empty, truncated, too large, or no picture.
        UnreadableFile: the system refuses to read it, which may pass.
    """
    try:
        with file or open_regular(path) as source, opened(source, path) as image:
            if image.width * image.height > LARGEST:
                raise BadPicture(f"{path}: too large, {image.width:,} x {image.height:,} pixels")
            if image.width * image.height <= WHOLE:
                return decoded(image, channels, short_side, above, spare)
            with LARGE:  # one at a time: its memory is that of all others together
                return decoded(image, channels, short_side, above, spare)
    except BadPicture as error:
        raise BadPicture(str(error)) from None
    except UnidentifiedImageError:
        raise BadPicture(f"{path}: {'not a picture' if file else what_else(path)}") from None
    except IrregularFile as error:
        raise BadPicture(f"{path}: {error.strerror}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise BadPicture(f"{path}: missing") from None
    except TooManyPixels as error:
        raise BadPicture(f"{path}: too large, {error}") from None
    except UnknownRange as error:
        raise BadPicture(f"{path}: {error}") from None
    except Exception as error:  # a decoder raises what the bytes happen to lead to
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in PASSING:
            reason = getattr(error, "strerror", None) or "out of memory"
            raise UnreadableFile(getattr(error, "errno", None), reason, str(path)) from None
        if isinstance(error, OSError) and error.errno:
            raise BadPicture(f"{path}: cannot be read ({error.strerror})") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadPicture(f"{path}: truncated or damaged ({reason})") from None


def what_else(path: Path) -> str:
    """What a file is that is no picture, where its first bytes tell."""
    with open_regular(path) as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the picture: `git lfs pull` fetches it"
    return "not a picture" if head else "empty"


class UnknownRange(ValueError):
    """Pixels of which nobody knows what white is."""


class TooManyPixels(ValueError):
    """A picture whose decoded pixels would take more memory than is allowed."""


@contextmanager
def opened(file: BinaryIO, path: Path) -> Iterator[Image.Image]:
    """The picture in an open file, its header read; none of PIL's other formats is tried."""
    head = file.read(64)
    file.seek(0)
    if heic.is_heic(head):
        yield phones(file.read(BYTES), path)
        return
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    with LIMIT:  # PIL's own limit, a value of the process: ours is LARGEST
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=known)
        finally:
            Image.MAX_IMAGE_PIXELS = kept
    with image:
        yield image


def phones(content: bytes, path: Path) -> Image.Image:
    """The picture in a HEIC file, upright and without what else such files hold."""
    if not heic.can_read():
        raise BadPicture(f"{path}: a HEIC picture, which takes pip install 'nearkin[heic]'")
    try:
        mode, size, pixels = heic.decoded(content, LARGEST_HEIC)
    except heic.Wrong as error:
        why = f"too large, {error}" if error.large else f"truncated or damaged ({error})"
        raise BadPicture(f"{path}: {why}") from None
    return Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1)


def decoded(
    image: Image.Image,
    channels: int = 3,
    short_side: int = 0,
    above: int = WHOLE,
    spare: int = 0,
) -> np.ndarray:
    """A picture as (H, W, C) uint8, in colour (3 channels) or grey (1), as viewers show it.

    It is turned as its EXIF orientation says. Grey, palette and CMYK become what is asked for;
    16-bit is scaled to 8, and so are floats in 0..1; what is transparent lies on white. A short
    side longer than `short_side` is shrunk to it, as torchvision's Resize does; 0 keeps the size.

    Args:
        above, spare: a picture of more than `above` pixels is reduced by a power of two while it is
            decoded, its short side to no less than twice `spare`, or twice `short_side` where that
            is 0.
    """
    mode = "RGB" if channels == 3 else "L"
    if not min(image.size):
        raise ValueError(f"wanted a picture, got one of {image.width} x {image.height} pixels")
    factor, whole = reduction(image, spare or short_side, above), image.width
    if factor > 1:  # a JPEG's decoder reduces by up to 8 itself
        least = min(factor, 8)
        image.draft(None, (-(-image.width // least), -(-image.height // least)))
    factor = round(factor * image.width / whole)
    refuse_too_many(image, mode if factor == 1 else "L")
    mend_transparency(image)
    image.load()  # which turns a TIFF
    turn = turn_of(image)
    image = reduced(image, mode, factor) if factor > 1 else flat(image).convert(mode)
    if turn is not None:
        image = image.transpose(turn)
    short = min(image.size)
    if 0 < short_side < short:
        shrunk = [int(short_side * side / short) for side in image.size]
        image = image.resize((shrunk[0], shrunk[1]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def reduction(image: Image.Image, spare: int, above: int = WHOLE) -> int:
    """By how much a picture of more than `above` pixels is reduced before it is shrunk.

    >>> [reduction(Image.new("1", size), 256) for size in ((4000, 3000), (16000, 12000))]
    [1, 16]
    """
    if not spare or image.width * image.height <= above:
        return 1
    return 2 ** max(0, (min(image.size) // (2 * spare)).bit_length() - 1)


def reduced(image: Image.Image, mode: str, factor: int) -> Image.Image:
    """The picture in this mode, each factor x factor pixels made one, a band of rows at a time."""
    width, height = image.size
    small = Image.new(mode, (-(-width // factor), -(-height // factor)))
    rows = max(1, BAND // width // factor) * factor
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        small.paste(flat(band).convert(mode).reduce(factor), (0, top // factor))
    return small


def refuse_too_many(image: Image.Image, mode: str) -> None:
    """The pixels of a picture must fit into memory, as PIL holds them, and those of this mode that
    are made of them."""
    sizes = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
    size = max(sizes.get(each, 4) for each in (image.mode, mode))
    if image.width * image.height * size > BYTES:
        raise TooManyPixels(f"{image.width:,} x {image.height:,} pixels of mode {image.mode}")


def mend_transparency(image: Image.Image) -> None:
    """The transparent colour of a PNG of 2, 4 or 3 x 16 bits in the 8 bits that PIL makes of it."""
    clear, stored = image.info.get("transparency"), getattr(image, "tile", None)
    kind = stored[0][3] if stored else None
    if isinstance(clear, int) and kind in ("L;2", "L;4"):
        image.info["transparency"] = clear * (85 if kind == "L;2" else 17)
    elif isinstance(clear, tuple) and kind == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What the picture's EXIF orientation asks for; None where it is upright, or EXIF is broken."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # PIL's parser raises what the broken bytes happen to lead to
        return None


def flat(image: Image.Image) -> Image.Image:
    """The picture in 8 bits and without transparency, still of its own mode otherwise."""
    if image.mode.startswith("I"):  # 16 bits, which PIL would clip at 255
        deep = np.asarray(image).astype(np.int64)
        if not ((deep >= 0) & (deep <= 65535)).all():
            raise UnknownRange("pixels are integers outside 0..65535, of unknown range")
        clear = image.info.get("transparency")
        if isinstance(clear, int):  # one value of grey is transparent
            deep[deep == clear] = 65535
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        shares = np.asarray(image)
        if not ((shares >= 0) & (shares <= 1)).all():
            raise UnknownRange("pixels are floats outside 0..1, of unknown range")
        return Image.fromarray((shares * 255).round().astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer)
    return image
