"""Claim: a data set is embedded once, whatever stops it, and never half by one and half by another.

Twenty pictures of four classes, ten in each split, are embedded in batches of 3, 3, 3 and 1; what
is done is kept after every other batch.
"""

from itertools import count, islice

import numpy as np
import pytest
import torch
from PIL import Image

from nearkin import models
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
    net = models.make("network", options, (3, SIDE, SIDE), dim=5)
    torch.save(models.describe(net), path)


@pytest.fixture
def start(tmp_path):
    """Begins to embed one of two roots, or goes on with it."""
    draw(tmp_path / "one", 1)
    draw(tmp_path / "two", 2)
    learn(tmp_path / "backbone.pt", 1)

    def start(output, root="one", **place):
        where = Place(root=str(tmp_path / root), **{"device": "cpu", **place})
        net = tmp_path / "backbone.pt"
        return load_and_embed("folder:set", tmp_path / output, net, "", {}, 0, where)

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
    net = models.rebuild(models.read(tmp_path / "backbone.pt")).eval()
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
        lambda path: draw(path / "one", 2),
    ],
    ids=["root", "skip_bad", "checkpoint", "number of pictures", "pictures"],
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


@pytest.mark.parametrize(
    ("backbone", "options", "features"),
    [
        ("network", {}, 256),
        ("network", {"filters": "4", "units": ""}, 4 * (SIDE // 2) ** 2),
        ("linear", {}, 3 * SIDE * SIDE),
        ("mlp", {"hidden": 7}, 7),
        ("timm:test_resnet", {"weights": "none"}, 96),
        ("timm:test_resnet", {"weights": "none", "head": "none", "norm": "layer"}, 96),
    ],
)
def test_a_backbone_by_name_gives_its_features_without_a_head(
    tmp_path, backbone, options, features
):
    draw(tmp_path, 1)
    place = Place(root=str(tmp_path), device="cpu")
    list(load_and_embed("folder:set", tmp_path / "x.npz", None, backbone, options, 0, place))
    found = load(f"features:{tmp_path}/x.npz").train.tensor
    assert found.shape == (10, features)
    if backbone == "linear":
        pixels = load(f"folder:{tmp_path}/set").train.tensor / 255
        torch.testing.assert_close(found, pixels.flatten(1))
    if "norm" in options:
        torch.testing.assert_close(found.square().mean(1), torch.ones(10), rtol=0.01, atol=0)


@pytest.mark.parametrize("spoil", [lambda whole: b"junk", lambda whole: whole[: len(whole) // 2]])
def test_what_was_done_is_begun_anew_where_its_file_is_broken(tmp_path, start, spoil):
    list(start("whole.npz"))
    kill(start("x.npz"), 5)
    (kept,) = tmp_path.glob(".x.npz*")
    kept.write_bytes(spoil(kept.read_bytes()))
    done = [step.done for step in start("x.npz")]
    assert done[0] == 3
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not list(tmp_path.glob(".x.npz*"))


@pytest.mark.parametrize(
    "change",
    [
        lambda done: done[:, :3],
        lambda done: done.double(),
        lambda done: done.flatten(),
        lambda done: torch.cat([done, done, done, done]),
        lambda done: done.tolist(),
    ],
)
def test_what_was_done_is_begun_anew_where_it_is_of_another_form(tmp_path, start, change):
    kill(start("x.npz"), 5)
    (kept,) = tmp_path.glob(".x.npz*")
    state = torch.load(kept, weights_only=True)
    torch.save({**state, "done": change(state["done"])}, kept)
    assert next(step.done for step in start("x.npz")) == 3


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("backbone.pt/x.npz", "cannot be written: Not a directory"),
        ("backbone.pt/deeper/x.npz", "cannot be written: Not a directory"),
        ("folder.npz", "must be an .npz file, got the folder"),
        ("x.npy", "must be an .npz file, got"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_the_work(
    tmp_path, start, monkeypatch, output, said
):
    (tmp_path / "folder.npz").mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(embedding, "load", lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match=said) as caught:
        start(output)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_for_the_output_is_made(tmp_path, start):
    list(start("some/where/x.npz"))
    assert [path.name for path in (tmp_path / "some/where").iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("backbone", "options", "size", "said"),
    [
        ("lite0", {}, 0, r"a checkpoint or a backbone by name, got .*backbone\.pt and lite0"),
        (
            "",
            {"pool": "gem"},
            0,
            r"a checkpoint or a backbone by name, got .*backbone\.pt and pool",
        ),
        ("", {}, -1, "size must be 0 or more, got -1"),
    ],
)
def test_what_would_do_nothing_is_refused(tmp_path, start, backbone, options, size, said):
    checkpoint, place = tmp_path / "backbone.pt", Place(root=str(tmp_path / "one"), device="cpu")
    with pytest.raises(ValueError, match=said):
        load_and_embed("folder:set", tmp_path / "x.npz", checkpoint, backbone, options, size, place)


def test_a_head_that_was_asked_for_is_refused(tmp_path):
    draw(tmp_path, 1)
    place, options = Place(root=str(tmp_path), device="cpu"), {"weights": "none", "head": "linear"}
    with pytest.raises(ValueError, match="wanted features, without a head, got head=linear"):
        load_and_embed(
            "folder:set", tmp_path / "x.npz", None, "timm:test_resnet", options, 0, place
        )
