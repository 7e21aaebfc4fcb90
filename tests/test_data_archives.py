"""Claim: an archive is unpacked whole and inside its folder, or nothing of it is."""

import io
import tarfile
import zipfile

import pytest

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
    assert not list((tmp_path / "deep" / "data").iterdir())
    assert not list(tmp_path.rglob("out.jpg"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = make(tmp_path / "a.tar", [(link("set/a", "/etc/passwd", kind), b"")])
    with pytest.raises(ValueError, match="is a link or a device"):
        unpack(archive, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


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
    assert not list((tmp_path / "data").iterdir())


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
    assert not (tmp_path / "data").exists()
