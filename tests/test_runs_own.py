"""Own objects run like those that a recipe names, and are found again by what they are."""

import random
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nearkin import losses, models
from nearkin.data import Split, Splits, load
from nearkin.registry import LOSSES
from nearkin.runs.engine import Place, run
from nearkin.runs.loop import train
from nearkin.runs.own import fingerprint_of
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.runs.store import Store

CPU = Place(device="cpu", threads=1)
RECIPE = Recipe(dim=4, loss="contrastive", batch=16, epochs=2, per_class=4)


class Net(nn.Module):
    """A backbone of one piece."""

    def __init__(self, dim: int = 4, width: int = 16, act=torch.relu):
        super().__init__()
        self.first, self.last = nn.Linear(8, width), nn.Linear(width, dim)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))


class Pull(nn.Module):
    """A loss: kin at a distance of 0, others at a distance of `margin`."""

    metric = "euclidean"

    def __init__(self, margin: float = 1.0):
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor, y: Tensor, *_) -> Tensor:
        apart = torch.cdist(x, x)
        kin = y[:, None] == y
        return torch.where(kin, apart, (self.margin - apart).clamp_min(0)).mean()


def seeded(build, *args, seed: int = 0, **options):
    torch.manual_seed(seed)
    return build(*args, **options)


def points(seed: int = 0) -> Splits:
    """12 classes of 8 points around a centre each, in 8 dimensions."""
    r = np.random.default_rng(seed)
    y = np.repeat(np.arange(6), 8)

    def split(names: str) -> Split:
        x = r.normal(size=(6, 8))[y] + 0.5 * r.normal(size=(48, 8))
        return Split(torch.from_numpy(x).float(), torch.from_numpy(y), tuple(names))

    test = split("ghijkl")
    return Splits("points", split("abcdef"), test, test)


def test_own_objects_are_trained_and_examined(tmp_path):
    net, loss, splits = seeded(Net), Pull(), points()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    result = run(RECIPE, tmp_path, splits=splits, backbone=net, loss=loss, place=CPU)
    row = result.row
    assert row.status == "done"
    assert row.metric == "euclidean"
    assert row.data.name == row.recipe.data == "points"
    assert (row.recipe.backbone, row.recipe.loss) == ("own:Net", "own:Pull")
    assert row.own_object == "backbone Net, loss Pull"
    assert set(row.made_of) == {"backbone", "loss"}
    assert row.metrics.last is not None
    assert any(not torch.equal(before[k], v) for k, v in net.state_dict().items())
    with torch.no_grad(), np.load(result.folder / "embeddings.npz") as kept:
        found = net.eval()(splits.query.tensor)
        torch.testing.assert_close(torch.from_numpy(kept["x"]), found)


def test_the_objects_of_a_recipe_train_as_the_recipe_does():
    recipe = replace(RECIPE, backbone="linear")
    named = Run(recipe, points(), "cpu")
    torch.manual_seed(recipe.seed)
    net = models.make("linear", {}, (8,), 4)
    own = Run(recipe, points(), "cpu", backbone=net, loss=losses.Contrastive())
    for each in (named, own):
        for _ in train(each):
            pass
    for one, other in zip(named.backbone.parameters(), own.backbone.parameters(), strict=True):
        assert torch.equal(one, other)


def asked(tmp_path, **changes):
    """A run of own objects, made anew from the same arguments but for these."""
    parts = {"backbone": partial(Net), "loss": partial(Pull), "splits": points} | changes
    given = {name: seeded(make) for name, make in parts.items() if make}
    return run(RECIPE, tmp_path, place=CPU, **given)


def with_other_source() -> nn.Module:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
            self.act = torch.relu

        def forward(self, x):
            return self.last(self.act(self.first(x))) * 2

    return Net()


OTHERS = {
    "initial weights": {"backbone": lambda: seeded(Net, seed=1)},
    "a constructor's value": {"loss": lambda: Pull(margin=2.0)},
    "a function": {"backbone": lambda: Net(act=torch.tanh)},
    "an own function": {"backbone": lambda: Net(act=lambda x: x.relu() + 0)},
    "the source of the class": {"backbone": with_other_source},
    "the data": {"splits": lambda: points(1)},
    "the loss of a recipe": {"loss": None},
    "frozen weights": {"backbone": lambda: frozen(seeded(Net))},
}


def frozen(net: Net) -> Net:
    net.first.requires_grad_(False)
    return net


def test_the_same_objects_are_the_same_run(tmp_path):
    first = asked(tmp_path)
    second = asked(tmp_path)
    assert second.stored
    assert second.row == first.row


@pytest.mark.parametrize("what", OTHERS)
def test_other_objects_are_another_run(tmp_path, what):
    first = asked(tmp_path)
    other = asked(tmp_path, **OTHERS[what])
    assert not other.stored
    assert other.folder != first.folder
    assert len(Store(tmp_path).rows()) == 2
    assert asked(tmp_path).row == first.row


def test_a_registered_recipe_is_not_taken_for_own_objects(tmp_path):
    recipe = replace(RECIPE, data="mnist-5k", epochs=0)
    run(recipe, tmp_path, place=CPU)
    assert not run(recipe, tmp_path, place=CPU, loss=seeded(Pull)).stored


def test_the_data_of_a_name_handed_in_are_that_name(tmp_path):
    recipe = replace(RECIPE, epochs=0)
    first = run(recipe, tmp_path, place=CPU)
    assert run(recipe, tmp_path, splits=load("mnist-5k"), place=CPU).row == first.row


class Untellable(Pull):
    """A loss that holds what nobody can look into."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.Generator()


def hooked() -> nn.Module:
    net = seeded(Net)
    net.register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize(
    ("part", "make", "why"),
    [("loss", Untellable, "it holds a Generator"), ("backbone", hooked, "Net has hooks")],
)
def test_what_cannot_be_told_is_never_taken_from_the_store(tmp_path, part, make, why):
    rows = [asked(tmp_path, **{part: make}).row for _ in range(2)]
    assert all(why in row.own_object for row in rows)
    assert rows[0].key != rows[1].key
    assert rows[0].files.folder != rows[1].files.folder
    assert len(Store(tmp_path).rows()) == 2


TYPED = """
import torch
from torch import nn
from nearkin.runs.own import fingerprint_of
exec("class Typed(nn.Module):\\n    pass")
print(fingerprint_of(Typed()))
"""


def test_a_class_that_was_typed_in_has_no_source():
    words = [sys.executable, "-c", TYPED]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "the source of Typed is not to be had" in said


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_ours_can_be_told(name):
    one, same = (seeded(losses.make, name, classes=10, dim=8, features=6) for _ in range(2))
    fingerprint, why = fingerprint_of(one)
    assert not why
    assert fingerprint_of(same) == (fingerprint, "")


def test_what_objects_hold_is_told_in_full():
    def of(value) -> str:
        module = nn.Module()
        module.held = value
        fingerprint, why = fingerprint_of(module)
        assert not why, why
        return fingerprint

    class Plain:
        def __init__(self, x):
            self.x = x

    def outer(a):
        return lambda x: x + a

    values = [
        1,
        1.0,
        True,
        "1",
        None,
        [1, 2],
        (1, 2),
        {1: 2},
        {2: 1},
        {1, 2},
        np.arange(3),
        np.arange(3.0),
        np.float32(1),
        torch.arange(3),
        torch.float32,
        torch.device("cpu"),
        partial(torch.add, alpha=2),
        partial(torch.add, alpha=3),
        outer(1),
        outer(2),
        Plain(1),
        Plain(2),
        Plain,
        Plain(1).__init__,
        nn.ReLU(),
        nn.Linear,
        Splits,
    ]
    found = [of(value) for value in values]
    assert len(set(found)) == len(found)
    assert of({1, 2, 3}) == of({3, 2, 1})
    assert of(outer(1)) == found[18]


def test_a_module_that_knows_itself_ends():
    net = seeded(Net)
    net.__dict__["myself"] = net
    assert not fingerprint_of(net)[1]


@pytest.mark.parametrize("value", [random.Random(0), open, iter([1]), nn.Linear(1, 1).forward])
def test_what_has_no_content_to_look_at_is_said(value):
    module = nn.Module()
    module.held = value
    _, why = fingerprint_of(module)
    assert bool(why) == (not callable(value))


@pytest.mark.parametrize("field", [{"freeze": True}, {"head_first": 1}, {"backbone_lr": 0.1}])
def test_a_backbone_of_one_piece_has_no_trunk_to_rest(field):
    with pytest.raises(ValueError, match="wants a backbone with a `trunk` and a `head`, got Net"):
        Run(replace(RECIPE, **field), points(), "cpu", backbone=Net())


def test_a_backbone_of_another_size_is_refused():
    with pytest.raises(ValueError, match="dim is 4, but the backbone embeds into 5 dimensions"):
        Run(RECIPE, points(), "cpu", backbone=Net(dim=5))


def test_weights_that_a_person_froze_stay_frozen():
    class Split2(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.trunk(x))

    net = seeded(Split2)
    net.trunk[0].requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    current = Run(replace(RECIPE, head_first=1), points(), "cpu", backbone=net)
    for _ in train(current):
        pass
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"trunk.1.weight", "trunk.1.bias", "head.weight", "head.bias"}
