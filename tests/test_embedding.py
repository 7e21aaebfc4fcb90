"""Claim: a data set is embedded once, whatever stops it, and never half by one and half by another.

Twenty pictures of four classes, ten in each split, are embedded in batches of 3, 3, 3 and 1; what
is done is kept after every other batch.
"""

from itertools import count, islice

import numpy as np
import pytest
import torch
from PIL import Image

from nearkin import backbones
from nearkin.data import load
from nearkin.runs import embedding
from nearkin.runs.embedding import load_and_embed
from nearkin.runs.engine import Place

SIDE = 8
KEPT = [0, 0, 6, 6, 10, 10, 16, 16, 20]
"""Items that are kept after so many batches."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(embedding, "BATCH", 3)
    monkeypatch.setattr(embedding, "SAVE_SECONDS", 1.5)
    clock = count()  # a second a look at it
    monkeypatch.setattr(embedding, "perf_counter", lambda: next(clock))
    monkeypatch.delenv("NEARKIN_CACHE", raising=False)


def draw(root, seed, images=5):
    """Noise in the class folders of root/set."""
    random = np.random.default_rng(seed)
    for kind in "abcd":
        folder = root / "set" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(images):
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")


def learn(path, seed):
    """The checkpoint of a small network, as a run keeps it."""
    torch.manual_seed(seed)
    options = {"filters": "4", "kernel": 3, "units": "8"}
    net = backbones.make("network", options, (3, SIDE, SIDE), dim=5)
    torch.save(backbones.describe(net), path)


@pytest.fixture
def start(tmp_path):
    """Begins to embed one of two roots, or goes on with it."""
    draw(tmp_path / "one", 1)
    draw(tmp_path / "two", 2)
    learn(tmp_path / "backbone.pt", 1)

    def start(output, root="one", **place):
        where = Place(root=str(tmp_path / root), **{"device": "cpu", **place})
        net = tmp_path / "backbone.pt"
        return load_and_embed("folder:set", tmp_path / output, net, "lite0", {}, 0, where)

    return start


def kill(progress, batches):
    """What a kill after so many batches does."""
    assert len(list(islice(progress, batches))) == batches
    progress.close()


def test_every_picture_has_its_vector(tmp_path, start):
    assert [step.done for step in start("x.npz")] == [3, 6, 9, 10, 13, 16, 19, 20, 20]
    whole = load(f"folder:{tmp_path}/one/set")
    found = load(f"features:{tmp_path}/x.npz")
    assert found.variant == f"{whole.variant}, features, 5-d"
    net = backbones.rebuild(backbones.read(tmp_path / "backbone.pt")).eval()
    for split, pictures in ((found.train, whole.train), (found.query, whole.query)):
        assert (split.names, split.classes) == (pictures.names, pictures.classes)
        assert torch.equal(split.labels, pictures.labels)
        with torch.no_grad():
            torch.testing.assert_close(split.inputs, net(pictures.tensor / 255))


@pytest.mark.parametrize("batches", range(1, 9))
def test_a_killed_call_goes_on_to_the_same_file(tmp_path, start, batches):
    list(start("whole.npz"))
    kill(start("x.npz"), batches)
    rest = [step.done for step in start("x.npz")]
    assert rest == [d for d in (3, 6, 9, 10, 13, 16, 19, 20) if d > KEPT[batches]] + [20]
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not list(tmp_path.glob(".x.npz*"))


@pytest.mark.parametrize(
    "change",
    [
        lambda path: {"root": "two"},
        lambda path: {"skip_bad": True},
        lambda path: learn(path / "backbone.pt", 2),
        lambda path: draw(path / "one", 1, images=6),
    ],
    ids=["root", "skip_bad", "checkpoint", "number of pictures"],
)
def test_what_was_done_of_or_by_another_is_begun_anew(tmp_path, start, change):
    kill(start("x.npz"), 5)
    changed = change(tmp_path) or {}
    assert next(iter(start("x.npz", **changed))).done == 3
    list(start("x.npz", **changed))
    list(start("fresh.npz", **changed))
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "fresh.npz").read_bytes()


def test_a_gpu_that_is_not_there_is_said(tmp_path, start, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device cuda: wanted a GPU") as caught:
        start("x.npz", device="cuda")
    assert "\n" not in str(caught.value)
    assert [step.total for step in start("x.npz", device="auto")] == [20] * 9


def test_a_network_without_weights_is_the_same_one_when_a_killed_call_goes_on(tmp_path):
    draw(tmp_path, 1)

    def start(output):
        options, place = {"filters": "4", "units": "8"}, Place(root=str(tmp_path), device="cpu")
        return load_and_embed("folder:set", tmp_path / output, None, "network", options, 0, place)

    list(start("whole.npz"))
    kill(start("x.npz"), 5)
    list(start("x.npz"))
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_without_a_size_small_sets_stay_as_they_are(tmp_path):
    draw(tmp_path, 1)
    place = Place(root=str(tmp_path), device="cpu")
    list(load_and_embed("folder:set", tmp_path / "x.npz", None, "identity", {}, 0, place))
    assert load(f"features:{tmp_path}/x.npz").train.tensor.shape == (10, 3 * SIDE * SIDE)
    again = f"features:{tmp_path}/x.npz"
    list(load_and_embed(again, tmp_path / "y.npz", None, "identity", {}, 0, place))
    assert load(f"features:{tmp_path}/y.npz").train.tensor.shape == (10, 3 * SIDE * SIDE)
