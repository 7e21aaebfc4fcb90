"""Pictures as arrays of bytes, with the pixels that every viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


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


class BadPicture(ValueError):
    """A file that is missing, empty, truncated or no picture; the message names it."""


def read(path: Path, channels: int = 3, short_side: int = 0) -> np.ndarray:
    """The picture of a file as (H, W, C) uint8, by `decoded`.

    Raises:
        BadPicture: the file is missing, empty, truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return decoded(image, channels, short_side)
    except FileNotFoundError:
        raise BadPicture(f"{path}: missing") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise BadPicture(f"{path}: {'empty' if empty else 'not a picture'}") from None
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        raise BadPicture(f"{path}: truncated or damaged ({error})") from None


def decoded(image: Image.Image, channels: int = 3, short_side: int = 0) -> np.ndarray:
    """A picture as (H, W, C) uint8, in colour (3 channels) or grey (1), as viewers show it.

    It is turned as its EXIF orientation says. Grey, palette and CMYK become what is asked for;
    16-bit is scaled to 8; what is transparent lies on white. A short side longer than `short_side`
    is shrunk to it, as torchvision's Resize does; 0 keeps the size.
    """
    image = flat(upright(image)).convert("RGB" if channels == 3 else "L")
    short = min(image.size)
    if 0 < short_side < short:
        shrunk = [int(short_side * side / short) for side in image.size]
        image = image.resize((shrunk[0], shrunk[1]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; as it is where its EXIF data are broken."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # PIL's parser raises what the broken bytes happen to lead to
        return image
    return image if turn is None else image.transpose(turn)


def flat(image: Image.Image) -> Image.Image:
    """The picture in 8 bits and without transparency, still of its own mode otherwise."""
    if image.mode.startswith("I"):  # 16 bits, which PIL would clip at 255
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are floats, of unknown range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer)
    return image
