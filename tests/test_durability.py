"""Claim: what a command has said to be done is there after a power cut, and at no moment is there a
row without its files.

Everywhere on a model of a disk: file names reach it in their order, as in the journal of ext4 or
XFS, by the first fsync of anything; what is in a file reaches it by an fsync of that file alone.
Where an image of ext4 may be mounted, on that too: the image is copied while it is in use, as a
power cut would leave it.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nearkin as nk
from nearkin import leases
from nearkin.app.main import main
from nearkin.models import make
from nearkin.models.preprocess import Preprocessing
from nearkin.runs.engine import Place, run
from nearkin.runs.recipe import Recipe
from nearkin.runs.store import Store
from test_shards import encoded, picture

CPU = Place(device="cpu", threads=1, save_seconds=0.0)


class Disk:
    """What of a folder is on the disk: names and contents as of the fsyncs that were called."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.contents: dict[int, bytes] = {}
        self.cuts: list[dict[Path, bytes]] = []

    def fsync(self, number: int) -> None:
        """Take down an fsync; `cuts` grows by what a power cut would now leave."""
        status = os.fstat(number)
        names = {
            path.relative_to(self.folder): path.stat().st_ino
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        known = {inode: path for path, inode in names.items()}
        if status.st_ino in known:
            self.contents[status.st_ino] = (self.folder / known[status.st_ino]).read_bytes()
        self.cuts.append({path: self.contents.get(inode, b"") for path, inode in names.items()})

    def after_a_cut(self, at: int, folder: Path) -> Path:
        """A folder with what is left by a power cut after the fsync of this number."""
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in self.cuts[at].items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        return folder


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The disk below `in use`."""
    found = Disk(tmp_path / "in use")
    found.folder.mkdir()
    monkeypatch.setattr(os, "fsync", found.fsync)
    return found


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    y = np.repeat(np.arange(8), 6)
    x = np.random.default_rng(0).normal(size=(8, 5))[y] + 0.1 * np.arange(48)[:, None]
    np.savez(tmp_path / "points.npz", x=x, y=y)
    settings: dict[str, Any] = {
        "backbone": "linear",
        "loss": "triplet",
        "batch": 12,
        "per_class": 3,
    }
    return Recipe(data=f"features:{tmp_path / 'points.npz'}", dim=3, epochs=2, **settings)


def files_below(folder: Path) -> dict[str, bytes]:
    """All files but TensorBoard's, which nothing is read from, and leases, which a cut ends."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
        if not path.name.startswith("lease.")
    }


def test_a_run_that_is_done_is_on_the_disk(disk, recipe, tmp_path):
    run(recipe, disk.folder / "out", place=CPU)
    left = files_below(disk.after_a_cut(-1, tmp_path / "left"))
    assert left == files_below(disk.folder)
    assert any(name.endswith("steps.csv") for name in left)
    assert not any("checkpoint" in name for name in left)


def test_wherever_a_run_is_cut_a_row_has_its_files_and_the_run_goes_on(
    disk, recipe, tmp_path, monkeypatch
):
    done, place = run(recipe, disk.folder / "out", place=CPU), disk.folder / "out"
    whole = files_below(place / done.row.files.folder)
    stored = []
    for at in range(len(disk.cuts)):
        out = disk.after_a_cut(at, tmp_path / "left") / "out"
        rows = Store(out).stored() if out.exists() else {}
        stored.append(bool(rows))
        for row in (done.row for _ in rows):
            found = files_below(out / row.files.folder)
            assert {name: found.get(name) for name in whole} == whole, at
    assert stored[0] is False
    assert stored[-1] is True
    assert stored == sorted(stored)  # once there, it stays
    middle = stored.index(True) // 2  # has a checkpoint, or half of what a run leaves
    out = disk.after_a_cut(middle, tmp_path / "left") / "out"
    monkeypatch.setattr(leases, "process_is_gone", lambda _: True)  # the machine starts anew
    again = run(recipe, out, place=CPU)
    assert again.row.metrics == done.row.metrics
    assert files_below(again.folder)["model.safetensors"] == whole["model.safetensors"]


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Four classes of four pictures, and an index is made without its ONNX form."""
    monkeypatch.setattr(nk.Index, "write_light", lambda index: False)  # it takes seconds
    for kind in range(4):
        (tmp_path / "photos" / f"class {kind}").mkdir(parents=True)
        for i in range(4):
            path = tmp_path / "photos" / f"class {kind}" / f"{i}.png"
            path.write_bytes(encoded(picture(4 * kind + i)))
    return tmp_path / "photos"


def all_commands(recipe: Recipe, photos: Path, folder: Path) -> None:
    """A run, embeddings, a page and an index in a folder."""
    torch.manual_seed(0)
    net: Any = make("network", {"filters": "4", "units": "8"}, (3, 24, 24), 4)
    nk.Model(net, Preprocessing(24, 24, 3, 0, 0.0, net.mean, net.std)).save(folder / "model")
    run(recipe, folder / "out", place=CPU)
    main(["embed", "--data", recipe.data, "--backbone=identity", f"--output={folder}/x.npz"])
    main(["report", str(folder / "out")])
    main(["index", str(folder / "model"), str(photos), f"--output={folder}/index"])


def is_all_there(used: Path, left: Path) -> None:
    """What is left is what was in use."""
    before, found = files_below(used), files_below(left)
    assert [name for name in before if found.get(name) != before[name]] == []
    assert not any("checkpoint" in name for name in found)
    assert {"x.npz", "index/items.arrow", "out/rows.jsonl", "out/report/runs.html"} <= set(found)
    assert len(nk.Index(left / "index")) == 16


def test_what_commands_have_done_is_on_the_disk(disk, recipe, photos, tmp_path):
    all_commands(recipe, photos, disk.folder)
    is_all_there(disk.folder, disk.after_a_cut(-1, tmp_path / "left"))


def mounted(image: Path, at: Path) -> bool:
    """Whether the image of a file system is mounted here, and its journal is kept in memory."""
    at.mkdir()
    words = ["mount", "-o", "loop,commit=600", str(image), str(at)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture
def ext4(tmp_path, real_fsync, monkeypatch):
    """A folder on ext4, and what copies its image as a power cut would leave it and mounts that."""
    monkeypatch.setattr(os, "fsync", real_fsync)
    image, copy, used, left = (tmp_path / name for name in ("image", "copy", "used", "left"))
    if not shutil.which("mkfs.ext4"):
        pytest.skip("wants mkfs.ext4; the model of a disk takes its place")
    with open(image, "wb") as file:
        file.truncate(2**26)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    if not mounted(image, used):
        pytest.skip("mounting is refused here; the model of a disk takes its place")

    def cut() -> Path:
        shutil.copyfile(image, copy)
        assert mounted(copy, left)
        return left

    yield used, cut
    for path in (used, left):
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def test_nothing_that_was_said_to_be_done_is_lost_by_a_power_cut(ext4, recipe, photos):
    used, cut = ext4
    all_commands(recipe, photos, used)
    is_all_there(used, cut())
