"""A checkpoint is taken up only where every part of it fits its run; whatever else is one line."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nearkin.data import load
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.engine import Place, run
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

RECIPE = Recipe(backbone="mlp", dim=4, loss="proxy-gml", batch=16, epochs=4)
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "radam")


@pytest.fixture
def data(tmp_path) -> str:
    """12 classes of 8 points in 8 dimensions."""
    r = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 8)
    x = r.normal(size=(12, 8))[y] + 0.5 * r.normal(size=(96, 8))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32), y=y)
    return f"features:{tmp_path / 'x.npz'}"


@pytest.fixture
def left(data, tmp_path):
    """The checkpoint of a run after a step, as it was saved, and a run to take it up."""

    def left(**changes):
        recipe = replace(RECIPE, data=data, **changes)
        first, second = (Run(recipe, load(data), "cpu") for _ in range(2))
        next(train(first))
        save(first, tmp_path / "checkpoint.pt")
        return torch.load(tmp_path / "checkpoint.pt", weights_only=True), second

    return left


def first_of(state: dict) -> dict:
    return next(iter(state["optimizer"]["state"].values()))


def each(state: dict, key: str, change) -> None:
    for value in state["optimizer"]["state"].values():
        if key in value:
            value[key] = change(value[key])


SPOILT = {
    "other shapes in the optimizer": lambda s: each(s, "exp_avg", lambda x: torch.zeros(2)),
    "more numbers in the optimizer": lambda s: each(s, "exp_avg_sq", lambda x: torch.zeros(999)),
    "a transposed state": lambda s: each(s, "exp_avg", lambda x: x.T if x.ndim == 2 else x[None]),
    "another type in the optimizer": lambda s: each(s, "exp_avg", lambda x: x.double()),
    "a step of two numbers": lambda s: each(s, "step", lambda x: torch.ones(2)),
    "a step that is no tensor": lambda s: each(s, "step", lambda x: 3),
    "a state without a part": lambda s: first_of(s).pop("exp_avg"),
    "a state with a part more": lambda s: first_of(s).update(more=torch.zeros(1)),
    "a state of no parameter": lambda s: s["optimizer"]["state"].update({99: first_of(s)}),
    "a state that is none": lambda s: s["optimizer"].update(state=5),
    "another rate of decay": lambda s: s["optimizer"]["param_groups"][0].update(betas=(0.5, 0.5)),
    "another order": lambda s: s["optimizer"]["param_groups"][0]["params"].reverse(),
    "a group less": lambda s: s["optimizer"]["param_groups"].pop(),
    "groups that are none": lambda s: s["optimizer"].update(param_groups=[1]),
    "no optimizer": lambda s: s.update(optimizer=None),
    "a smaller layer": lambda s: s["backbone"].update({"head.weight": torch.zeros(2, 8)}),
    "a layer in half precision": lambda s: s["backbone"].update(
        {"head.weight": s["backbone"]["head.weight"].half()}
    ),
    "a layer less": lambda s: s["backbone"].pop("head.weight"),
    "a layer more": lambda s: s["backbone"].update(more=torch.zeros(1)),
    "a layer that is no tensor": lambda s: s["backbone"].update({"head.weight": 5}),
    "no backbone": lambda s: s.update(backbone=[]),
    "more proxies": lambda s: s["loss"].update({next(iter(s["loss"])): torch.zeros(1, 4)}),
    "no loss": lambda s: s.update(loss=3),
    "a step before the first": lambda s: s.update(step=-1),
    "a step after the last": lambda s: s.update(step=10**6),
    "half a step": lambda s: s.update(step=1.5),
    "a step in words": lambda s: s.update(step="one"),
    "epochs that are none": lambda s: s.update(epochs=[5]),
    "epochs without steps": lambda s: s.update(epochs=[{"epoch": 1}]),
    "epochs of more steps": lambda s: s.update(epochs=[{"epoch": 1, "steps": 5}]),
    "seconds that are none": lambda s: s.update(seconds=["long", "longer"]),
    "a second less": lambda s: s.update(seconds=[1.0]),
    "no threads": lambda s: s.update(threads=[]),
    "a sum of several": lambda s: s.update(loss_sum=torch.zeros(2, dtype=torch.double)),
    "a sum in single precision": lambda s: s.update(loss_sum=torch.zeros(())),
    "no sum": lambda s: s.update(loss_sum=0.0),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(left, tmp_path, what):
    state, second = left()
    before = {k: v.clone() for k, v in second.backbone.state_dict().items()}
    SPOILT[what](state)
    torch.save(state, tmp_path / "spoilt.pt")
    with pytest.raises(ValueError, match="does not fit its run") as error:
        restore(second, tmp_path / "spoilt.pt")
    assert "\n" not in str(error.value)
    assert second.step == 0
    if what != "more proxies":
        after = second.backbone.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_what_was_saved_fits(left, tmp_path, optimizer, momentum):
    state, second = left(optimizer=optimizer, momentum=momentum)
    restore(second, tmp_path / "checkpoint.pt")
    assert second.step == state["step"] == 1
    for _ in train(second):
        pass


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_of_another_optimizer_is_refused(left, tmp_path, optimizer):
    state, second = left(optimizer=optimizer)
    other = next(o for o in OPTIMIZERS if o[0] != optimizer[0])
    foreign, _ = left(optimizer=other)
    torch.save({**state, "optimizer": foreign["optimizer"]}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match="does not fit its run"):
        restore(second, tmp_path / "foreign.pt")


def test_a_checkpoint_of_before_is_no_checkpoint(left, tmp_path):
    state, second = left()
    del state["threads"]
    torch.save(state, tmp_path / "old.pt")
    with pytest.raises(ValueError, match="is not the checkpoint of a run"):
        restore(second, tmp_path / "old.pt")


def test_a_row_stands_where_its_checkpoint_goes(data, tmp_path, monkeypatch):
    """The row is on the disk before the checkpoint is removed: no kill loses both."""
    from nearkin.runs import engine

    seen = []
    real = engine.remove

    def watched(path):
        seen.append((path.name, engine.Store(tmp_path / "out").rows()))
        real(path)

    monkeypatch.setattr(engine, "remove", watched)
    row = run(replace(RECIPE, data=data), tmp_path / "out", place=Place(threads=1)).row
    assert seen[0] == ("checkpoint.pt", [row])


def test_an_average_is_taken_up_where_it_was(data, tmp_path):
    recipe = replace(RECIPE, data=data, average=0.9)
    first, second = (Run(recipe, load(data), "cpu") for _ in range(2))
    going = train(first)
    for _ in range(3):
        next(going)
    save(first, tmp_path / "checkpoint.pt")
    restore(second, tmp_path / "checkpoint.pt")
    for name, value in first.deployed.state_dict().items():
        assert torch.equal(second.deployed.state_dict()[name], value)
    next(going)
    next(train(second))
    for name, value in first.deployed.state_dict().items():
        assert torch.equal(second.deployed.state_dict()[name], value)
