"""What each field of a recipe does, one claim a field, told from the numbers that it changes."""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nearkin import closed, losses, models
from nearkin.data import Split, Splits, load
from nearkin.measure import knn_accuracy, recalls, scattering
from nearkin.runs import engine
from nearkin.runs.build import rate_factor
from nearkin.runs.engine import Place, run
from nearkin.runs.evaluate import NEIGHBOURS, examine, nearness
from nearkin.runs.ingredients import loaded
from nearkin.runs.loop import noise_seed, train
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.run import Run
from nearkin.tensors import unit

CPU = Place(device="cpu", threads=1)
BASE = Recipe(backbone="mlp", dim=4, loss="contrastive", batch=16, per_class=4, epochs=1)
CLAIMED: set[str] = set()


def claim(*fields: str):
    """Marks a test as what is claimed of these fields."""
    CLAIMED.update(fields)
    return lambda test: test


def points(seed: int = 0, shared: bool = False, spread: float = 0.5) -> Splits:
    """10 classes of 8 vectors in 6 dimensions train, and as many others (or the same) test."""
    random = np.random.default_rng(seed)
    y = torch.from_numpy(np.repeat(np.arange(10), 8))
    centres = random.normal(size=(2, 10, 6))

    def split(number: int, names: str) -> Split:
        x = centres[number][y.numpy()] + spread * random.normal(size=(80, 6))
        return Split(torch.from_numpy(x).float(), y, tuple(names))

    test = split(0, "abcdefghij") if shared else split(1, "klmnopqrst")
    return Splits("points", split(0, "abcdefghij"), test, test, shared_classes=shared)


def pictures() -> Splits:
    """4 classes of 6 grey pictures of 16 x 16 train, and as many others test."""
    random = torch.Generator().manual_seed(0)

    def split(names: str) -> Split:
        x = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8, generator=random)
        return Split(x, torch.arange(24) // 6, tuple(names))

    test = split("efgh")
    return Splits("pictures", split("abcd"), test, test)


def begun(splits: Splits | None = None, steps: int = 0, **changes) -> Run:
    """A run after so many steps; its other parts can be handed in."""
    parts = {name: changes.pop(name) for name in ("backbone", "loss") if not_a_name(changes, name)}
    current = Run(replace(BASE, **changes), splits or points(), "cpu", **parts)
    going = train(current)
    for _ in range(steps):
        next(going)
    return current


def not_a_name(changes: dict, name: str) -> bool:
    return isinstance(changes.get(name), nn.Module)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


class Two(nn.Module):
    """A backbone with batch norm in its trunk, that tells the modes in which it was called."""

    def __init__(self, features: int = 6, dim: int = 4):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(features, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, dim)
        self.noise: list[float] = []
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.noise.append(torch.rand(()).item())
        self.sizes.append(len(x))
        return self.head(self.trunk(x))


def two() -> Two:
    torch.manual_seed(0)
    return Two()


class Linear(nn.Module):
    """A loss whose gradient is known: the sum of all numbers, times `size`, and its own weight."""

    metric = "cosine"

    def __init__(self, size: float = 1.0):
        super().__init__()
        self.size = size
        self.own = nn.Parameter(torch.ones(3))
        self.free = nn.Parameter(torch.ones(3))
        self.tuples: list = []

    def forward(self, x: Tensor, y: Tensor, tuples=None, *_) -> Tensor:
        self.tuples.append(tuples)
        return self.size * (x.sum() + self.own.sum() + self.free.sum())

    def rates(self) -> dict[str, float]:
        return {"own": 0.25}


def test_every_field_has_its_claim():
    assert set(DEFAULTS) == CLAIMED


# ---- data


COUNTS = [name for name, value in DEFAULTS.items() if type(value) is int and name != "seed"]


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_has_an_upper_bound(name):
    rest: dict = {"validate": True} if name in ("validate_every", "patience") else {}
    with pytest.raises(ValueError, match=f"{name}.*got {10**10}"):
        Recipe(**{name: 10**10}, **rest)


@claim("data")
def test_data_names_what_is_read(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        split = points(seed).train
        np.savez(tmp_path / f"{name}.npz", x=split.tensor.numpy(), y=split.labels.numpy())
    found = [
        loaded(Recipe(data=f"features:{tmp_path / name}.npz"), CPU).splits.train.tensor
        for name in "ab"
    ]
    assert not torch.equal(*found)
    assert torch.equal(found[0], load(f"features:{tmp_path}/a.npz").train.tensor)


@claim("keep_images", "keep_classes")
def test_keep_is_a_nested_share_of_each_class_or_of_the_classes():
    whole = points().train

    def rows(**keep) -> set[tuple]:
        return {tuple(x) for x in begun(**keep).splits.train.tensor.tolist()}

    half = begun(keep_images=0.5).splits.train
    assert half.labels.bincount().tolist() == [4] * 10
    assert (
        rows(keep_images=0.25) < rows(keep_images=0.5) < {tuple(x) for x in whole.tensor.tolist()}
    )
    few = begun(keep_classes=0.5).splits.train
    assert (len(few), len(few.classes)) == (40, 5)
    assert rows(keep_classes=0.3) < rows(keep_classes=0.5)
    assert rows(keep_images=0.5, seed=1) != rows(keep_images=0.5)
    three = begun(keep_images=3, keep_classes=4).splits.train
    assert three.labels.bincount().tolist() == [3] * 4


@claim("validate")
@pytest.mark.parametrize("seed", [0, 1, 4])
def test_validate_holds_out_another_fifth_of_the_classes_for_every_seed(seed):
    current = begun(validate=True, seed=seed)
    assert current.validation is not None
    held = {name for i, name in enumerate("abcdefghij") if (i + seed) % 5 == 4}
    assert set(current.validation.query.classes) == held
    assert set(current.splits.train.classes) == set("abcdefghij") - held
    assert begun().validation is None


@claim("validate_every")
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_validate_every_is_one_over_the_share_of_classes_held_out(seed):
    current = begun(validate=True, validate_every=2, seed=seed)
    assert current.validation is not None
    held = {name for i, name in enumerate("abcdefghij") if (i + seed) % 2 == 1}
    assert set(current.validation.query.classes) == held
    assert set(current.splits.train.classes) == set("abcdefghij") - held


@claim("trial")
def test_a_trial_looks_at_validation_classes_alone(tmp_path):
    recipe = replace(BASE, validate=True, trial=True)
    row = run(recipe, tmp_path, splits=points(), place=CPU).row
    assert row.metrics.last is None
    assert [(e.test, e.validation is not None) for e in row.epochs] == [(None, True)]


# ---- backbone


@claim("backbone", "backbone_options", "dim")
def test_the_backbone_is_made_by_its_name_options_and_dim():
    net = begun(backbone="mlp", backbone_options={"hidden": 5}, dim=3).backbone.module
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(6, 5), (5, 3)]
    net = begun(backbone="linear", dim=2).backbone.module
    assert [type(m) for m in net.trunk] == [nn.Flatten] if len(list(net.trunk.children())) else True
    assert (net.head.in_features, net.head.out_features) == (6, 2)


@pytest.fixture
def left(tmp_path) -> tuple[Path, dict[str, Tensor]]:
    """A backbone as an earlier run left it."""
    torch.manual_seed(3)
    net = models.make("mlp", {}, (6,), 4)
    nn.init.normal_(net.trunk[1].weight)  # type: ignore[index]
    torch.save(models.describe(net), tmp_path / "backbone.pt")
    return tmp_path / "backbone.pt", weights(net)


@claim("start")
def test_start_gives_the_trunk_and_without_training_the_head_too(left):
    path, old = left
    same = begun(start=str(path)).backbone.module.state_dict()
    assert {k: torch.equal(v, same[k]) for k, v in old.items()} == {
        "trunk.1.weight": True,
        "trunk.1.bias": True,
        "head.weight": False,
        "head.bias": True,  # both are 0
    }
    whole = begun(start=str(path), epochs=0).backbone.module.state_dict()
    assert all(torch.equal(v, whole[k]) for k, v in old.items())


@claim("freeze")
def test_freeze_trains_the_head_alone_and_batch_norm_rests():
    net = two()
    before = weights(net)
    begun(backbone=net, freeze=True, steps=5)
    assert changed(net, before) == {"head.weight", "head.bias"}
    net = two()
    begun(backbone=net, steps=5)
    assert "trunk.1.running_mean" in changed(net, before)
    named = begun(freeze=True, steps=5).backbone.module
    fresh = begun().backbone.module.state_dict()
    assert changed(named, fresh) == {"head.weight", "head.bias"}


@claim("tail", "tail_crops", "tail_bits")
def test_a_tail_learns_from_so_many_stored_crops_of_so_many_bits():
    net = {"weights": "none", "batch_norm": "frozen"}
    changes = {"backbone": "timm:test_efficientnet", "backbone_options": net, "size": 32}
    changes |= {"tail": 1, "tail_crops": 3, "tail_bits": 8, "augment": "crop-flip"}
    changes |= {"epochs": 2}
    current = begun(pictures(), steps=2, **changes)
    assert current.tail
    assert [len(maps) for maps in (current.tail.centres, *current.tail.augmented)] == [48, 3 * 24]
    assert current.tail.centres.bits == 8
    moved = changed(
        current.backbone.module, begun(pictures(), **changes).backbone.module.state_dict()
    )
    stages = {name.split(".")[3] for name in moved if ".blocks." in name}
    assert stages == {"4"}  # of five


@claim("head_start", "head_shrinkage", "head_options")
@pytest.mark.parametrize(
    ("form", "shrinkage", "options"),
    [("pca-whitened", 1.0, {}), ("whitened", 3.0, {}), ("lfda", 2.0, {"neighbours": 3})],
)
def test_a_head_starts_as_a_closed_form_of_the_training_images(form, shrinkage, options):
    current = begun(
        backbone="linear",
        head_start=form,
        head_shrinkage=shrinkage,
        head_options=options,
        epochs=0,
    )
    split = current.splits.train
    known = {"shrinkage": shrinkage} if shrinkage != 1.0 else {}
    estimator = closed.ClosedForm(form, dim=4, **known, **({"options": options} if options else {}))
    expected = estimator.fit(split.tensor.numpy(), split.labels.numpy())
    found = current.embed(current.splits.query)
    theirs = torch.from_numpy(expected.transform(current.splits.query.tensor.numpy())).float()
    torch.testing.assert_close(found, theirs, rtol=1e-3, atol=1e-3)


@claim("head_power")
def test_head_power_is_of_the_features():
    current = begun(backbone="linear", head_power=0.5)
    head, x = current.deployed.head, current.splits.query.tensor
    layer = next(m for m in head.modules() if isinstance(m, nn.Linear))
    torch.testing.assert_close(
        current.embed(current.splits.query), layer(x.sign() * x.abs().sqrt())
    )


@claim("head_dropout")
def test_head_dropout_leaves_out_inputs_while_the_head_learns_alone():
    current = begun(backbone="linear", head_dropout=0.5)
    (dropout,) = [m for m in current.backbone.module.head.modules() if isinstance(m, nn.Dropout)]
    assert dropout.p == 0.5
    again = [current.embed(current.splits.query) for _ in range(2)]
    assert torch.equal(*again)
    current.backbone.train()
    x = current.inputs[torch.arange(50)]
    assert not torch.equal(current.backbone(x), current.backbone(x))


@claim("start_decay")
def test_start_decay_draws_weights_back_to_their_start():
    """w <- w + r d (w_0 - w) after each step at the rate r: of the first step 1 - r d remains."""
    settings: Any = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1}
    start = weights(begun(**settings).backbone.module)
    free = begun(**settings, steps=1).backbone.module.state_dict()
    drawn = begun(**settings, start_decay=2.0, steps=1).backbone.module.state_dict()
    for name, value in start.items():
        expected = value + (1 - 0.1 * 2.0) * (free[name] - value)
        torch.testing.assert_close(drawn[name], expected)


@claim("average")
def test_average_evaluates_a_running_average_of_the_weights():
    settings: Any = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1}
    steps = [weights(begun(**settings, steps=n).backbone.module) for n in range(3)]
    current = begun(**settings, average=0.75, steps=2)
    found = current.deployed.state_dict()
    for name in steps[0]:
        once = 0.75 * steps[0][name] + 0.25 * steps[1][name]
        torch.testing.assert_close(found[name], 0.75 * once + 0.25 * steps[2][name])
    assert weights(current.backbone.module).keys() == found.keys()


def test_the_average_is_also_of_what_batch_norm_has_seen():
    settings: Any = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1}
    name = "trunk.1.running_mean"
    steps = [weights(begun(**settings, backbone=two(), steps=n).backbone.module) for n in range(3)]
    found = begun(**settings, backbone=two(), average=0.75, steps=2).deployed.state_dict()
    once = 0.75 * steps[0][name] + 0.25 * steps[1][name]
    torch.testing.assert_close(found[name], 0.75 * once + 0.25 * steps[2][name])


# ---- loss


@claim("loss", "loss_options")
def test_the_loss_is_made_by_its_name_and_options():
    loss = begun(loss="triplet", loss_options={"margin": 0.7}).loss
    assert isinstance(loss, losses.Triplet)
    assert loss.margin == 0.7


@claim("loss_start")
def test_loss_start_puts_proxies_at_the_means_of_their_classes():
    settings: Any = {"loss": "proxy-anchor", "backbone": "linear"}
    start: Any = begun(**settings, loss_start="means")
    x, y = unit(start.embed(start.splits.train)), start.splits.train.labels
    means = torch.stack([x[y == c].mean(0) for c in range(10)])
    (proxies,) = start.loss.parameters()
    torch.testing.assert_close(unit(proxies.detach()), unit(means))
    (others,) = begun(**settings).loss.parameters()
    assert not torch.allclose(unit(others.detach()), unit(means), atol=0.1)


@claim("miner")
def test_the_miner_chooses_what_the_loss_looks_at():
    loss = Linear()
    current = begun(loss=loss, miner="pml:PairMarginMiner", steps=1)
    net = begun(miner="pml:PairMarginMiner", loss=Linear()).backbone
    first = current.first_batch
    mined = current.miner(net(current.inputs[first]), current.labels[first])  # type: ignore[misc]
    _, seen = loss.tuples  # before the first step a run tries whether the loss hears the miner
    assert len(mined) == len(seen) == 4
    assert all(torch.equal(a, b) for a, b in zip(mined, seen, strict=True))
    assert begun().miner is None
    for metric, cosine in (("euclidean", False), ("cosine", True), ("", False)):
        miner: Any = begun(miner="spanning-tree", loss="triplet", metric=metric).miner
        assert (miner.form is unit) == cosine


@claim("memory")
def test_memory_holds_past_embeddings_as_references():
    current = begun(memory=24, steps=1)
    assert isinstance(current.loss, losses.Memory)
    assert len(current.loss.past) == 16
    assert len(begun(memory=24, steps=3).loss.past) == 24
    plain, with_memory = (begun(memory=m, steps=1).backbone.module for m in (0, 24))
    assert not changed(plain, weights(with_memory))  # the first batch has no past
    plain, with_memory = (begun(memory=m, steps=2).backbone.module for m in (0, 24))
    assert changed(plain, weights(with_memory))


@claim("chunk")
def test_chunk_embeds_in_pieces_with_the_gradients_of_the_whole():
    def trained(chunk: int) -> tuple[Two, list[int]]:
        net = two()
        net.trunk = nn.Sequential(nn.Linear(6, 8))  # batch norm and dropout are not of the whole
        begun(backbone=net, chunk=chunk, optimizer="sgd", lr=1.0, steps=1)
        return net, net.sizes[1:]  # the first is a look at one picture

    whole, all_at_once = trained(0)
    pieces, sizes = trained(5)
    assert set(all_at_once) == {16}
    assert max(sizes) == 5
    for one, other in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# ---- batches


@claim("sampler", "batch", "per_class")
def test_batches_are_drawn_by_sampler_batch_and_per_class():
    current = begun(batch=12, per_class=3)
    labels = current.splits.train.labels[current.batches]
    assert labels.shape[1] == 12
    assert all(batch.unique(return_counts=True)[1].tolist() == [3] * 4 for batch in labels)
    labels = begun(sampler="triplets", batch=12, loss="triplet").splits.train.labels
    batches = begun(sampler="triplets", batch=12, loss="triplet").batches
    anchor, positive, negative = (labels[batches][:, i::3] for i in range(3))
    assert (anchor == positive).all()
    assert (anchor != negative).all()
    mixed = begun(sampler="random", loss="cross-entropy").batches
    assert mixed.flatten().unique().numel() == mixed.numel()


@claim("augment")
def test_pictures_are_augmented_while_training_alone():
    current = begun(pictures(), backbone="linear", augment="shift", batch=8, per_class=2)
    indices = torch.arange(8)
    random = torch.Generator().manual_seed(0)
    still = current.prepare(current.inputs, indices)
    assert not torch.equal(current.prepare(current.inputs, indices, random), still)
    plain = begun(pictures(), backbone="linear", batch=8, per_class=2)
    assert torch.equal(still, plain.prepare(plain.inputs, indices))
    assert torch.equal(plain.prepare(plain.inputs, indices, random), still)


@claim("size")
def test_size_is_the_side_of_the_pictures():
    current = begun(pictures(), backbone="linear", size=8, batch=8, per_class=2)
    assert current.prepare(current.inputs, torch.arange(2)).shape == (2, 1, 8, 8)
    assert current.backbone.module.head.in_features == 64


# ---- how long


def epochs_of(current: Run) -> list[int]:
    """The steps at which an epoch ends."""
    return [step.step for step in train(current) if current.epoch_ends]


@claim("epochs", "steps")
def test_a_run_is_so_many_passes_or_steps_in_equal_parts():
    assert epochs_of(begun(epochs=3)) == [5, 10, 15]  # 80 images in batches of 16
    assert epochs_of(Run(replace(BASE, epochs=3, steps=7), points(), "cpu")) == [2, 4, 7]
    assert begun(epochs=0).total == 0


@claim("evaluate_every")
@pytest.mark.parametrize(("every", "due"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_evaluate_every_and_the_last_epoch_are_evaluated(tmp_path, every, due):
    recipe = replace(BASE, epochs=5, evaluate_every=every)
    row = run(recipe, tmp_path, splits=points(), place=CPU).row
    assert [epoch.epoch for epoch in row.epochs] == [1, 2, 3, 4, 5]
    assert [epoch.epoch for epoch in row.epochs if epoch.test] == due


# ---- the step


def a_step(number: int = 1, **changes) -> tuple[Run, list[tuple[str, Tensor, Tensor, Tensor]]]:
    """Under a loss of known gradient: of each weight its name, old and new value and gradient."""
    net, loss = two(), changes.pop("loss", None) or Linear()
    net.trunk = nn.Sequential(nn.Linear(6, 8))
    current = begun(backbone=net, loss=loss, **changes)
    named = [(f"net.{k}", p) for k, p in net.named_parameters()]
    named += [(f"loss.{k}", p) for k, p in loss.named_parameters()]
    gradients: dict[str, Tensor] = {}
    for name, parameter in named:
        parameter.register_hook(partial(gradients.__setitem__, name))
    going = train(current)
    for _ in range(number):
        old = {name: parameter.detach().clone() for name, parameter in named}
        next(going)
    return current, [(name, old[name], p.detach(), gradients[name]) for name, p in named]


SGD = {"optimizer": "sgd", "momentum": 0.0}


@claim("lr")
def test_lr_is_the_length_of_a_step():
    for name, old, new, gradient in a_step(lr=0.1, **SGD)[1]:
        if name != "loss.own":
            torch.testing.assert_close(new, old - 0.1 * gradient)


@claim("loss_lr")
@pytest.mark.parametrize(("loss_lr", "expected"), [(0.0, 0.25), (0.5, 0.5)])
def test_loss_lr_is_of_what_the_loss_asks_a_rate_for(loss_lr, expected):
    rates = {"loss.own": expected}
    for name, old, new, gradient in a_step(lr=0.1, loss_lr=loss_lr, **SGD)[1]:
        torch.testing.assert_close(new, old - rates.get(name, 0.1) * gradient)


@claim("backbone_lr")
@pytest.mark.parametrize(("backbone_lr", "expected"), [(0.0, 0.1), (0.02, 0.02)])
def test_backbone_lr_is_of_all_but_the_last_layer(backbone_lr, expected):
    for name, old, new, gradient in a_step(lr=0.1, backbone_lr=backbone_lr, **SGD)[1]:
        rate = {"net.trunk": expected, "loss.own": 0.25}.get(name.rpartition(".0")[0] or name, 0.1)
        torch.testing.assert_close(new, old - rate * gradient)


@claim("weight_decay")
def test_weight_decay_is_of_every_parameter():
    for name, old, new, gradient in a_step(lr=0.1, weight_decay=0.3, **SGD)[1]:
        rate = 0.25 if name == "loss.own" else 0.1
        torch.testing.assert_close(new, old - rate * (gradient + 0.3 * old))


@claim("momentum")
def test_momentum_keeps_a_share_of_the_step_before():
    """The gradient of the loss's own weights is 1 in each step: they go by 1, then by 1 + m."""
    for momentum in (0.0, 0.9):
        moved = a_step(2, lr=0.1, optimizer="sgd", momentum=momentum)[1]
        (own,) = [(old, new) for name, old, new, _ in moved if name == "loss.free"]
        torch.testing.assert_close(own[1], own[0] - 0.1 * (1 + momentum))


@claim("optimizer", "eps")
def test_optimizer_and_its_eps():
    """Adam's first step is lr g / (|g| + eps), of torch's own eps almost lr."""
    for eps, length in ((0.0, 0.1), (1.0, 0.05)):
        moved = a_step(lr=0.1, eps=eps)[1]
        (free,) = [(old, new) for name, old, new, _ in moved if name == "loss.free"]
        torch.testing.assert_close(free[0] - free[1], torch.full((3,), length))
    kinds = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop", "radam": "RAdam"}
    for name, kind in kinds.items():
        assert type(begun(optimizer=name).optimizer.optimizer).__name__ == kind


@claim("schedule", "warmup")
def test_schedule_and_warmup_are_factors_of_all_rates():
    recipe = replace(BASE, schedule="cosine", warmup=4, steps=20)
    factors = [(step + 1) / 4 for step in range(4)]
    factors += [(1 + math.cos(math.pi * step / 20)) / 2 for step in range(4, 20)]
    assert [rate_factor(recipe, step, 20) for step in range(20)] == pytest.approx(factors)
    current, rates = Run(replace(recipe, lr=0.5), points(), "cpu", loss=Linear()), []
    for _ in train(current):
        rates.append([group["lr"] for group in current.optimizer.param_groups])
    base = [group["rate"] for group in current.optimizer.param_groups]
    expected = [[rate * factor for rate in base] for factor in factors]
    assert rates == [pytest.approx(each) for each in expected]
    assert {
        rate_factor(replace(recipe, schedule="constant", warmup=0), s, 20) for s in range(20)
    } == {1.0}


@claim("head_first")
def test_head_first_rests_the_trunk_and_its_batch_norm_to_the_step():
    """Of 3 epochs of 5 steps the first is the head's: after 5 steps the trunk is as it was."""
    before = weights(two())
    for steps in range(1, 8):
        net = two()
        current = Run(replace(BASE, epochs=3, head_first=1), points(), "cpu", backbone=net)
        going = train(current)
        for _ in range(steps):
            next(going)
        moved = changed(net, before)
        assert {"head.weight", "head.bias"} <= moved
        assert any(name.startswith("trunk.") for name in moved) == (steps > 5)
        assert ("trunk.1.num_batches_tracked" in moved) == (steps > 5)


@claim("clip")
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_clip_shortens_the_gradient_of_the_backbone_alone(clip):
    """At a rate of 1 the step is the gradient: no longer than `clip`, and its way is the same."""
    moved = a_step(lr=1.0, clip=clip, loss=Linear(size=100.0), **SGD)[1]
    net = [(old - new, gradient) for name, old, new, gradient in moved if name.startswith("net.")]
    step, gradient = (torch.cat([pair[i].flatten() for pair in net]) for i in (0, 1))
    assert gradient.norm() > 100
    torch.testing.assert_close(step, gradient * (clip / gradient.norm() if clip else 1.0))
    own = next(old - new for name, old, new, _ in moved if name == "loss.free")
    torch.testing.assert_close(own, torch.full((3,), 100.0))
    gentle = a_step(lr=1.0, clip=1e6, loss=Linear(size=100.0), **SGD)[1]
    for name, old, new, gradient in gentle:
        if name.startswith("net."):
            torch.testing.assert_close(old - new, gradient)


# ---- evaluation


class Skewed(nn.Module):
    """Embeddings whose nearest neighbours depend on what near means."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 4.0, 0.2, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :4] * self.scale * x[:, 4:5].exp() + 2


@claim("metric")
@pytest.mark.parametrize("metric", ["cosine", "inner", "euclidean"])
def test_metric_is_what_near_means_in_every_number(metric):
    splits = points(shared=True, spread=1.0)
    current = begun(splits, backbone=Skewed(), metric=metric, epochs=0)
    assert nearness(current) == metric
    query, train_images = (current.embed(s) for s in (splits.query, splits.train))
    labels, known = splits.query.labels, splits.train.labels
    found = examine(current, current.splits, final=True)
    own = recalls(query, labels, ks=(1, 2, 4, 8), metric=metric)
    assert {k: found[k] for k in own} == own
    inner = recalls(query, labels, train_images, known, ks=(1, 2, 4, 8), metric=metric)
    assert {k: found[f"in_train.{k}"] for k in inner} == inner
    near = knn_accuracy(query, labels, train_images, known, NEIGHBOURS, metric=metric)
    assert found["knn_accuracy"] == near
    spread = scattering(unit(query) if metric == "cosine" else query, labels)
    assert {k: found[k] for k in spread} == spread
    assert found["norm"] == pytest.approx(query.norm(dim=1).mean().item())


def test_the_numbers_of_two_metrics_differ():
    """Else the claim above would hold of a metric that nobody listens to."""
    splits = points(shared=True, spread=1.0)
    seen = [
        examine(begun(splits, backbone=Skewed(), metric=m, epochs=0), splits, final=True)
        for m in ("cosine", "inner", "euclidean")
    ]
    for name in ("recall@1", "in_train.recall@1", "knn_accuracy", "map@r"):
        assert len({metrics[name] for metrics in seen}) == 3, name
    query = begun(splits, backbone=Skewed(), epochs=0).embed(splits.query)
    whole, sphere = (scattering(x, splits.query.labels) for x in (query, unit(query)))
    assert all(whole[k] != sphere[k] for k in whole)


def test_without_a_metric_near_is_what_the_loss_makes_near():
    for loss in ("contrastive", "triplet", "proxy-gml", "n-pair"):
        assert nearness(begun(loss=loss, epochs=0)) == begun(loss=loss, epochs=0).loss.metric


@claim("refine")
def test_refine_adds_numbers_of_the_refined_test_set(tmp_path):
    recipe = replace(BASE, loss="graph-refinement", refine="gallery")
    row = run(recipe, tmp_path, splits=points(), place=CPU).row
    assert row.metrics.refined is not None
    assert "recall@1" in row.metrics.refined
    plain = run(replace(recipe, refine=""), tmp_path, splits=points(), place=CPU).row
    assert plain.metrics.refined is None
    assert plain.metrics.last == row.metrics.last


@claim("precision")
@pytest.mark.parametrize(
    ("precision", "kind"), [("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_that_of_the_layers(precision, kind):
    net, seen = two(), set()
    net.trunk[0].register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    current = begun(backbone=net, precision=precision, steps=1)
    assert seen == {kind}
    assert current.embed(current.splits.query).dtype == torch.float32


# ---- chance


@claim("seed")
def test_seed_is_of_weights_batches_and_noise():
    def told(seed: int) -> tuple:
        net = two()
        current = begun(backbone=net, seed=seed, steps=3)
        named = begun(seed=seed)
        return weights(named.backbone.module), current.batches.tolist(), tuple(net.noise)

    one, same, other = told(0), told(0), told(1)
    assert one[1:] == same[1:]
    assert not any(not torch.equal(v, same[0][k]) for k, v in one[0].items())
    assert any(not torch.equal(v, other[0][k]) for k, v in one[0].items())
    assert one[1] != other[1]
    assert not set(one[2]) & set(other[2])


def test_every_step_has_noise_of_its_own():
    net = two()
    begun(backbone=net, epochs=2, steps=0)
    current = Run(replace(BASE, epochs=2), points(), "cpu", backbone=net)
    for _ in train(current):
        torch.rand(5)  # what others draw between two steps changes nothing
    assert len(net.noise) == len(set(net.noise)) == current.total
    again = two()
    for _ in train(Run(replace(BASE, epochs=2), points(), "cpu", backbone=again)):
        pass
    assert again.noise == net.noise
    assert len({noise_seed(seed, step) for seed in range(20) for step in range(200)}) == 4000


def test_every_step_is_augmented_anew():
    settings = {"backbone": "linear", "augment": "shift", "batch": 8, "per_class": 2}
    current, seen = begun(pictures(), **settings), []
    real = current.prepare
    current.prepare = lambda *words: seen.append(real(*words)) or seen[-1]  # type: ignore[method-assign]
    current.next_batch = lambda: torch.arange(8)  # type: ignore[method-assign]
    for _ in train(current):
        pass
    assert len(seen) == current.total > 1
    assert not any(torch.equal(one, other) for one, other in pairwise(seen))


@claim("epochs", "batch")
def test_each_epoch_draws_its_own_batches():
    current = begun(epochs=3)
    drawn = []
    going = train(current)
    for _ in range(current.total):
        drawn.append(current.next_batch().tolist())
        next(going)
    a_pass = len(current.batches)
    passes = [drawn[i : i + a_pass] for i in range(0, current.total, a_pass)]
    assert len(passes) == 3
    assert passes == [current.batches_of(epoch).tolist() for epoch in range(3)]
    assert len({str(each) for each in passes}) == 3


@claim("patience")
def test_patience_is_so_many_validations_without_a_gain(tmp_path, monkeypatch):
    values = iter([0.2, 0.5, 0.4, 0.5, 0.3, 0.9])  # no better than 0.5 twice in a row
    plain = engine.examine

    def examined(current, splits, final=False):
        found = plain(current, splits, final)
        if splits is current.validation:
            found["recall@1"] = 0.3 if final else next(values)
        return found

    monkeypatch.setattr(engine, "examine", examined)
    recipe = replace(BASE, epochs=6, validate=True, patience=2)
    data = points()
    row = run(recipe, tmp_path, place=CPU, splits=data).row
    assert len(row.epochs) == 4
    assert row.metrics.validated
    assert row.metrics.validated["epoch"] == 2
