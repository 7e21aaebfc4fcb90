"""Claim: whatever kind of picture a file holds, it is read as what one sees, or refused by name."""

import base64
import errno
import io
import os
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from nearkin.data import pictures
from nearkin.data.pictures import BadPicture, UnreadableFile, read, readable_endings

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


def test_floats_are_shares_of_white_or_refused(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(GRADIENT.astype(np.float32) / 255))
    assert np.array_equal(read(path, 1)[..., 0], GRADIENT)
    path = saved(tmp_path / "a.tif", Image.fromarray(GRADIENT.astype(np.float32)))
    with pytest.raises(BadPicture, match=r"floats outside 0\.\.1"):
        read(path)


def test_a_transparent_value_of_sixteen_bits_lies_on_white(tmp_path):
    deep = np.array([[257, 514], [257, 771]], np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(deep), transparency=257)
    assert read(path, 1)[..., 0].tolist() == [[255, 2], [255, 3]]


def png(width: int, depth: int, colour: int, row: bytes, clear: bytes) -> bytes:
    """A PNG of one row, of which a colour is transparent."""

    def part(kind: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"\0" + row)
    parts = (b"IHDR", head), (b"tRNS", clear), (b"IDAT", pixels), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(part(*each) for each in parts)


@pytest.mark.parametrize(
    ("width", "depth", "colour", "row", "clear", "seen"),
    [
        (4, 2, 0, b"\x1b", struct.pack(">H", 1), [0, 255, 170, 255]),
        (2, 4, 0, b"\x3a", struct.pack(">H", 3), [255, 170]),
        (8, 1, 0, b"\xaa", struct.pack(">H", 0), [255] * 8),
        (2, 8, 0, b"\x03\x04", struct.pack(">H", 3), [255, 4]),
        (
            2,
            16,
            2,
            struct.pack(">6H", *[514] * 3, *[771] * 3),
            struct.pack(">3H", *[514] * 3),
            [255, 3],
        ),
        (1, 16, 2, struct.pack(">3H", *[771] * 3), struct.pack(">3H", *[65535] * 3), [3]),
    ],
)
def test_a_transparent_colour_of_any_depth_lies_on_white(
    tmp_path, width, depth, colour, row, clear, seen
):
    (tmp_path / "a.png").write_bytes(png(width, depth, colour, row, clear))
    assert read(tmp_path / "a.png", 1)[0, :, 0].tolist() == seen


@pytest.mark.parametrize("ending", ["avif", "jfif", "jpe", "webp", "bmp", "ppm", "gif"])
def test_formats_that_people_have(tmp_path, ending):
    kind = {"jfif": "JPEG", "jpe": "JPEG", "ppm": "PPM"}.get(ending, ending.upper())
    image = Image.fromarray(COLOUR)
    path = saved(tmp_path / f"a.{ending}", image, format=kind)
    assert f".{ending}" in readable_endings()
    assert np.abs(read(path).astype(int) - COLOUR).mean() < 25
    turned = tmp_path / f"b.{ending}"
    shutil.copy(path, turned.with_suffix(".png"))  # its content counts, not its name
    assert np.array_equal(read(turned.with_suffix(".png")), read(path))


HEIC_PICTURE = (  # 16 x 24 pixels: red above, purple to the left
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAb1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA"
    "AAAAADRpbG9jAAAAAERAAAIAAQAAAAAB4QABAAAAAAAAAEIAAgAAAAACIwABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVp"
    "bmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVo"
    "dmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAA"
    "AwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAA"
    "AABAAAAAQAAAAChjbGFwAAAAEAAAAAEAAAAYAAAAAf///9AAAAAC////2AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEA"
    "AAAAAAAAAQABBYECAwWEAAAAGmlyZWYAAAAAAAAADmNkc2MAAgABAAEAAABubWRhdAAAAD4oAa9SF6s88pLyLKJ2bWV8/JCB"
    "UBhhwKXZjXb8SpxL+2hi3rIi8uUYjfBplbkDW1lAFskoZXdRhDCzFlQfEAAAAAZFeGlmAABNTQAqAAAACAABARIAAwAAAAEA"
    "BgAAAAAAAA=="
)


def test_a_phones_heic_is_read_by_an_optional_package(tmp_path, monkeypatch):
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(base64.b64decode(HEIC_PICTURE))
    assert ".heic" in readable_endings()
    pixels = read(path)
    assert pixels.shape == (24, 16, 3)
    assert pixels[2, 12, 0] > 200 > 60 > pixels[20, 12, 0]
    path.write_bytes(base64.b64decode(HEIC_PICTURE)[:300])
    with pytest.raises(BadPicture, match="IMG_0001"):
        read(path)
    path.write_bytes(base64.b64decode(HEIC_PICTURE))
    named_otherwise = path.rename(tmp_path / "IMG_0001.jpg")  # as many phones send it
    assert read(named_otherwise).shape == (24, 16, 3)
    monkeypatch.setattr(pictures.heic, "can_read", lambda: False)
    assert not pictures.HEIC & readable_endings()
    with pytest.raises(BadPicture, match="a HEIC picture, which takes pip install"):
        read(named_otherwise)


CRASHING = "import os, sys; sys.stdin.buffer.read(16); os.abort()"
SILENT = "import time; time.sleep(60)"
SHORT = "import sys; sys.stdout.buffer.write(b'x'); sys.stdout.flush()"


@pytest.mark.parametrize("program", [CRASHING, SILENT, SHORT])
def test_a_decoder_that_crashes_or_hangs_spoils_one_picture_alone(tmp_path, monkeypatch, program):
    path = tmp_path / "x.heic"
    path.write_bytes(base64.b64decode(HEIC_PICTURE))
    read(path)
    pictures.heic.end_all()
    monkeypatch.setattr(pictures.heic, "SECONDS", 1)
    (tmp_path / "decoder.py").write_text(program)
    with monkeypatch.context() as patched:
        patched.setattr(pictures.heic, "__file__", str(tmp_path / "decoder.py"))
        with pytest.raises(BadPicture, match=r"x.heic: truncated or damaged \(its decoder crashed"):
            read(path)
    assert not pictures.heic.IDLE
    monkeypatch.undo()
    assert read(path).shape == (24, 16, 3)


def test_a_heic_picture_beyond_the_limit_is_too_large(tmp_path, monkeypatch):
    path = tmp_path / "x.heic"
    path.write_bytes(base64.b64decode(HEIC_PICTURE))
    monkeypatch.setattr(pictures, "LARGEST_HEIC", 100)
    with pytest.raises(BadPicture, match=r"x.heic: too large, 16 x 24 pixels"):
        read(path)


def test_decoders_end_with_the_process_that_started_them(tmp_path):
    path = tmp_path / "x.heic"
    path.write_bytes(base64.b64decode(HEIC_PICTURE))
    program = (
        "import os, signal, sys, threading; from pathlib import Path;"
        "from nearkin.data import heic, pictures; pictures.read(Path(sys.argv[1]));"
        "print(heic.IDLE[0][1].pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    call = [sys.executable, "-c", program, str(path)]
    child = int(subprocess.run(call, capture_output=True, text=True).stdout)
    for _ in range(100):
        if not Path(f"/proc/{child}/cmdline").exists():
            break
        if not Path(f"/proc/{child}/cmdline").read_bytes():  # ended, and not yet taken note of
            break
        time.sleep(0.05)
    else:
        pytest.fail("the decoder is still there")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("size", [(700, 500), (501, 703)])
def test_a_large_picture_is_reduced_on_the_way_and_looks_the_same(
    tmp_path, monkeypatch, mode, size
):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    smooth = Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8))
    image = smooth.quantize(64) if mode == "P" else smooth.convert(mode) if mode != "I;16" else None
    image = image or Image.fromarray(257 * np.asarray(smooth.convert("L"), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    ending = "tif" if mode == "CMYK" else "png"
    path = saved(tmp_path / f"a.{ending}", image, **({} if ending == "tif" else {"exif": exif}))
    jpeg = saved(tmp_path / "a.jpg", smooth, quality=95, exif=exif)
    for file, channels in ((path, 3), (path, 1), (jpeg, 3)):
        whole = read(file, channels, 32)
        with monkeypatch.context() as patch:
            patch.setattr(pictures, "BAND", 9_000)
            small = read(file, channels, 32, above=100_000)
        assert small.shape == whole.shape
        assert np.abs(small.astype(int) - whole).mean() < (30 if mode == "1" else 3)


def test_what_is_too_large_is_said_to_be_and_nobody_warns(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("1", (20_000, 20_001)))
    with pytest.raises(BadPicture, match=r"a\.png: too large, 20,000 x 20,001 pixels"):
        read(path, 3, 64)
    monkeypatch.setattr(pictures, "BYTES", 1000)
    path = saved(tmp_path / "b.png", Image.fromarray(COLOUR))
    with pytest.raises(BadPicture, match=r"b\.png: too large, 32 x 24 pixels of mode RGB"):
        read(path)
    grey = saved(tmp_path / "c.png", Image.fromarray(GRADIENT))
    with pytest.raises(BadPicture, match=r"c\.png: too large, 32 x 24 pixels of mode L"):
        read(grey)  # 4 bytes a pixel in colour
    assert read(grey, 1).shape == (24, 32, 1)
    assert Image.MAX_IMAGE_PIXELS  # PIL's own limit stands for others


def test_formats_that_run_programs_are_not_tried(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n{} loop\n%%EOF\n"
    )
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(BadPicture, match=r"a\.png: not a picture"):
        read(path)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "absent")
    (tmp_path / "round.png").symlink_to("round.png")
    for name in ("pipe", "folder", "device", "nowhere", "round"):
        said = rf"{name}\.png: (wanted a file|missing|cannot be read \(.*levels)"
        with pytest.raises(BadPicture, match=said):
            read(tmp_path / f"{name}.png")
    with pytest.raises(BadPicture, match="missing"):
        read(tmp_path / "pipe.png" / "x.png")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM, errno.EACCES])
def test_an_error_of_the_system_is_no_bad_picture(tmp_path, monkeypatch, number):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    for place in ("PIL.Image.open", "os.open"):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(UnreadableFile, match=os.strerror(number)) as caught:
                read(path)
        assert caught.value.filename == str(path)
    assert read(path).shape == (24, 32, 3)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_picture_with_changed_bytes_is_read_or_named(tmp_path_factory, data):
    """Whatever bytes are changed, cut or added, the one error is a BadPicture in one line."""
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF"]))
    held = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(COLOUR).save(held, kind, **({"exif": exif} if kind != "PPM" else {}))
    content = bytearray(held.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = (
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    path = tmp_path_factory.getbasetemp() / "changed.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's own, of odd metadata
        try:
            found = str(read(path, 3, 16).shape)
        except BadPicture as error:
            found = str(error)
    assert "\n" not in found


@pytest.mark.parametrize("values", [[0, 70_000], [-1, 5], [0.0, 255.0], [0.0, float("nan")]])
def test_pixels_of_unknown_range_are_no_damage(tmp_path, values):
    kind = np.float32 if isinstance(values[0], float) else np.int32
    Image.fromarray(np.full((4, 4), values[0], kind) + np.eye(4, dtype=kind) * values[1]).save(
        tmp_path / "a.tif"
    )
    with pytest.raises(BadPicture, match=r"a\.tif: pixels are .* outside .*, of unknown range$"):
        read(tmp_path / "a.tif")


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BadPicture, match=r"a pointer of Git LFS.*git lfs pull"):
        read(tmp_path / "a.jpg")
