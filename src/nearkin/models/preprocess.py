"""The preprocessing of a Model: from a picture of any kind to the pixels that its backbone takes.

Dimensions: B batch, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nearkin.data import pictures
from nearkin.data.crops import centre_boxes
from nearkin.data.items import Items
from nearkin.data.photographs import Photographs, stored_side
from nearkin.data.transforms import PHOTOGRAPH_SIDE, Inputs, Pictures

AT_ONCE = 8  # pictures are decoded at a time: files and their decoders wait for each other
CENTRE = 0.875  # of the short side, 224 of 256: what batches take of photographs


@dataclass(frozen=True)
class Preprocessing:
    """Decode, shrink, crop, resize and normalise: the same pixels as in training, for one picture.

    1. decode: turned by EXIF orientation, transparent parts on white, 16 bits scaled to 8, in
       colour (3 channels) or grey (1)
    2. reduce: a picture of more pixels than `above` is reduced by a power of two while it is
       decoded, its short side to no less than twice what the next steps take of it
    3. shrink: a short side above `short_side` is shrunk to it (Pillow, bilinear)
    4. crop: the square in the centre whose side is `crop` of the short side; 0: the whole picture
    5. resize: to height x width (torch, bilinear with antialiasing, rounded to whole numbers)
    6. invert: black and white are exchanged where `inverted`
    7. normalise: (pixel / 255 - mean) / std

    Arrays and tensors are taken as data sets hold them: already decoded, never inverted.
    """

    height: int
    width: int
    channels: int = 3
    short_side: int = 256
    crop: float = CENTRE
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    inverted: bool = False
    above: int = pictures.WHOLE

    def prepare(self, picture: Any) -> Tensor:
        """One picture (a path, a PIL image, an array or a tensor) as (C, H, W) uint8."""
        if isinstance(picture, str | Path):
            return self.shown(self.fitted(pictures.read(path_of(picture), *self.reading)))
        if isinstance(picture, Image.Image):
            return self.shown(self.fitted(decoded(picture, *self.reading)))
        if isinstance(picture, Tensor):
            picture = picture.detach().cpu()
            array = (picture.movedim(0, -1) if picture.ndim == 3 else picture).numpy()
        else:
            array = np.asarray(picture)
        return self.fitted(decoded(as_image(array), *self.reading))

    @property
    def reading(self) -> tuple[int, int, int, int]:
        """What `nearkin.data.pictures` is asked for: channels, short_side, above and spare."""
        return self.channels, self.short_side, self.above, self.spare

    @property
    def spare(self) -> int:
        """The short side of which a picture that is reduced keeps twice as much at least."""
        return self.short_side or ceil(max(self.height, self.width) / (self.crop or 1))

    def shown(self, pixels: Tensor) -> Tensor:
        """The pixels of a file as the data set that was trained on has them."""
        return 255 - pixels if self.inverted else pixels

    def fitted(self, array: np.ndarray) -> Tensor:
        """A decoded picture (h, w, C), cropped and resized: (C, H, W) uint8."""
        array = array if array.flags.writeable else array.copy()
        return self.resized(torch.from_numpy(array).permute(2, 0, 1))

    def resized(self, picture: Tensor) -> Tensor:
        """A decoded picture (C, h, w), cropped and resized: (C, H, W) uint8."""
        height, width = picture.shape[1:]
        if self.crop:
            sides = torch.tensor([height]), torch.tensor([width])
            top, left, height, width = centre_boxes(*sides, share=self.crop)[0].tolist()
            height, width = max(height, 1), max(width, 1)
            picture = picture[:, top : top + height, left : left + width]
        if (height, width) == (self.height, self.width):
            return picture
        size = (self.height, self.width)
        return F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0]

    def chosen(self, inputs: Pictures, indices: Tensor) -> Tensor:
        """The pictures of a split at these indices: (B, C, H, W) uint8."""
        some = inputs[indices]
        if isinstance(some, Photographs):
            whole = torch.zeros(len(some), 4, dtype=torch.int64)
            whole[:, 2], whole[:, 3] = some.heights, some.widths
            fit = self.resized if some.channels == self.channels else self.prepare
            return torch.stack(mapped(fit, some.cuts(whole)))
        if not self.crop and some.shape[1:] == (self.channels, self.height, self.width):
            return some
        return torch.stack(mapped(self.prepare, list(some)))

    def to_json(self) -> dict:
        """The preprocessing as plain data, each step by name: preprocess.json."""
        return {
            "decode": {
                "orientation": "exif",
                "transparent": "white",
                "16 bit": "scaled",
                "channels": self.channels,
            },
            "reduce": {"above": self.above, "spare": self.spare, "by": "powers of 2"},
            "shrink": {"short_side": self.short_side, "by": "pillow bilinear"},
            "crop": {"centre": self.crop},
            "resize": {
                "height": self.height,
                "width": self.width,
                "by": "torch bilinear antialias uint8",
            },
            "invert": self.inverted,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def identity(self) -> dict:
        """The preprocessing as a Model's identity has it: a step that says what has always been
        done, as `reduce` does by its default number, changes none."""
        steps = self.to_json()
        if self.above == pictures.WHOLE:
            del steps["reduce"]
        return steps

    @classmethod
    def from_json(cls, found: Any) -> Preprocessing:
        """What `to_json` wrote; the step `reduce`, by its default number, may be left out.

        Raises:
            ValueError: a step is missing, of another kind, or unknown to this version.
        """
        try:
            made = cls(
                found["resize"]["height"],
                found["resize"]["width"],
                found["decode"]["channels"],
                found["shrink"]["short_side"],
                found["crop"]["centre"],
                tuple(map(float, found["mean"])),
                tuple(map(float, found["std"])),
                found["invert"],
                found["reduce"]["above"] if "reduce" in found else pictures.WHOLE,
            )
            whole = made.to_json() if "reduce" in found else made.identity()
            sound = whole == found and made.sound()
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ValueError("the preprocessing is not one that this version of Nearkin knows")
        return made

    def sound(self) -> bool:
        """Whether each number is one that pictures can be prepared with."""
        sides = (self.height, self.width, self.short_side)
        return (
            all(isinstance(side, int) and 0 <= side < 2**16 for side in sides)
            and min(self.height, self.width) > 0
            and self.channels in (1, 3)
            and 0 <= self.crop <= 1
            and len(self.mean) in (1, 3)
            and len(self.std) in (1, 3)
            and all(deviation > 0 for deviation in self.std)
            and isinstance(self.inverted, bool)
            and isinstance(self.above, int)
            and 0 < self.above <= pictures.WHOLE  # so that one golden picture lies above it
        )


def mapped(prepare: Callable[[Any], Tensor], items: Sequence[Any]) -> list[Tensor]:
    """prepare of each item, several at a time where there are several."""
    at_once = min(AT_ONCE, len(items), torch.get_num_threads())
    if at_once < 2:
        return [prepare(item) for item in items]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(prepare, items))


def preprocessing_of(
    inputs: Inputs, size: int, mean: Any, std: Any, inverted: bool = False
) -> Preprocessing | None:
    """What batches of these inputs go through outside training (`transforms.batch`), for new
    pictures; None of numbers, which are taken as they are.

    Args:
        inputs: of a split.
        size: the side that batches are asked for; 0: small pictures as they are, photographs 128.
    """
    taken = {"mean": tuple(mean), "std": tuple(std), "inverted": inverted}
    if isinstance(inputs, Photographs):
        return photographs_at(size or PHOTOGRAPH_SIDE, channels=inputs.channels, **taken)
    if isinstance(inputs, Items) or inputs.is_floating_point():
        return None
    channels, *sides = inputs.shape[1:]
    height, width = (size, size) if size else sides
    crop = 0.0 if [height, width] == sides else 1.0
    return Preprocessing(height, width, channels, 0, crop, **taken)


def photographs_at(side: int, **options: Any) -> Preprocessing:
    """The preprocessing of photographs for a backbone that takes this side in pixels."""
    return Preprocessing(side, side, short_side=stored_side(side), **options)


def path_of(path: str | Path) -> Path:
    """The path, with ~ as the home folder; a folder is refused."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path}: wanted a picture file, got a folder")
    return path


def decoded(image: Image.Image, *reading: int) -> np.ndarray:
    """A PIL image as `pictures.read` gives a file's; what cannot be decoded is a ValueError."""
    try:
        return pictures.decoded(image, *reading)
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"a picture is truncated or damaged ({error})") from None


def as_image(array: np.ndarray) -> Image.Image:
    """A picture (H, W) or (H, W, 1, 3 or 4) of whole numbers in 0..255, or floats in 0..1.

    uint16 is 16-bit, True is white.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            f"wanted a picture (H, W) or (H, W, 1, 3 or 4); as a tensor with the channels first; "
            f"got {array.shape}"
        )
    return Image.fromarray(eight_bits(array))


def eight_bits(array: np.ndarray) -> np.ndarray:
    """The numbers of a picture as uint8; other ranges than 0..255 and 0..1 are refused."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.int64) + 128) // 257).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"wanted pictures of numbers, got {array.dtype}")
    most = 1 if array.dtype.kind == "f" else 255
    if not (array.min() >= 0 and array.max() <= most):
        wanted = "floats in 0..1 (not normalised)" if most == 1 else "whole numbers in 0..255"
        raise ValueError(
            f"wanted a picture of {wanted}, got {array.dtype} in {array.min()}..{array.max()}"
        )
    return np.rint(array * np.float64(255 / most)).astype(np.uint8)
