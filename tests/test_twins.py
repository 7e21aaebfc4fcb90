"""Claim: `data check` names items that stand twice: in a class, in two, or in two splits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nearkin as nk
from nearkin.app.main import main
from nearkin.data import twins
from nearkin.data.twins import alike, digests, equal, miniatures


def picture(seed: int, side: int = 64) -> Image.Image:
    """A drawing of large patches, each of a colour of its own."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((side + side // 3, side), Image.Resampling.BILINEAR)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Four classes of five pictures of their own, in photos/."""
    monkeypatch.chdir(tmp_path)
    for kind in range(4):
        Path(f"photos/{'abcd'[kind]}").mkdir(parents=True)
        for i in range(5):
            picture(10 * kind + i).save(f"photos/{'abcd'[kind]}/{i}.png")
    return Path("photos")


def told(capsys, *words: str) -> list[str]:
    main(["data", "check", *words])
    return capsys.readouterr().out.splitlines()


def test_a_set_without_copies_has_none(photos, capsys):
    lines = told(capsys, str(photos))
    assert lines[0] == "photos: sound"
    assert "  ok  duplicates, equal: none" in lines
    assert "  ok  duplicates, nearly alike: none" in lines
    assert not [line for line in lines if line.startswith("  SEE")]


def test_copies_are_named_with_their_classes_and_splits(photos, capsys):
    (photos / "a/copy.png").write_bytes((photos / "a/0.png").read_bytes())
    (photos / "d/wrong.png").write_bytes((photos / "a/1.png").read_bytes())
    picture(11).save(photos / "b/again.jpg", quality=70)
    picture(22).resize((120, 90)).save(photos / "c/smaller.png")
    lines = told(capsys, str(photos))
    assert lines[0] == "photos: sound"  # a person is to look; nothing forbids to go on
    see = [line.removeprefix("  SEE ") for line in lines if line.startswith("  SEE ")]
    found = {line.partition(":")[0]: line for line in see}
    assert "2 pairs" in found["duplicates, equal"]
    assert "2 pairs" in found["duplicates, nearly alike"]
    assert "1 pair, such as a/1.png (a) and d/wrong.png (d)" in found["of two classes, equal"]
    assert "1 pair" in found["leaks between training and test, equal"]
    assert len(found) == 4


def test_a_table_s_splits_leak(photos, capsys):
    names = sorted(photos.rglob("*.png"))
    lines = [
        f"{name},{name.parent.name},{'train' if i % 5 < 3 else 'test'}"
        for i, name in enumerate(names)
    ]
    twin = photos / "a/twin.png"
    twin.write_bytes((photos / "a/0.png").read_bytes())
    Path("images.csv").write_text("\n".join(["path,class,split", *lines, f"{twin},a,test"]))
    (leak,) = [line for line in told(capsys, "images.csv") if "leaks" in line]
    assert "leaks between training and test, equal: 1 pair" in leak
    assert "a/0.png (a) and photos/a/twin.png (a)" in leak


def test_rows_of_features_too(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    x[33] = x[2]
    np.savez(tmp_path / "x.npz", x=x, y=np.repeat(np.arange(10), 4))
    lines = told(capsys, str(tmp_path / "x.npz"))
    assert any("duplicates, equal: 1 pair" in line for line in lines)
    assert any("leaks between training and test, equal: 1 pair" in line for line in lines)
    assert not any("alike" in line for line in lines)


def test_pairs_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(twins, "BLOCK", 3)
    pictures = torch.rand(11, 3, 64, 70, generator=torch.Generator().manual_seed(0)) * 255
    pictures[7] = pictures[1] * 0.8 + 3  # darker, and otherwise the same
    pictures[9] = pictures[4]
    pictures[5] = 130.0
    pictures[6] = 130.0
    small = miniatures(pictures.to(torch.uint8)).double()
    wanted = [(a, b) for a in range(11) for b in range(a + 1, 11) if small[a] @ small[b] >= 0.985]
    assert sorted(alike(small.float())) == wanted == [(1, 7), (4, 9)]
    assert equal(digests(pictures)) == [(5, 6), (4, 9)]


def test_small_drawings_are_compared_to_the_pixel_alone():
    splits = nk.load("mnist-5k")
    found = twins.twins(splits)
    assert found.alike is None
    assert found.equal == []


def test_above_a_number_of_pictures_only_equal_ones_are_looked_for(photos, capsys, monkeypatch):
    monkeypatch.setattr(twins, "MOST", 10)
    lines = told(capsys, str(photos))
    assert "  ok  pictures nearly alike: not looked for among more than 10" in lines
