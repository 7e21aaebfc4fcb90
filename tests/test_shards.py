"""Parts of an embedding are those of one process, to the last bit, whoever did which."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nearkin as nk
from nearkin.app.main import main
from nearkin.runs.shards import bounds, folder_of

CLASSES, EACH = 6, 30


def picture(number: int, side: int = 0) -> Image.Image:
    """A picture of its own size, or of this side."""
    random = np.random.default_rng(number)
    height, width = (side, side) if side else (110 + number % 7, 120 + number % 5)
    return Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes, **changes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in changes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """The same pictures in folders, in a table, and in two tar archives; and small ones."""
    root = tmp_path_factory.mktemp("sources")
    os.environ.pop("NEARKIN_CACHE", None)
    lines = ["path,class"]
    with tarfile.open(root / "1.tar", "w") as one, tarfile.open(root / "2.tar", "w") as two:
        for number in range(CLASSES * EACH):
            kind, content = f"class{number // EACH}", encoded(picture(number))
            path = root / "folders" / kind / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            lines.append(f"folders/{kind}/{number:04}.png,{kind}")
            archive = one if number < 70 else two
            add(archive, f"{number:04}.png", content)
            if number % 2:
                add(archive, f"{number:04}.cls", kind.encode())
            else:
                add(archive, f"{number:04}.json", json.dumps({"label": kind}).encode())
            small = root / "small" / kind / f"{number:04}.png"
            small.parent.mkdir(parents=True, exist_ok=True)
            picture(number, side=12).save(small)
    (root / "all.csv").write_text("\n".join(lines))
    (root / "tars").mkdir()
    for name in ("1.tar", "2.tar"):
        (root / name).rename(root / "tars" / name)
    return {
        "folder": str(root / "folders"),
        "csv": f"csv:{root / 'all.csv'}",
        "tars": f"tars:{root / 'tars'}",
        "small": str(root / "small"),
    }


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path_factory.mktemp("cache")))


def words(data: str, output: Path, *more: str) -> list[str]:
    size = [] if "small" in data else ["--size", "32"]
    found = ["embed", "--data", data, "--backbone", "network", *size, "--output", str(output)]
    return [*found, "--threads", "1", *more]


@pytest.mark.parametrize("kind", ["folder", "csv", "tars", "small"])
def test_the_parts_joined_are_the_file_of_one_process(kind, sources, tmp_path, capsys, monkeypatch):
    whole, joined = tmp_path / "whole.npz", tmp_path / "joined.npz"
    main(words(sources[kind], whole))
    for shard in (2, 0, 1):
        assert not joined.exists()
        monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path / f"machine{shard}"))
        main(words(sources[kind], joined, "--shards", "3", "--shard", str(shard)))
    assert joined.read_bytes() == whole.read_bytes()
    receipt = json.loads((tmp_path / "joined.npz.receipt.json").read_text())
    assert (receipt["items"], receipt["each_item_once"]) == (CLASSES * EACH, True)
    assert receipt["model"] == json.loads(str(np.load(whole)["made_by"]))["identity"]
    assert receipt["threads"] == [1]
    spans = [(part["start"], part["stop"]) for part in receipt["shards"]]
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    decoded = [
        sum(path.stat().st_size for path in (tmp_path / f"machine{i}").rglob("sizes.i4")) // 8
        for i in range(3)
    ]
    if kind != "small":
        assert sum(decoded) == CLASSES * EACH  # each picture by one machine alone


def test_a_part_is_begun_anew_where_it_failed_or_its_pictures_changed(sources, tmp_path):
    folder, output = tmp_path / "photos", tmp_path / "x.npz"
    shutil.copytree(sources["folder"], folder)
    main(words(str(folder), output, "--shards", "3"))
    before = {i: folder_of(output, i, 3).joinpath("part.npz").stat().st_mtime_ns for i in range(3)}
    output.unlink()
    folder_of(output, 1, 3).joinpath("part.npz").write_bytes(b"cut off")
    picture(999).save(next(folder.rglob("*.png")))  # of the first part
    main(words(str(folder), output, "--shards", "3"))
    after = {i: folder_of(output, i, 3).joinpath("part.npz").stat().st_mtime_ns for i in range(3)}
    assert [i for i in range(3) if after[i] != before[i]] == [0, 1]
    whole = tmp_path / "whole.npz"
    main(words(str(folder), whole))
    assert whole.read_bytes() == output.read_bytes()


def test_parts_of_another_model_are_refused(sources, tmp_path, capsys):
    output = tmp_path / "x.npz"
    main(words(sources["small"], output, "--shards", "2", "--shard", "0"))
    with pytest.raises(SystemExit):
        main([*words(sources["small"], output, "--shards", "2", "--shard", "1"), "--size", "20"])
    assert "parts are of other data, or of another Model" in capsys.readouterr().err
    assert not output.exists()


def test_more_parts_than_batches_leave_some_empty(sources, tmp_path):
    for kind in ("small", "folder"):
        whole, joined = tmp_path / f"{kind}.npz", tmp_path / f"{kind}-joined.npz"
        main(words(sources[kind], whole))
        main(words(sources[kind], joined, "--shards", "9", "--shard", "0"))
        main(words(sources[kind], joined, "--shards", "9"))
        assert joined.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("lengths", [[64], [65, 1], [1, 1, 1], [200, 63, 130]])
def test_every_item_is_in_one_part_and_no_batch_in_two(lengths):
    for shards in (1, 2, 3, 7, 50):
        spans = [bounds(lengths, shard, shards) for shard in range(shards)]
        assert spans[0][0] == 0
        assert spans[-1][1] == sum(lengths)
        assert all(a[1] == b[0] for a, b in pairwise(spans))
        ends, first = set(), 0
        for length in lengths:
            ends |= {first + i for i in range(0, length, 64)} | {first + length}
            first += length
        assert {x for span in spans for x in span} <= ends


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shards", "2", "--shard", "2"], "wanted a shard of 0 to 1, got 2"),
        (["--shards", "-1"], "wanted 1 to 100,000 shards, got -1"),
        (["--shard", "1"], "--shard goes with --shards"),
        (["--on", "ray"], "--on goes with --shards"),
        (["--shards", "2", "--skip-bad"], "--skip-bad does not go with --shards"),
        (["--shards", "2", "--on", "rai"], "did you mean 'ray'"),
    ],
)
def test_what_does_not_go_together_is_one_line(more, message, sources, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(words(sources["small"], tmp_path / "x.npz", *more))
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_two_processes_share_the_parts(sources, tmp_path):
    whole, joined = tmp_path / "whole.npz", tmp_path / "joined.npz"
    main(words(sources["small"], whole))
    here = words(sources["small"], joined, "--shards", "3")
    there = subprocess.Popen(
        [sys.executable, "-m", "nearkin", *here], stderr=subprocess.PIPE, text=True
    )
    main(here)
    _, error = there.communicate(timeout=200)
    assert there.returncode == 0, error
    assert joined.read_bytes() == whole.read_bytes()


# ---- tar archives


def tar(path: Path, *members: tuple, **changes) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            add(archive, name, content, **changes)
    return f"tars:{path}"


PIXELS = encoded(picture(1))


def test_classes_of_an_archive_are_texts_or_folders(tmp_path):
    name = tar(
        tmp_path / "a.tar",
        ("x/1.png", PIXELS),
        ("x/2.png", PIXELS),
        ("3.png", PIXELS),
        ("3.cls", b"\xef\xbb\xbf7\n"),
        ("4.JPG", PIXELS),
        ("4.json", b'{"class": 7, "width": 3}'),
        ("notes.txt", b"not a picture"),
    )
    splits = nk.load(name)
    assert splits.train.classes == ("7",)
    assert splits.query.classes == ("x",)
    assert splits.train.names == ("a.tar/3.png", "a.tar/4.JPG")
    assert nk.load(str(tmp_path / "a.tar")).query.names == ("a.tar/x/1.png", "a.tar/x/2.png")


def test_an_archive_that_changes_is_read_again(tmp_path):
    from nearkin.data.fingerprint import fingerprint

    path = tmp_path / "a.tar"
    members = [("a/1.png", PIXELS), ("b/2.png", encoded(picture(2, 120)))]
    before = fingerprint(nk.load(tar(path, *members)))
    changed = [("a/1.png", encoded(picture(3, 120))), members[1]]
    assert fingerprint(nk.load(tar(path, *changed))) != before


@pytest.mark.parametrize(
    ("members", "changes", "message"),
    [
        ([("../1.png", PIXELS)], {}, "points outside"),
        ([("/a/1.png", PIXELS)], {}, "points outside"),
        ([("a/1.png", b"")], {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link"),
        ([("a/1.png", b"")], {"type": tarfile.CHRTYPE}, "is a link, a device"),
        ([("1.png", PIXELS)], {}, "has no class"),
        ([("1.png", PIXELS), ("1.json", b"{")], {}, "not JSON"),
        ([("1.png", PIXELS), ("1.cls", b"\xff")], {}, "no text in UTF-8"),
        ([("1.png", PIXELS), ("1.json", b'{"label": 1, "label": 2}')], {}, "is given twice"),
        ([("a/1.png", PIXELS), ("a/1.png", PIXELS)], {}, "is there twice"),
        ([("a/1.txt", PIXELS)], {}, "no pictures"),
        ([("a/1.png", b"text"), ("b/2.png", PIXELS)], {}, "not a picture"),
        ([("a/1.png", b""), ("b/2.png", PIXELS)], {}, "empty"),
    ],
)
def test_what_is_wrong_with_an_archive_is_one_line(members, changes, message, tmp_path):
    name = tar(tmp_path / "a.tar", *members, **changes)
    with pytest.raises(ValueError, match=message) as error:
        nk.load(name)
    assert "\n" not in str(error.value)


def test_an_archive_that_is_cut_off_or_packed_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, ("a/1.png", PIXELS), ("b/2.png", PIXELS))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(PIXELS) - 100])
    with pytest.raises(ValueError, match="cut off"):
        nk.load(f"tars:{path}")
    path.write_bytes(whole[: 512 + 512 * -(-len(PIXELS) // 512)])  # between two members
    with pytest.raises(ValueError, match="not a whole tar archive"):
        nk.load(f"tars:{path}")
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "a/1.png", PIXELS)
    with pytest.raises(ValueError, match="not a whole tar archive without compression"):
        nk.load(f"tars:{path}")
    with pytest.raises(ValueError, match="no such file"):
        nk.load(f"tars:{tmp_path / 'nothing'}")
