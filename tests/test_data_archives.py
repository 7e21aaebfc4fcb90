"""Claim: an archive is unpacked whole and inside its folder, or nothing of it is."""

import io
import os
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearkin.data import unpack


def make(path, members):
    """An archive of (name, bytes) members; a tar also of TarInfo ones."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members:
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            for name, content in members:
                info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_a_sound_archive_is_unpacked(tmp_path, ending):
    archive = make(tmp_path / f"a.{ending}", [("set/list.txt", b"1 a"), ("set/img/a.jpg", b"a")])
    unpack(archive, tmp_path / "data")
    assert (tmp_path / "data" / "set" / "list.txt").read_bytes() == b"1 a"
    assert (tmp_path / "data" / "set" / "img" / "a.jpg").read_bytes() == b"a"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]


@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../out.jpg", "set/../../out.jpg", "/out.jpg", "C:/out.jpg"])
def test_a_member_that_points_outside_is_refused(tmp_path, ending, name):
    archive = make(tmp_path / f"a.{ending}", [("set/list.txt", b"1 a"), (name, b"out")])
    with pytest.raises(ValueError, match=r"refused, .*out.* points outside the folder"):
        unpack(archive, tmp_path / "deep" / "data")
    assert not (tmp_path / "deep").exists()
    assert not list(tmp_path.rglob("out.jpg"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = make(tmp_path / "a.tar", [(link("set/a", "/etc/passwd", kind), b"")])
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("set/a")
    info.external_attr = 0o120777 << 16
    archive = make(tmp_path / "a.zip", [(info, "/etc/passwd")])
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(archive, tmp_path / "data")


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_a_cut_archive_leaves_nothing(tmp_path, ending):
    noise = bytes(range(256)) * 400
    archive = make(tmp_path / f"a.{ending}", [("set/a", noise), ("set/b", noise)])
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"not a (whole|zip or tar) archive"):
        unpack(archive, tmp_path / "data")
    assert not list(tmp_path.glob("data/*"))


@pytest.mark.parametrize(
    ("offsets", "value", "said"),
    [((6, 8), 1, "refused, 'set/a' is encrypted"), ((8, 10), 99, "packed in a way")],
    ids=["encrypted", "unknown packing"],
)
def test_a_zip_that_cannot_be_read_is_said(tmp_path, offsets, value, said):
    archive = make(tmp_path / "a.zip", [("set/a", b"a")])
    content = bytearray(archive.read_bytes())
    # the member's flags, or way of packing, in its own header and in that at the end
    for mark, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), offsets, strict=True):
        content[content.index(mark) + offset] = value
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        unpack(archive, tmp_path / "data")
    assert str(archive) in str(caught.value)
    assert not list(tmp_path.glob("data/*"))


def test_what_is_there_already_is_not_touched(tmp_path):
    archive = make(tmp_path / "a.zip", [("set/a", b"new")])
    (tmp_path / "data" / "set").mkdir(parents=True)
    with pytest.raises(ValueError, match="set is already there"):
        unpack(archive, tmp_path / "data")
    assert not list((tmp_path / "data" / "set").iterdir())


def test_what_is_no_archive_is_said(tmp_path):
    (tmp_path / "a.zip").write_text("404")
    with pytest.raises(ValueError, match="not a zip or tar archive"):
        unpack(tmp_path / "a.zip", tmp_path / "data")
    with pytest.raises(ValueError, match="it holds nothing"):
        unpack(make(tmp_path / "b.zip", []), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("ending", ["zip", "tgz"])
@pytest.mark.parametrize("length", [0, 3, 20, 60, 200])
def test_an_archive_that_is_cut_anywhere_is_refused(tmp_path, ending, length):
    archive = make(tmp_path / f"a.{ending}", [("set/a", bytes(range(256)) * 50)])
    archive.write_bytes(archive.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"not a (whole|zip or tar) archive") as error:
        unpack(archive, tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_tar_that_is_cut_between_two_members_is_refused(tmp_path, count):
    archive = make(tmp_path / "a.tar", [(f"set/{i}", bytes([i]) * 512) for i in range(3)])
    whole = archive.read_bytes()
    archive.write_bytes(whole[: 1024 * count])
    with pytest.raises(ValueError, match="it ends after a member, without the end of a tar"):
        unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    archive.write_bytes(whole[: 1024 * 3 + 512])  # one block of zeros ends it too
    unpack(archive, tmp_path / "data")
    assert len(list((tmp_path / "data" / "set").iterdir())) == 3


@pytest.mark.parametrize("ending", ["zip", "tgz", "tar"])
def test_a_member_without_a_name_is_refused(tmp_path, ending):
    name = zipfile.ZipInfo("") if ending == "zip" else tarfile.TarInfo("")
    archive = make(tmp_path / f"a.{ending}", [("set/a", b"1"), (name, b"1")])
    with pytest.raises(ValueError, match=r"a member has no name|not a whole archive"):
        unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("ending", ["zip", "tgz"])
def test_a_bomb_is_refused_before_anything_is_written(tmp_path, ending):
    archive = tmp_path / f"a.{ending}"
    if ending == "zip":
        with (
            zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed,
            packed.open("set/a", "w") as member,
        ):
            for _ in range(60):
                member.write(bytes(2**20))
    else:
        info = tarfile.TarInfo("set/a")
        info.size = 60 * 2**20
        with tarfile.open(archive, "w:gz") as packed:
            packed.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(ValueError, match=r"refused, it would take more than 50 MB \(of 0.1 MB"):
        unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_what_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.tar", [("set/a", bytes(5_000_000))])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(ValueError, match="more than 1 MB"):
        unpack(archive, tmp_path / "data")


def test_what_a_killed_call_left_is_no_hindrance(tmp_path):
    archive = make(tmp_path / "a.zip", [("set/a", b"new")])
    left = tmp_path / "data" / ".unpacking-a.zip" / "set"
    left.mkdir(parents=True)
    (left / "old").write_bytes(b"old")
    unpack(archive, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]
    assert [path.name for path in (tmp_path / "data" / "set").iterdir()] == ["a"]


def test_a_pipe_is_no_archive_and_home_is_home(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(OSError, match="got a folder, pipe or device"):
        unpack(tmp_path / "a.zip", tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path / "b.zip", [("set/a", b"1")])
    unpack(Path("~/b.zip"), Path("~/data"))
    assert (tmp_path / "data" / "set" / "a").exists()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_archive_with_changed_bytes_is_unpacked_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("changed")
    ending = data.draw(st.sampled_from(["zip", "tgz", "tar"]))
    archive = make(folder / f"a.{ending}", [("set/list.txt", b"1 a"), ("set/img/a.jpg", b"a" * 99)])
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content)
    found = ""
    try:
        unpack(archive, folder / "data")
    except (ValueError, OSError) as error:
        found = str(error)
        assert not list(folder.glob("data/*"))
    assert "\n" not in found
    assert not list(folder.glob("data/.*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_members_of_one_name_are_refused(tmp_path, ending):
    members = [("set/a.jpg", b"1"), ("set/b.jpg", b"2"), ("set/./a.jpg", b"3"), ("set/b.jpg", b"4")]
    archive = make(tmp_path / f"a.{ending}", members)
    with pytest.raises(ValueError, match="refused, 2 members have the name of another one"):
        unpack(archive, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())
