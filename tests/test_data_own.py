"""Claim: a person's arrays, files, pictures and Datasets become splits whose items and classes are
those that were given, with labels of any kind."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_matrix
from torch.utils.data import Dataset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import ToTensor

import nearkin as nk
from nearkin.data import own, transforms
from nearkin.data.fingerprint import fingerprint
from nearkin.data.items import Items
from nearkin.data.photographs import Photographs
from nearkin.models.golden import drawing

own_splits: Any = own.own_splits
X = np.random.default_rng(0).normal(size=(12, 5))
Y = np.arange(12) % 3
PIXELS = np.stack([drawing(20, 24, i) for i in range(12)])


LABELS = {
    "integers": (Y, ("0", "1", "2")),
    "negative": (Y - 1, ("-1", "0", "1")),
    "small integers": (Y.astype(np.uint8), ("0", "1", "2")),
    "a list": (Y.tolist(), ("0", "1", "2")),
    "a tensor": (torch.from_numpy(Y), ("0", "1", "2")),
    "whole floats": (Y * 1.0, ("0", "1", "2")),
    "truth": (Y == 0, ("0", "1")),
    "text": (np.array(["b", "a", "c"])[Y], ("a", "b", "c")),
    "bytes": (np.array([b"b", b"a", b"c"])[Y], ("a", "b", "c")),
    "objects": (np.array(["b", "a", "c"], dtype=object)[Y], ("a", "b", "c")),
    "ten and two": (np.array([10, 2, 3])[Y], ("2", "3", "10")),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(kind):
    labels, classes = LABELS[kind]
    train = own_splits(X, labels).train
    assert train.classes == classes
    assert train.labels.dtype == torch.int64
    given = [str(label) for label in np.asarray(labels).astype(str)]
    found = [classes[label] for label in train.labels.tolist()]
    if kind in ("text", "objects", "integers", "ten and two", "negative"):
        assert found == given
    for one, other in ((0, 3), (1, 4), (0, 1), (1, 2)):
        same = labels[one] == labels[other]
        assert bool(same) == (found[one] == found[other])


class Rows(Dataset):
    """Items that are prepared when they are read: float tensors of this shape."""

    def __init__(self, shape=(1, 6, 6)):
        self.shape, self.reads = shape, 0

    def __len__(self):
        return 12

    def __getitem__(self, i):
        self.reads += 1
        return torch.full(self.shape, float(i)), "abc"[i % 3]


def test_vectors_from_arrays_tensors_datasets_and_tuples():
    wanted = torch.from_numpy(X).float()
    rows = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    for data in ((X, Y), (torch.from_numpy(X), Y), (X.tolist(), Y), rows, [X, Y]):
        train = own_splits(data).train
        assert torch.equal(train.inputs, wanted)
        assert train.labels.tolist() == Y.tolist()


def test_pandas_tables(monkeypatch):
    pandas = pytest.importorskip("pandas")
    table, labels = pandas.DataFrame(X), pandas.Series(["b", "a", "c"])[Y].reset_index(drop=True)
    assert torch.equal(own_splits(table, labels).train.tensor, torch.from_numpy(X).float())
    assert own_splits(table, labels).train.classes == ("a", "b", "c")


def test_pictures_of_whole_numbers_are_pixels():
    wanted = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    small = TensorDataset(wanted, torch.from_numpy(Y))
    pictures = [Image.fromarray(pixels) for pixels in PIXELS]
    for inputs in (PIXELS, wanted, PIXELS.astype(np.int64), list(PIXELS), pictures):
        assert torch.equal(own_splits(inputs, Y).train.inputs, wanted)
    assert torch.equal(own_splits(small).train.inputs, wanted)
    grey = own_splits(PIXELS[..., 0], Y).train.inputs
    assert torch.equal(grey, wanted[:, :1])


def test_pictures_of_many_sizes_and_files(tmp_path):
    pixels = [drawing(120 + i, 150 - i, i) for i in range(12)]
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path, array in zip(paths, pixels, strict=True):
        Image.fromarray(array).save(path)
    of_files = own_splits([str(path) for path in paths], Y).train
    of_arrays = own_splits(pixels, Y).train
    of_images = own_splits([Image.open(path) for path in paths], Y).train
    assert of_files.names == tuple(map(str, paths))
    batches = [
        transforms.batch(split.inputs, torch.arange(12), size=32, train=False)
        for split in (of_files, of_arrays, of_images)
    ]
    assert isinstance(of_files.inputs, Photographs)
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


def test_a_dataset_of_pictures_is_decoded_once(tmp_path):
    for kind in "ab":
        for i in range(3):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(drawing(20, 24, i)).save(tmp_path / kind / f"{i}.png")
    train = own_splits(ImageFolder(str(tmp_path))).train
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.inputs.shape == (6, 3, 20, 24)
    fake = FakeData(6, (3, 18, 18), num_classes=2)
    assert own_splits(fake).train.inputs.shape == (6, 3, 18, 18)


def test_a_dataset_that_prepares_its_items_is_read_as_they_are_wanted():
    dataset = Rows()
    train = own_splits(dataset).train
    assert isinstance(train.inputs, Items)
    assert train.classes == ("a", "b", "c")
    before = dataset.reads
    batch = transforms.batch(train.inputs, torch.tensor([7, 2]), train=True)
    assert dataset.reads == before + 2
    assert batch[:, 0, 0, 0].tolist() == [7, 2]
    part = train.select(torch.tensor([3, 5]))
    assert part.inputs.read()[:, 0, 0, 0].tolist() == [3, 5]
    assert isinstance(own_splits(Rows((7,))).train.inputs, torch.Tensor)
    with pytest.raises(ValueError, match="items of a Dataset cannot be augmented"):
        transforms.batch(train.inputs, torch.arange(2), augment="shift")
    assert fingerprint(own_splits(dataset)) != fingerprint(own_splits(dataset))
    prepared = FakeData(6, (3, 18, 18), num_classes=2, transform=ToTensor())
    assert own_splits(prepared).train.inputs.read().shape == (6, 3, 18, 18)


def test_floats_of_many_dimensions_come_as_they_are():
    x = torch.randn(12, 1, 6, 6)
    train = own_splits(x.double(), Y).train
    torch.testing.assert_close(train.inputs, x)
    assert torch.equal(transforms.batch(train.inputs, torch.arange(3)), train.inputs[:3])


def test_without_a_test_set_the_training_items_stand_in_for_it():
    splits = own_splits(X, Y)
    assert splits.query is splits.train
    assert splits.shared_classes


@pytest.mark.parametrize(
    ("names", "shared", "mixed"),
    [(["a", "b"], True, False), (["x", "y"], False, False), (["b", "x"], False, True)],
)
def test_test_classes_may_be_known_new_or_both(names, shared, mixed):
    train, test = np.array(["c", "a", "b"])[Y], np.array(names)[np.arange(12) % 2]
    splits = own_splits(X, train, X, test)
    assert (splits.shared_classes, splits.mixed_classes) == (shared, mixed)
    found = [splits.query.classes[label] for label in splits.query.labels.tolist()]
    assert found == test.tolist()
    if shared:
        assert splits.query.classes == splits.train.classes
    assert own_splits((X, train), test=(X, test)).query.labels.tolist() == (
        splits.query.labels.tolist()
    )


def test_splits_stay_as_they_are():
    splits = nk.load("mnist-5k")
    assert own_splits(splits) is splits
    assert own_splits(splits.train).train is splits.train


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: own_splits(X), "wanted Splits, a Split, a Dataset .* got ndarray without labels"),
        (lambda: own_splits(X, Y[:5]), "training labels must be 12 integers or texts"),
        (lambda: own_splits(X, [None] * 12), "training labels must be 12 integers or texts"),
        (lambda: own_splits(X[0], Y), "wanted inputs of two dimensions or more"),
        (lambda: own_splits(X * np.inf, Y), "inputs must be finite"),
        (lambda: own_splits((X * np.nan).tolist(), Y), "inputs must be finite"),
        (lambda: own_splits(X[:, :0], Y), r"of two dimensions or more, got \(12, 0\)"),
        (lambda: own_splits(X + 0j, Y), "wanted inputs, got .* of complex"),
        (lambda: own_splits(torch.tensor(X) + 1j, Y), "wanted inputs, got .* of torch.complex"),
        (lambda: own_splits((X + 1j).tolist(), Y), "an item must be numbers, got .*complex"),
        (lambda: own_splits([[10**400] * 5] * 12, Y), "an item must be numbers, got list"),
        (lambda: own_splits(X.astype("M8[s]"), Y), "inputs as numbers, got .*datetime64"),
        (
            lambda: own_splits(
                torch.nested.nested_tensor([torch.ones(4)] * 12, layout=torch.jagged), Y
            ),
            "nested",
        ),
        (lambda: own_splits(X, Y, test_labels=Y), "test items beside their labels, got labels"),
        (lambda: own_splits(np.full((12, 9, 9), 300), Y), "whole numbers in 0..255"),
        (lambda: own_splits(np.zeros((12, 9, 9, 4), int), Y), "1 or 3 channels, got 4"),
        (lambda: own_splits(np.full((12, 9, 9), 300, np.uint16), Y), "whole .*of torch.uint16"),
        (
            lambda: own_splits(np.zeros((12, 0, 9, 3), "u1"), Y),
            r"got \(12, 0, 9, 3\) of torch.uint8",
        ),
        (lambda: own_splits([Image.new("RGB", (0, 0))] * 12, Y), "got one of 0 x 0 pixels"),
        (lambda: own_splits(X, Y, X, Y[:3]), "test labels must be 12"),
        (lambda: own_splits(X, Y, X[:, :3], Y), "wanted vectors of 5 numbers, got vectors of 3"),
        (lambda: own_splits(X, Y, np.zeros((12, 9, 9), "u1"), Y), "of 5 numbers, got other items"),
        (lambda: own_splits(X[:0], Y[:0]), "training data: wanted items, got none"),
        (lambda: own_splits(["absent.png"], [1]), "absent.png: missing"),
        (lambda: own_splits(TensorDataset(torch.zeros(3, 2))), r"a Dataset of \(input, label\)"),
        (lambda: own_splits(np.full((12, 5), "a"), Y), "inputs as numbers, got an array of <U1"),
        (lambda: own_splits(csr_matrix(X), Y), r"got csr_matrix: take x\.toarray"),
        (lambda: own_splits(torch.tensor(X).to_sparse(), Y), "got a sparse tensor"),
        (lambda: own_splits(np.ma.masked_greater(X, 0), Y), "got a masked array"),
        (lambda: own_splits("mnist-5k"), "got str without labels"),
    ],
)
def test_errors_say_what_was_wanted(build, said):
    with pytest.raises(ValueError, match=said) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_labels_that_a_dataset_transforms_are_those_of_its_items():
    class Halved(Dataset):
        targets = tuple(range(12))
        target_transform = staticmethod(lambda label: label // 6)

        def __len__(self):
            return 12

        def __getitem__(self, i):
            return torch.zeros(2), self.target_transform(self.targets[i])

    assert own_splits(Halved()).train.classes == ("0", "1")


def test_whole_numbers_of_two_bytes_are_pictures_where_they_are_small():
    pixels = own_splits(np.full((12, 9, 9), 255, np.uint16), Y).train.inputs
    assert pixels.dtype == torch.uint8
    assert int(pixels.min()) == 255


class Listed(Dataset):
    """The items of a list."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize(
    "item",
    [
        lambda x, y, i: (x, y, i),
        lambda x, y, i: (x, torch.tensor(y), f"{i}.jpg"),
        lambda x, y, i: {"image": x, "index": i, "label": y},
        lambda x, y, i: {"image": x, "path": f"{i}.jpg", "target": torch.tensor([y])},
        lambda x, y, i: (x, "abc"[y]),
        lambda x, y, i: {"image": x, "kind": "abc"[y]},
    ],
)
def test_the_label_of_an_item_of_several_parts(item):
    x = torch.from_numpy(X)
    items = Listed([item(x[i], int(Y[i]), i) for i in range(len(X))])
    train = own_splits(items).train
    assert train.labels.tolist() == Y.tolist()
    assert torch.equal(train.inputs, x.float())


@pytest.mark.parametrize(
    ("item", "got"),
    [
        (lambda x, y, i: (x, f"{i}.jpg", y), "items of 3 parts"),
        (lambda x, y, i: (x, 0.5, y), "items of 3 parts"),
        (lambda x, y, i: (x, x, y, i), "items of 4 parts"),
        (lambda x, y, i: {"image": x, "index": i, "kind": y}, "items of image, index, kind"),
    ],
)
def test_items_of_which_nobody_knows_the_label_are_refused(item, got):
    x = torch.from_numpy(X)
    items = Listed([item(x[i], int(Y[i]), i) for i in range(len(X))])
    with pytest.raises(ValueError, match=f"got {got}, and nobody knows which is the label"):
        own_splits(items)
    assert own_splits(items, Y).train.labels.tolist() == Y.tolist()
