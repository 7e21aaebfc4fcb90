"""What people hand over in other forms than the usual ones: taken for what it is, or named."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_metric_learning.losses import ArcFaceLoss
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from torch import nn

import nearkin as nk
from nearkin.app.main import main

X = np.random.default_rng(0).normal(size=(40, 8)).astype("f4")
Y = np.repeat(np.arange(10), 4)
WRAPPERS = {
    "parallel": nn.DataParallel,
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "both": lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
}


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_backbone_is_saved_and_read_under_its_own_names(name, tmp_path):
    wrap, plain = WRAPPERS[name], nk.Model(linear())
    nk.Model(wrap(linear())).save(tmp_path / "a")
    plain.save(tmp_path / "b")
    for path in (tmp_path / "a", tmp_path / "b"):
        for into in (linear(), wrap(linear())):
            assert torch.equal(nk.Model.load(path, into).embed(X), plain.embed(X))
    assert nk.Model(wrap(linear())).identity == plain.identity


def test_a_table_or_numbers_as_objects_are_vectors():
    model = nk.Model(linear())
    for form in (pd.DataFrame(X), X.astype(object), pd.DataFrame(X).astype(object)):
        assert torch.equal(model.embed(form), model.embed(X))


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (torch.tensor(X) + 1j, "of torch.complex64"),
        ((X + 1j).tolist(), "a vector must be numbers, got .*complex"),
        ([torch.tensor(X[0]).to_sparse()], "a vector must be numbers, got a sparse tensor"),
        ([[10**400] * 8], "a vector must be numbers, got ndarray"),
    ],
)
def test_what_is_no_vector_is_refused(items, said):
    with pytest.raises(ValueError, match=said) as error:
        nk.Model(linear()).embed(items)
    assert "\n" not in str(error.value)


def test_floats_of_80_bits_are_numbers():
    assert torch.equal(
        nk.Model(linear()).embed(X.astype(np.longdouble)), nk.Model(linear()).embed(X)
    )
    fitted = [
        nk.fit(linear(), "contrastive", x, Y, epochs=1, batch=8, per_class=2, threads=1)
        for x in (X, X.astype(np.longdouble))
    ]
    assert fitted[0].identity == fitted[1].identity


@pytest.mark.parametrize("device", ["meta", "cpu:1", "mps", None, "cuda:x", "cuda:01", ""])
def test_a_device_that_is_none_leaves_the_model_as_it_was(device):
    model = nk.Model(linear())
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, got"):
        model.embed(X, device=device)
    assert torch.equal(model.embed(X), nk.Model(linear()).embed(X))


def test_a_model_that_could_not_be_read_again_is_not_written(tmp_path):
    model = nk.Model(linear(), classes=["a", "\udcff"])
    with pytest.raises(ValueError, match=r"config\.json is not JSON: half a character"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("cut", [lambda x: x.detach(), lambda x: torch.ones(len(x), 4)])
def test_a_backbone_without_gradient_is_told(cut):
    net = linear()
    net.register_forward_hook(lambda module, given, x: cut(x))
    with pytest.raises(ValueError, match="wanted a loss that depends on weights"):
        nk.fit(net, "contrastive", X, Y, epochs=1, batch=8, per_class=2)


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_a_model_does_not_take_the_place_of_files_of_others(name, tmp_path):
    (tmp_path / name).write_text("{}")
    (tmp_path / ("config.json" if name == "model.safetensors" else "mine.txt")).write_text("{}")
    there = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match=r"it holds a .* of no Nearkin Model"):
        nk.Model(linear()).save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == there
    assert (tmp_path / name).read_text() == "{}"


def test_a_model_that_was_half_written_is_written_anew(tmp_path):
    model = nk.Model(linear())
    model.save(tmp_path)
    (tmp_path / "config.json").unlink()  # the last file that is written
    model.save(tmp_path)
    assert nk.Model.load(tmp_path, linear()).identity == model.identity


def test_numbers_of_numpy_are_numbers():
    usual = nk.Recipe(dim=4, lr=0.5, validate=True, loss_options={"margin": 2})
    given: Any = {
        "dim": np.int64(4),
        "lr": np.float32(0.5),
        "validate": np.bool_(True),
        "loss_options": {"margin": np.uint8(2)},
    }
    found = nk.Recipe(**given)
    assert found == usual
    assert found.hash == usual.hash
    assert type(found.dim) is int
    assert nk.losses.make("contrastive", {"margin": np.float32(0.5)}).margin == 0.5
    settings = {"epochs": np.int64(1), "batch": np.int32(8), "per_class": np.int8(2)}
    nk.fit(linear(), "contrastive", X, Y, threads=1, **settings)
    with pytest.raises(ValueError, match=r"dim: wanted a value of type int, got 4\.0"):
        nk.Recipe(**{**given, "dim": np.float64(4)})


def test_a_grid_search_over_an_array():
    pipe = make_pipeline(nk.Embedding(epochs=1, batch=8), KNeighborsClassifier(1))
    grid = GridSearchCV(pipe, {"embedding__dim": np.array([2, 3])}, cv=2)
    assert grid.fit(X, Y).best_params_["embedding__dim"] in (2, 3)


def test_a_loss_for_fewer_classes_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match=r"ArcFaceLoss: num_classes must be 10 or more, .* got 5"):
        nk.fit(linear(), ArcFaceLoss(5, 4), X, Y, epochs=1, batch=8, per_class=2)


@pytest.mark.parametrize(
    "words",
    [
        "embed --data loop.npz --backbone identity --output e.npz",
        "embed --data loop --output e.npz",
        "evaluate --embeddings loop.npz",
        "explore loop.npz",
        "doctor loop.npz",
        "train --data loop.npz --loss contrastive",
        "train --data loop --loss contrastive",
        "index loop loop --output shop",
        "search loop loop",
        "report loop",
    ],
)
def test_links_in_a_circle_are_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop.npz", "loop.npz")
    os.symlink("loop", "loop")
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["loop", "loop.npz"]


@pytest.mark.parametrize("words", ["embed --data x.npz --output", "doctor x.npz --cure"])
@pytest.mark.parametrize("name", ["x.npz", "./x.npz", "link.npz"])
def test_what_is_read_is_not_written_over(words, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=X, y=Y)
    os.symlink("x.npz", "link.npz")
    before = Path("x.npz").read_bytes()
    more = ["--backbone", "identity"] if words.startswith("embed") else []
    with pytest.raises(SystemExit) as left:
        main([*words.split(), name, *more])
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"nearkin: {Path(name)} is what is read, and would be lost: give another name\n"
    )
    assert Path("x.npz").read_bytes() == before
