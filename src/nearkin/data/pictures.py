"""One picture file -> an array of bytes, whatever kind of file it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class BadPicture(ValueError):
    """A file that is missing, empty, truncated or no picture; the message names it."""


def read(path: Path, channels: int = 3, short_side: int = 0) -> np.ndarray:
    """The picture as (H, W, C) uint8, in colour (3 channels) or grey (1).

    Grey, palette and CMYK become what is asked for; 16-bit is scaled to 8; what is transparent
    lies on white. A short side longer than `short_side` is shrunk to it, as torchvision's Resize
    does; 0 keeps the size.
    """
    try:
        with Image.open(path) as image:
            image.load()
            image = flat(image).convert("RGB" if channels == 3 else "L")
    except FileNotFoundError:
        raise BadPicture(f"{path}: missing") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise BadPicture(f"{path}: {'empty' if empty else 'not a picture'}") from None
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        raise BadPicture(f"{path}: truncated or damaged ({error})") from None
    short = min(image.size)
    if 0 < short_side < short:
        shrunk = [int(short_side * side / short) for side in image.size]
        image = image.resize((shrunk[0], shrunk[1]), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


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
