"""Data are told by what they are: the same items have one fingerprint wherever they lie, and no
others have it."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearkin.data import Split, Splits, load
from nearkin.data.fingerprint import fingerprint, of_file, state_of
from nearkin.data.photographs import Photographs, digests_of
from nearkin.data.sets.catalogue import state

NAMES = tuple("abcdef")


@pytest.fixture(autouse=True)
def cache_beside_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path / "caches"))


def split(inputs, classes=("a", "b"), names=NAMES) -> Split:
    return Split(inputs, torch.tensor([0, 0, 0, 1, 1, 1]), classes, names)


def of_inputs(inputs) -> Splits:
    test = split(inputs, ("c", "d"))
    return Splits("mine", split(inputs), test, test)


def photographs(seed: int = 0, width: int = 5) -> Photographs:
    """Six photographs of 4 x `width` and 3 x 6."""
    heights, widths = torch.tensor([4, 3] * 3), torch.tensor([width, 6] * 3)
    lengths = heights * widths * 3
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (int(lengths.sum()),), dtype=torch.uint8, generator=random)
    return Photographs(pixels, lengths.cumsum(0) - lengths, heights, widths, 3)


INPUTS = {
    "vectors": torch.arange(12.0).view(6, 2),
    "pictures": torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2),
    "photographs": photographs(),
    "half precision": torch.arange(12.0, dtype=torch.bfloat16).view(6, 2),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_every_part_of_every_split_counts(kind):
    splits = of_inputs(INPUTS[kind])
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    variants = {
        "as it is": splits,
        "searched apart": replace(splits, gallery=replace(splits.query)),
    }
    variants["shared"] = replace(splits, shared_classes=True)
    variants["mixed"] = replace(splits, mixed_classes=True)
    for part in ("train", "query"):
        own = getattr(splits, part)
        others = {
            "labels": replace(own, labels=own.labels.flip(0)),
            "classes": replace(own, classes=own.classes[::-1]),
            "names": replace(own, names=own.names[::-1]),
            "order": replace(own.select(order), names=own.names),
            "fewer": own.select(order[:5]),
        }
        for name, other in others.items():
            both = {"query": other, "gallery": other} if part == "query" else {"train": other}
            variants[f"{part} {name}"] = replace(splits, **both)
    found = {name: fingerprint(s) for name, s in variants.items()}
    assert len(set(found.values())) == len(found)
    assert (
        fingerprint(replace(splits, name="other", variant="of another folder")) == found["as it is"]
    )


def test_type_and_shape_count():
    pictures = INPUTS["pictures"]
    forms = [
        pictures,
        pictures.view(6, 4, 1, 1),
        pictures.view(torch.int8),
        pictures.float(),
        torch.zeros(6, 0),
        torch.zeros(6, 0, 4),
    ]
    assert len({fingerprint(of_inputs(form)) for form in forms}) == len(forms)


def test_photographs_are_told_by_each_pixel_and_by_their_shape():
    base = photographs()
    twin = replace(base, digests=digests_of(base))
    assert fingerprint(of_inputs(base)) == fingerprint(of_inputs(twin))
    spoilt = replace(base, pixels=base.pixels.clone())
    spoilt.pixels[-1] ^= 1
    turned = replace(base, heights=base.widths, widths=base.heights)
    found = [fingerprint(of_inputs(p)) for p in (base, spoilt, turned)]
    assert len(set(found)) == 3
    moved = torch.cat([torch.zeros(7, dtype=torch.uint8), base.pixels])
    assert fingerprint(of_inputs(replace(base, pixels=moved, starts=base.starts + 7))) == found[0]


def draw(folder: Path, seed: int, ending: str = "png", sides=(6, 200)) -> None:
    """Noise in four class folders, of two sizes."""
    random = np.random.default_rng(seed)
    for kind in "abcd":
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i, side in enumerate(sides):
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.{ending}")


def test_a_folder_that_moves_keeps_its_fingerprint(tmp_path):
    draw(tmp_path / "one", 1)
    draw(tmp_path / "two", 2)
    first = fingerprint(load(f"folder:{tmp_path}/one"))
    shutil.move(tmp_path / "one", tmp_path / "elsewhere")
    assert fingerprint(load(f"folder:{tmp_path}/elsewhere")) == first
    assert fingerprint(load(f"folder:{tmp_path}/two")) != first


def test_digests_are_made_once_and_made_again_where_they_are_not_whole(tmp_path):
    draw(tmp_path / "set", 1)
    whole = load(f"folder:{tmp_path}/set")
    (path,) = tmp_path.glob("caches/*/digests.u1")
    made = path.read_bytes()
    pictures = whole.train.inputs
    assert isinstance(pictures, Photographs)
    assert pictures.digests is not None
    assert torch.equal(pictures.digests, digests_of(pictures))
    path.write_bytes(made[:20])
    assert fingerprint(load(f"folder:{tmp_path}/set")) == fingerprint(whole)
    assert path.read_bytes() == made
    times = path.stat().st_mtime_ns
    load(f"folder:{tmp_path}/set")
    assert path.stat().st_mtime_ns == times


def test_a_picture_of_the_same_length_and_time_is_decoded_again(tmp_path):
    """As two archives unpack, whose files have one length and one date."""
    draw(tmp_path / "set", 1, "bmp")
    for path in tmp_path.glob("set/*/*.bmp"):
        os.utime(path, ns=(0, 10**9))
    first = fingerprint(load(f"folder:{tmp_path}/set"))
    draw(tmp_path / "set", 2, "bmp")
    for path in tmp_path.glob("set/*/*.bmp"):
        os.utime(path, ns=(0, 10**9))
    assert fingerprint(load(f"folder:{tmp_path}/set")) != first


def test_a_file_is_told_by_its_content_alone(tmp_path):
    for name, content in (("a.pt", b"x"), ("b.pt", b"x"), ("c.pt", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (of_file(tmp_path / f"{name}.pt") for name in "abc")
    assert a == b != c
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert of_file(tmp_path / "copy") != a


@pytest.fixture
def later(monkeypatch):
    """A clock that runs an hour ahead: whatever was written is of long ago."""
    now = time.time_ns
    monkeypatch.setattr("nearkin.data.fingerprint.time.time_ns", lambda: now() + 3600 * 10**9)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "a" / "x.png").write_bytes(b"z"),
        lambda f: (f / "a" / "y.png").write_bytes(b"x"),
        lambda f: (f / "a" / "x.png").unlink(),
        lambda f: (f / "a" / "x.png").rename(f / "a" / "w.png"),
        lambda f: (f / "b").mkdir(),
        lambda f: os.utime(f / "a" / "x.png", ns=(0, 5)),
    ],
)
def test_the_state_of_files_tells_every_change(tmp_path, later, change):
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x.png").write_bytes(b"x")
    before = state_of([tmp_path / "set"])
    assert state_of([tmp_path / "set"]) == before is not None
    change(tmp_path / "set")
    assert state_of([tmp_path / "set"]) != before


def test_a_fresh_file_has_no_state_that_could_be_trusted(tmp_path):
    """Two writes within a tick of the file system's clock leave one time."""
    (tmp_path / "x.npz").write_bytes(b"x")
    assert state_of([tmp_path / "x.npz"]) is None


def test_links_in_a_circle_end(tmp_path, later):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "nothing").symlink_to(tmp_path / "nowhere")
    assert state_of([tmp_path])


def test_sets_whose_files_are_not_all_known_have_no_state(tmp_path, later):
    assert state("cub", tmp_path) is None
    assert state("mnist-5k", None) is not None
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    before = state("mnist", tmp_path)
    (raw / "train-images-idx3-ubyte").write_bytes(b"")
    assert state("mnist", tmp_path) != before
