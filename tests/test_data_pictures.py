"""Claim: whatever kind of picture a file holds, it is read as what one sees, or refused by name."""

import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from nearkin.data.pictures import BadPicture, read

GRADIENT = np.add.outer(np.arange(24) * 4, np.arange(32) * 5).clip(0, 255).astype(np.uint8)
COLOUR = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]], 2)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_picture(tmp_path, channels):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))
    wanted = np.asarray(Image.fromarray(COLOUR).convert("L" if channels == 1 else "RGB"))
    assert np.array_equal(read(path, channels), wanted.reshape(24, 32, channels))


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [("a.png", "L", 0), ("a.png", "P", 12), ("a.jpg", "CMYK", 12), ("a.tif", "CMYK", 2)],
)
def test_grey_palette_and_cmyk(tmp_path, name, mode, tolerance):
    image = Image.fromarray(GRADIENT if mode == "L" else COLOUR)
    if mode == "P":
        image = image.quantize(256)
    options = {"quality": 98, "subsampling": 0} if name.endswith("jpg") else {}
    path = saved(tmp_path / name, image.convert(mode) if mode == "CMYK" else image, **options)
    wanted = np.asarray(Image.fromarray(GRADIENT if mode == "L" else COLOUR).convert("RGB"))
    assert read(path).shape == (24, 32, 3)
    assert np.abs(read(path).astype(int) - wanted).max() <= tolerance


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_viewers_turn_it(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "jpg": {"exif": exif, "quality": 100, "subsampling": 0},
        "png": {"exif": exif},
        "webp": {"exif": exif, "lossless": True},
        "tif": {"tiffinfo": {274: orientation}},
    }[ending]
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(COLOUR), **options)
    with Image.open(path) as image:
        image.load()
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert shown.shape == ((24, 32, 3) if orientation < 5 else (32, 24, 3))
    assert np.array_equal(read(path), shown)


def test_broken_exif_data_leave_a_picture_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "said of it"
    whole = exif.tobytes()
    for cut in range(8, len(whole)):
        path = saved(tmp_path / "a.jpg", Image.fromarray(COLOUR), exif=whole[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's, of what is cut off
            assert sorted(read(path).shape) == [3, 24, 32]


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    deep = GRADIENT.astype(np.uint16) * 257
    deep[::2] -= np.minimum(deep[::2], 128)  # to the nearest of 256
    deep[1::2] += np.minimum(65535 - deep[1::2], 128)
    path = saved(tmp_path / "a.png", Image.fromarray(deep))
    assert np.array_equal(read(path, 1)[..., 0], GRADIENT)
    assert np.array_equal(read(path, 3), np.stack([GRADIENT] * 3, 2))
    bright = np.array([[65000, 65407, 65408, 65535]], np.uint16)
    path = saved(tmp_path / "b.png", Image.fromarray(bright))
    assert read(path, 1)[..., 0].tolist() == [[253, 255, 255, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path, mode):
    layer = np.dstack([COLOUR, np.full((24, 32), 255, np.uint8)])
    layer[:12, :, 3] = 0
    image = Image.fromarray(layer)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    pixels = read(saved(tmp_path / "a.png", image))
    assert (pixels[:12] == 255).all()
    assert (pixels[12:] != 255).any()


def test_one_bit(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GRADIENT > 99))
    assert np.array_equal(read(path, 1)[..., 0], np.where(GRADIENT > 99, 255, 0))


@pytest.mark.parametrize("side", [20, 24, 100])
def test_the_short_side_is_that_of_torchvision(tmp_path, side):
    import torchvision.transforms.functional as F

    for turned in (Image.fromarray(COLOUR), Image.fromarray(COLOUR.transpose(1, 0, 2))):
        path = saved(tmp_path / "a.png", turned)
        wanted = F.resize(turned, [side]) if side < 24 else turned  # type: ignore[arg-type]
        assert np.array_equal(read(path, 3, side), np.asarray(wanted))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "missing"),
        (lambda data: b"", "empty"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:10], "not a picture|truncated"),
        (lambda data: b"GET / HTTP/1.1 404", "not a picture"),
    ],
)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_bad_file_is_named(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        path.write_bytes(content(saved(path, Image.fromarray(noise)).read_bytes()))
    with pytest.raises(BadPicture, match=said) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_png_is_named(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))
    data = path.read_bytes()
    path.write_bytes(data[:60] + b"\0" * 40 + data[100:])
    with pytest.raises(BadPicture, match=r"a\.png: truncated or damaged"):
        read(path)


def test_a_picture_of_floats_is_refused(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(GRADIENT.astype(np.float32)))
    with pytest.raises(BadPicture, match="floats"):
        read(path)
