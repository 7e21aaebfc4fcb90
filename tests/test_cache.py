"""Claim: every picture is decoded once, whatever stops the decoding, and read as it was decoded."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearkin.app.main import main
from nearkin.data import cache
from nearkin.data.cache import photographs
from nearkin.data.cache_folder import cache_folder, caches, claimed, clear
from nearkin.data.pictures import read

COUNT = 10


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Ten pictures of many sizes; the cache decodes three at a time."""
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path / "caches"))
    monkeypatch.setattr(cache, "CHUNK", 3)
    rng = np.random.default_rng(0)
    names = []
    for i in range(COUNT):
        pixels = rng.integers(0, 256, (5 + i, 9 + 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        names.append(f"{i}.png")
    return names


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were read, in turn."""
    seen = []

    def counted(path, *rest):
        seen.append(path.name)
        return read(path, *rest)

    monkeypatch.setattr(cache, "read", counted)
    return seen


def folder(root):
    (found,) = (path for path in (root / "caches").iterdir() if path.is_dir())
    return found


def assert_sound(root, names, **options):
    """What the cache gives is what the files hold."""
    pictures, kept = photographs("set", root, names, **options)
    assert len(pictures) == len(kept)
    boxes = torch.stack([0 * pictures.heights, 0 * pictures.heights, *sizes(pictures)], 1)
    for picture, index in zip(pictures.cuts(boxes), kept.tolist(), strict=True):
        wanted = read(root / names[index], options.get("channels", 3), options.get("short_side", 0))
        assert torch.equal(picture.permute(1, 2, 0), torch.from_numpy(wanted.copy()))
    return kept.tolist()


def sizes(pictures):
    return pictures.heights, pictures.widths


@pytest.mark.parametrize("options", [{}, {"channels": 1}, {"short_side": 8}])
def test_pictures_come_back_as_they_are(tmp_path, files, options):
    for _ in range(2):
        assert assert_sound(tmp_path, files, **options) == list(range(COUNT))


def test_each_is_decoded_once(tmp_path, files, decoded):
    for _ in range(3):
        photographs("set", tmp_path, files)
    assert decoded == files


def test_other_files_or_another_size_are_another_cache(tmp_path, files, decoded):
    photographs("set", tmp_path, files)
    photographs("set", tmp_path, files[:4])
    photographs("set", tmp_path, files, short_side=4)
    Image.new("RGB", (40, 40)).save(tmp_path / "9.png")
    photographs("set", tmp_path, files)
    assert len(decoded) == COUNT + 4 + COUNT + COUNT


def test_a_picture_replaced_by_another_of_its_length_is_decoded_again(tmp_path, files):
    path = tmp_path / "same.bmp"
    Image.new("RGB", (8, 8), "red").save(path)
    photographs("set", tmp_path, ["same.bmp"])
    before = path.stat()
    Image.new("RGB", (8, 8), "blue").save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    assert_sound(tmp_path, ["same.bmp"])


def test_views_share_their_pixels(tmp_path, files):
    pictures, _ = photographs("set", tmp_path, files)
    some = pictures[torch.tensor([7, 2])][torch.tensor([1, 0, 1])]
    assert some.heights.tolist() == [7, 12, 7]
    assert some.pixels.data_ptr() == pictures.pixels.data_ptr()


def test_pictures_of_one_size_become_one_tensor(tmp_path, files):
    pictures, _ = photographs("set", tmp_path, [files[3], files[3]])
    wanted = torch.from_numpy(read(tmp_path / files[3]).copy()).permute(2, 0, 1)
    assert torch.equal(pictures.dense(), torch.stack([wanted, wanted]))


@pytest.mark.parametrize("stop", range(1, COUNT))
def test_a_stopped_decoding_goes_on_where_it_was(tmp_path, files, decoded, monkeypatch, stop):
    def stopping(path, *rest):
        if path.name == files[stop]:
            raise KeyboardInterrupt
        return read(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "read", stopping)
        with pytest.raises(KeyboardInterrupt):
            photographs("set", tmp_path, files)
    photographs("set", tmp_path, files)
    assert decoded == files[stop // 3 * 3 :]
    assert_sound(tmp_path, files)


@pytest.mark.parametrize(
    ("pixels", "records"), [(1.0, 0.55), (0.9999, 1.0), (0.4, 1.0), (0.3, 0.77), (0, 0)]
)
def test_files_cut_anywhere_are_mended(tmp_path, files, pixels, records):
    photographs("set", tmp_path, files)
    for name, share in (("pixels.u8", pixels), ("sizes.i4", records)):
        path = folder(tmp_path) / name
        os.truncate(path, int(path.stat().st_size * share))
    for _ in range(2):
        assert_sound(tmp_path, files)


def test_a_full_disk_leaves_nothing_and_the_next_run_is_sound(tmp_path, files, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*NEARKIN_CACHE") as caught:
            photographs("set", tmp_path, files)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "caches").iterdir() if path.is_dir()]
    assert_sound(tmp_path, files)


def test_a_disk_too_full_for_a_header_leaves_nothing(tmp_path, files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left on device"):
            photographs("set", tmp_path, files)
    assert not [path for path in (tmp_path / "caches").iterdir() if path.is_dir()]
    assert_sound(tmp_path, files)


def test_an_unwritable_cache_is_said(tmp_path, files, monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path / "0.png"))
    with pytest.raises(OSError, match="cannot write the cache"):
        photographs("set", tmp_path, files)


def test_the_cache_can_lie_elsewhere(tmp_path, files, monkeypatch):
    monkeypatch.setenv("NEARKIN_CACHE", str(tmp_path / "elsewhere"))
    photographs("set", tmp_path, files)
    assert not (tmp_path / "caches").exists()
    assert list((tmp_path / "elsewhere").glob("set-*/pixels.u8"))


def test_a_cache_of_another_version_is_decoded_again(tmp_path, files):
    photographs("set", tmp_path, files)
    header = folder(tmp_path) / "header.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "version": 0}))
    (folder(tmp_path) / "pixels.u8").write_bytes(b"of another make")
    with pytest.warns(UserWarning, match="another version"):
        photographs("set", tmp_path, files)
    assert_sound(tmp_path, files)


@pytest.mark.parametrize("name", ["header.json", "pixels.u8", "sizes.i4"])
def test_a_cache_that_lost_a_file_is_decoded_again(tmp_path, files, name):
    photographs("set", tmp_path, files)
    (folder(tmp_path) / name).unlink()
    with pytest.warns(UserWarning, match="decoding again"):
        assert_sound(tmp_path, files)
    (folder(tmp_path) / "header.json").write_bytes(b"\xff\xfe")
    with pytest.warns(UserWarning, match="decoding again"):
        assert_sound(tmp_path, files)
    np.array([[-1, 4]] * len(files), "<i4").tofile(folder(tmp_path) / "sizes.i4")
    with pytest.raises(ValueError, match="is damaged: delete it"):
        photographs("set", tmp_path, files)


def test_who_may_use_the_cache_may_use_all_of_it(tmp_path, files):
    photographs("set", tmp_path, files)
    made = folder(tmp_path)
    assert made.stat().st_mode == made.parent.stat().st_mode


def test_a_bad_picture_stops_or_is_left_out_and_counted(tmp_path, files, monkeypatch):
    (tmp_path / files[4]).write_bytes(b"")
    (tmp_path / files[8]).unlink()
    with pytest.raises(ValueError, match=r"4\.png: empty"):
        photographs("set", tmp_path, files)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"bad pictures left out: 2, such as 4\.png"):
            assert assert_sound(tmp_path, files, skip_bad=True) == [0, 1, 2, 3, 5, 6, 7, 9]
    with pytest.raises(ValueError, match=r"4\.png: empty"):
        photographs("set", tmp_path, files)
    monkeypatch.setattr(cache, "read", lambda *_: None)  # as if they had been busy for a while
    with pytest.raises(ValueError, match=r"4\.png could not be read once: delete"):
        photographs("set", tmp_path, files)


def test_nothing_to_read_is_said(tmp_path, files):
    with (
        pytest.warns(UserWarning, match="left out: 1"),
        pytest.raises(ValueError, match="no pictures"),
    ):
        photographs("set", tmp_path, ["absent.png"], skip_bad=True)


PROCESS = """
import sys, time
from pathlib import Path
from nearkin.data import cache
from nearkin.data.pictures import read
root, files = Path(sys.argv[1]), sys.argv[2:]
def slow(path, *rest):
    with open(root / "log", "a") as log:
        log.write(path.name + "\\n")
    time.sleep(0.05)
    return read(path, *rest)
cache.read, cache.CHUNK = slow, 3
print(int(cache.photographs("set", root, files)[0].pixels.sum()))
"""


def test_two_processes_share_the_work_of_one(tmp_path, files):
    command = [sys.executable, "-c", PROCESS, str(tmp_path), *files]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(sums) == 1
    assert sorted((tmp_path / "log").read_text().split()) == sorted(files)
    assert_sound(tmp_path, files)


def test_by_default_the_cache_is_the_platform_s(tmp_path, files, monkeypatch, capsys):
    monkeypatch.delenv("NEARKIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "platform"))
    before = sorted(tmp_path.iterdir())
    photographs("set", tmp_path, files)
    assert cache_folder().is_relative_to(tmp_path / "platform")
    assert cache_folder().name == "nearkin"
    (made,) = caches()
    said = capsys.readouterr().err
    assert str(made.folder) in said
    assert "nearkin cache clear" in said
    photographs("set", tmp_path, files)
    assert capsys.readouterr().err == ""
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "platform"])


def test_the_command_shows_and_clears(tmp_path, files, capsys):
    photographs("set", tmp_path, files)
    photographs("other", tmp_path, files[:3])
    (tmp_path / "caches" / "mine.txt").write_text("not a cache")
    main(["cache"])
    said = capsys.readouterr().out
    assert f"{tmp_path / 'caches'}: 2 caches" in said
    assert "50.0 GB at most" in said
    assert all(any(name in line for line in said.splitlines()) for name in ("set-", "other-"))
    main(["cache", "clear"])
    assert "2 caches" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "caches").iterdir()] == ["mine.txt"]
    main(["cache"])
    assert "0 caches, 0 bytes" in capsys.readouterr().out
    assert_sound(tmp_path, files)


def test_the_caches_used_least_recently_give_way(tmp_path, files, monkeypatch):
    def long_ago(name, seconds):
        (stamp,) = (tmp_path / "caches").glob(f"{name}-*/used")
        os.utime(stamp, (seconds, seconds))

    for name in ("a", "b"):
        photographs(name, tmp_path, files)
    size = caches()[0].bytes
    monkeypatch.setenv("NEARKIN_CACHE_GB", f"{2.5 * size / 1e9:.9f}")  # room for two
    long_ago("a", 1e9)
    long_ago("b", 1.1e9)
    photographs("a", tmp_path, files)  # a use is noted
    photographs("c", tmp_path, files)
    assert [one.folder.name[0] for one in caches()] == ["a", "c"]
    monkeypatch.setenv("NEARKIN_CACHE_GB", "0")
    pictures, _ = photographs("a", tmp_path, files)  # the one in use stays, however large
    assert [one.folder.name[0] for one in caches()] == ["a"]
    assert len(pictures) == COUNT


def test_what_another_process_writes_is_not_removed(tmp_path, files):
    photographs("set", tmp_path, files)
    (made,) = caches()
    with claimed(made.folder):
        assert clear() == []
    assert clear() == [made]


@pytest.mark.parametrize("text", ["much", "-1", "nan", "1e3", "9" * 400])
def test_a_bound_that_is_no_number_is_refused(tmp_path, files, monkeypatch, text):
    monkeypatch.setenv("NEARKIN_CACHE_GB", text)
    with pytest.raises(ValueError, match="wanted NEARKIN_CACHE_GB as a number of GB"):
        photographs("set", tmp_path, files)


def test_two_folders_alike_have_caches_of_their_own(tmp_path, files, decoded):
    os.mkdir(tmp_path / "copy")
    for name in files:
        os.link(tmp_path / name, tmp_path / "copy" / name)
    photographs("set", tmp_path, files)
    photographs("set", tmp_path / "copy", files)
    assert len(decoded) == 2 * COUNT
