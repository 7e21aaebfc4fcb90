"""Starts and holds of a run's head: closed forms, decay towards the start, running averages."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nearkin import models
from nearkin.closed import FORMS, ClosedForm
from nearkin.data import load
from nearkin.models.model import Model
from nearkin.runs import head_start
from nearkin.runs.checkpoint import restore, save
from nearkin.runs.engine import Place, run
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

CPU = Place(device="cpu", threads=1)


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> str:
    """20 classes of 12 points around a centre each, 0 or more, in 16 dimensions."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(20), 12)
    x = random.gamma(1.0, size=(20, 16))[y] + random.gamma(1.0, size=(240, 16)) * np.arange(1, 17)
    path = tmp_path_factory.mktemp("features") / "points.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return f"features:{path}"


def small(data: str, **changes: Any) -> Recipe:
    base = Recipe(data=data, backbone="linear", dim=8, loss="multi-similarity", batch=20)
    return replace(base, **{"epochs": 3, "head_start": "whitened", **changes})


def done(recipe: Recipe) -> Run:
    """The run, at its end."""
    one = Run(recipe, load(recipe.data), "cpu")
    for _ in train(one):
        pass
    return one


def closed(recipe: Recipe, form: str, **settings: Any) -> Tensor:
    """Embeddings of the query set by the estimator, fitted to the training set."""
    splits = Run(recipe, load(recipe.data), "cpu").splits
    fitted = ClosedForm(form, **settings).fit(splits.train.tensor, splits.train.labels)
    return torch.from_numpy(fitted.transform(splits.query.tensor))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_without_training_the_head_is_the_closed_form(form, features):
    dim = 16 if form == "power" else 8
    shrinks = {} if form in ("power", "pca") else {"head_shrinkage": 0.3}
    steps = {"steps": 3} if form == "nca" else {}  # more, and rounding sends L-BFGS elsewhere
    recipe = small(features, head_start=form, epochs=0, head_power=0.5, dim=dim, **shrinks)
    run = done(replace(recipe, head_options=steps))
    shrinkage = shrinks.get("head_shrinkage")
    wanted = closed(recipe, form, dim=dim, power=0.5, shrinkage=shrinkage, options=steps)
    torch.testing.assert_close(run.embed(run.splits.query), wanted, rtol=1e-3, atol=1e-3)


def test_without_training_mlp_is_the_closed_form(features):
    recipe = small(features, backbone="mlp", epochs=0, head_power=0.5)
    run = done(recipe)
    wanted = closed(recipe, "whitened", dim=8, power=0.5)
    torch.testing.assert_close(run.embed(run.splits.query), wanted, rtol=1e-3, atol=1e-3)


def in_unit_slices(x: Tensor, *sizes: int) -> Tensor:
    return torch.cat([nn.functional.normalize(part) for part in x.split(sizes, 1)], 1)


def test_slices_of_a_staged_head_start_as_the_closed_form(features):
    options = {"stages": 3}
    recipe = small(features, backbone_options=options, epochs=0, head_power=0.5, loss="hdc")
    run = done(recipe)
    wanted = in_unit_slices(closed(recipe, "whitened", dim=8, power=0.5), 2, 2, 4)
    torch.testing.assert_close(run.embed(run.splits.query), wanted, rtol=1e-3, atol=1e-3)


def test_a_staged_head_that_starts_whitened_learns_and_is_kept_as_it_was_made(features, tmp_path):
    recipe = small(features, backbone_options={"stages": 2}, loss="hdc", head_dropout=0.2)
    result = run(recipe, tmp_path, place=CPU)
    kept = result.model.backbone
    plain = models.make("linear", {"stages": 2}, (16,), 8)
    assert [*kept.state_dict()] == [*plain.state_dict()]
    with np.load(result.folder / "embeddings.npz") as file, torch.no_grad():
        query = load(features).query.tensor
        torch.testing.assert_close(kept(query), torch.from_numpy(file["x"]))
        start = done(replace(recipe, epochs=0)).deployed
        assert not torch.allclose(kept(query), start(query), atol=0.01)


def test_levels_of_a_network_start_each_as_its_own_closed_form():
    recipe = Recipe(
        data="mnist-5k",
        backbone="timm:test_resnet",
        backbone_options={"weights": "none", "stages": 2, "norm": "layer"},
        head_start="nca",
        head_options={"steps": 1},
        loss="hdc",
        keep_images=0.02,
        size=32,
        dim=5,
        epochs=0,
    )
    one = Run(recipe, load("mnist-5k"), "cpu")
    head = one.backbone.module.head[-1]
    assert [layer[0].coordinates.shape[0] for layer in head.maps] == list(head.levels)
    assert [layer[-1].out_features for layer in head.maps] == [2, 3]
    found = one.embed(one.splits.query.select(torch.arange(20)))
    torch.testing.assert_close(found.square().sum(1), torch.full((20,), 2.0))


def test_features_as_they_are_take_a_power(features):
    recipe = small(features, backbone="identity", dim=16, epochs=0, head_start="orthogonal")
    run = done(replace(recipe, head_power=0.5))
    query = run.splits.query
    torch.testing.assert_close(run.embed(query), query.tensor.sqrt())


def test_where_classes_validate_the_start_knows_the_others_alone(features):
    recipe = small(features, epochs=0, validate=True, seed=2)
    run = done(recipe)
    assert len(run.splits.train.classes) == 8
    wanted = closed(recipe, "whitened", dim=8)
    torch.testing.assert_close(run.embed(run.splits.query), wanted, rtol=1e-3, atol=1e-3)
    whole = closed(replace(recipe, validate=False), "whitened", dim=8)
    assert not torch.allclose(wanted, whole, atol=0.1)


def test_shrinkage_by_formula(features):
    recipe = small(features, epochs=0, head_options={"shrinkage": "oas"})
    run = done(recipe)
    wanted = closed(recipe, "whitened", dim=8, shrinkage="oas")
    torch.testing.assert_close(run.embed(run.splits.query), wanted, rtol=1e-3, atol=1e-3)


def test_the_new_head_of_a_network_starts_from_its_features():
    """Embedded once, unaugmented, by the network as it is before the first step."""
    recipe = Recipe(
        data="mnist-5k",
        backbone="timm:test_resnet",
        backbone_options={"weights": "none"},
        head_start="whitened",
        head_power=0.5,
        keep_images=0.02,
        size=32,
        dim=16,
        epochs=0,
        augment="affine",
    )
    splits = load("mnist-5k")
    one = Run(recipe, splits, "cpu")
    net = one.backbone.module.eval()
    with torch.no_grad():
        seen, asked = (
            net.trunk(one.prepare(part.inputs, torch.arange(len(part)))).numpy()
            for part in (one.splits.train, one.splits.query.select(torch.arange(50)))
        )
    form = ClosedForm("whitened", 16, power=0.5).fit(seen, one.splits.train.labels)
    found = one.embed(one.splits.query.select(torch.arange(50)))
    torch.testing.assert_close(found, torch.from_numpy(form.transform(asked)), rtol=1e-3, atol=1e-3)


def test_a_new_head_on_the_trunk_of_another_run(features, tmp_path):
    """With epochs 0 too, where without a start of its own the whole of that run would stay."""
    first = run(small(features, backbone="mlp", epochs=1), tmp_path, place=CPU)
    folder = tmp_path / "runs" / first.row.hash
    recipe = small(features, backbone="mlp", epochs=0, start=str(folder), dim=4)
    second = done(recipe)
    trunk = Model.load(folder).backbone.trunk
    with torch.no_grad():
        seen, asked = (
            trunk(part.tensor).numpy() for part in (second.splits.train, second.splits.query)
        )
    form = ClosedForm("whitened", 4).fit(seen, second.splits.train.labels)
    wanted = torch.from_numpy(form.transform(asked))
    torch.testing.assert_close(second.embed(second.splits.query), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": "mlp"},
        {"head_power": 0.5, "head_dropout": 0.3},
        {"head_start": "lda", "average": 0.9},
        {"head_start": "orthogonal", "head_dropout": 0.3},
    ],
)
def test_what_is_kept_is_one_linear_layer_that_embeds_alike(changes, features, tmp_path):
    recipe = small(features, **changes)
    result = run(recipe, tmp_path, place=CPU)
    folder = tmp_path / "runs" / result.row.hash
    kept = Model.load(folder).backbone
    plain = models.make(recipe.backbone, {"power": recipe.head_power}, (16,), 8)
    assert [*kept.state_dict()] == [*plain.state_dict()]
    with np.load(folder / "embeddings.npz") as file, torch.no_grad():
        query = load(features).query.tensor
        torch.testing.assert_close(kept(query), torch.from_numpy(file["x"]))


@pytest.mark.parametrize("backbone", ["linear", "mlp"])
def test_what_learns_nothing_is_made_once_to_the_same_end(backbone, features, monkeypatch):
    recipe = small(features, backbone=backbone, head_power=0.5, head_dropout=0.3)
    fast = done(recipe)
    assert fast.seen is not None
    monkeypatch.setattr("nearkin.runs.run.LARGEST", 0)
    slow = done(recipe)
    assert slow.seen is None
    query = fast.splits.query
    torch.testing.assert_close(fast.embed(query), slow.embed(query), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dropout": 0.3, "average": 0.9, "start_decay": 10.0},
        {"backbone": "mlp", "head_power": 0.5, "average": 0.5},
    ],
)
def test_a_run_goes_on_bit_for_bit(changes, features, tmp_path):
    recipe = small(features, **changes)
    whole = done(recipe)
    first = Run(recipe, load(features), "cpu")
    steps = train(first)
    for _ in range(7):
        next(steps)
    save(first, tmp_path / "checkpoint.pt")
    head_start.maps.clear()
    second = Run(recipe, load(features), "cpu")
    restore(second, tmp_path / "checkpoint.pt")
    for _ in train(second):
        pass
    query = whole.splits.query
    assert torch.equal(whole.embed(query), second.embed(query))


def test_a_map_is_made_once_for_all_runs_that_have_it(features, monkeypatch):
    made = []
    monkeypatch.setattr(head_start, "maps", head_start.OrderedDict())
    monkeypatch.setattr(
        head_start,
        "solve",
        lambda *a, _solve=head_start.solve, **k: made.append(a) or _solve(*a, **k),
    )
    base = small(features, epochs=0)
    for same in (base, replace(base, seed=1), replace(base, dim=4), replace(base, lr=1.0)):
        Run(same, load(features), "cpu")
    assert len(made) == 1
    for other in (
        replace(base, head_power=0.5),
        replace(base, head_shrinkage=0.5),
        replace(base, validate=True),
        replace(base, validate=True, seed=1),
        replace(base, keep_images=0.5),
        replace(base, keep_images=0.5, seed=1),
        replace(base, backbone="mlp"),
        replace(base, head_start="lfda"),
        replace(base, head_start="lfda", head_options={"neighbours": 3}),
    ):
        before = len(made)
        Run(other, load(features), "cpu")
        assert len(made) == before + 1, other
    assert len(head_start.maps) == head_start.REMEMBERED


def test_what_a_head_reads_is_made_once_for_all_runs_of_one_start(features, monkeypatch):
    monkeypatch.setattr(head_start, "seen", head_start.OrderedDict())
    base = small(features)

    def read(recipe):
        return Run(recipe, load(features), "cpu").seen

    first = read(base)
    assert first is not None
    for same in (base, replace(base, seed=1, lr=1.0), replace(base, dim=4, head_dropout=0.5)):
        assert read(same) is first
    others = [
        replace(base, head_power=0.5),
        replace(base, head_shrinkage=0.5),
        replace(base, validate=True),
        replace(base, precision="bf16"),
        replace(base, head_start="orthogonal"),
    ]
    for other in others:
        assert read(other) is not first, other
    monkeypatch.setattr(head_start, "SMALL", first.nbytes - 1)
    head_start.seen.clear()
    assert read(base) is not read(base)  # too large to be kept


def test_one_of_several_processes_reads_its_features_even_where_it_remembers_them(features):
    recipe = small(features)
    splits = load(features)

    def reads(**several: bool) -> int:
        backbone = models.make("linear", {}, (16,), 8)
        read = []
        key = head_start.begin(
            recipe,
            backbone,
            splits.train.labels,
            lambda part: read.append(part) or splits.train.tensor,
            lambda: "data",
            **several,
        )
        assert bool(key) == several.get("remember", True)
        return len(read)

    head_start.maps.clear()
    head_start.sets.clear()
    assert [reads(), reads(), reads(remember=False), reads(remember=False)] == [1, 0, 1, 1]


def test_a_survey_is_what_the_backbone_makes_of_the_training_images(features):
    for changes in ({}, {"head_dropout": 0.5}, {"backbone": "mlp"}, {"head_start": "orthogonal"}):
        run = Run(small(features, **changes), load(features), "cpu")
        for _ in train(run):
            pass
        assert run.seen is not None
        assert torch.equal(run.survey(), run.embed_by(run.backbone.module, run.splits.train))


def test_another_data_set_has_another_map(features, tmp_path):
    with np.load(features.removeprefix("features:")) as file:
        np.savez(tmp_path / "points.npz", x=file["x"][::-1] ** 2, y=file["y"])
    other = f"features:{tmp_path / 'points.npz'}"
    for data in (features, other):
        recipe = small(data, epochs=0)
        found = done(recipe)
        wanted = closed(recipe, "whitened", dim=8)
        torch.testing.assert_close(found.embed(found.splits.query), wanted, rtol=1e-3, atol=1e-3)


def weights(run: Run) -> list[Tensor]:
    return [p.detach().clone() for p in run.backbone.module.parameters()]


def test_decay_towards_the_start(features):
    """w <- w + r λ (w_0 - w) after each step of plain gradient descent."""
    recipe = small(features, optimizer="sgd", lr=0.1, momentum=0.0, schedule="cosine")
    held = Run(replace(recipe, start_decay=2.0), load(features), "cpu")
    plain = Run(recipe, load(features), "cpu")
    start = weights(plain)
    for step, _ in zip(range(5), train(held), strict=False):
        steps = train(plain)
        next(steps)
        rate = plain.optimizer.param_groups[0]["lr"]
        with torch.no_grad():
            for p, first in zip(plain.backbone.module.parameters(), start, strict=True):
                p += rate * 2.0 * (first - p)
        assert plain.step == held.step == step + 1
    for a, b in zip(weights(plain), weights(held), strict=True):
        torch.testing.assert_close(a, b)
    far = done(replace(recipe, start_decay=0.0, lr=1.0))
    near = done(replace(recipe, start_decay=1e6, lr=1.0))
    away = [
        max(float((a - b).abs().max()) for a, b in zip(weights(r), start, strict=True))
        for r in (near, far)
    ]
    assert away[0] == 0 < away[1]


def test_decay_is_of_the_backbone_and_not_of_the_loss(features):
    recipe = small(features, loss="proxy-anchor", start_decay=1e6)
    run = Run(recipe, load(features), "cpu")
    before = [p.detach().clone() for p in run.loss.parameters()]
    for _ in train(run):
        pass
    assert not torch.equal(before[0], next(iter(run.loss.parameters())))


def test_the_average_is_evaluated_and_begins_at_the_start(features):
    recipe = small(features, average=0.8, lr=0.01)
    one, plain = (Run(r, load(features), "cpu") for r in (recipe, replace(recipe, average=0.0)))
    average = weights(plain)
    for _, _ in zip(train(one), train(plain), strict=True):
        average = [0.8 * a + 0.2 * w for a, w in zip(average, weights(plain), strict=True)]
    kept: Any = one.hold.of(one.backbone.module)
    for a, b in zip(average, kept.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach())
    for a, b in zip(weights(one), weights(plain), strict=True):
        assert torch.equal(a, b)  # training itself goes on as ever
    query = one.splits.query
    assert not torch.allclose(one.embed(query), plain.embed(query))
    torch.testing.assert_close(one.embed(query), one.deployed(query.tensor).detach())


def test_the_average_holds_the_statistics_of_batch_norm_too():
    recipe = Recipe(
        data="mnist-5k",
        backbone="timm:test_resnet",
        backbone_options={"weights": "none"},
        average=0.5,
        keep_images=0.02,
        size=32,
        dim=16,
        epochs=1,
        batch=20,
    )
    one = done(recipe)
    net = one.backbone.module
    name = next(n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d))
    now, kept = (m.get_submodule(name).running_mean for m in (net, one.hold.of(net)))
    assert not torch.equal(now, kept)
    assert kept.abs().sum() > 0


def test_defaults_change_no_recipe():
    fields = ("head_start", "head_power", "head_shrinkage", "head_options", "head_dropout")
    plain = Recipe().plain()
    spelt = {name: plain[name] for name in (*fields, "start_decay", "average")}
    assert Recipe(**spelt).hash == Recipe().hash
    one = Recipe(head_start="lfda", head_options={"neighbours": 7})
    assert one.hash == Recipe(head_start="lfda").hash
    assert one.hash != Recipe(head_start="lfda", head_options={"neighbours": 8}).hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_start": "whitned"}, "unknown closed form 'whitned': did you mean 'whitened'"),
        ({"head_start": "orthogonal", "head_shrinkage": 0.3}, "want a head_start that is a closed"),
        (
            {"head_start": "orthogonal", "head_options": {"shrinkage": "oas"}},
            "want a head_start that is a closed form",
        ),
        ({"head_start": "pca", "head_shrinkage": 0.3}, "closed form 'pca' has no shrinkage"),
        ({"head_options": {"shrinkage": 0.3}}, "wanted one shrinkage: a number as head_shrinkage"),
        (
            {"head_options": {"shrinkage": "oas"}, "head_shrinkage": 0.3},
            "wanted one shrinkage: a number as head_shrinkage",
        ),
        ({"head_options": {"shrinkage": "oass"}}, "shrinkage must be a share of 0 or more, oas"),
        ({"head_options": {"neighbours": 3}}, "unknown option of closed form 'whitened'"),
        (
            {"backbone": "identity", "dim": 16, "epochs": 0},
            "ends in one linear layer.*, got Identity",
        ),
        (
            {"backbone_options": {"power": 0.5}},
            "power is no option of the backbone: take head_power",
        ),
        ({"dim": 17, "epochs": 0}, "wanted a map of 17 dimensions, got one of 16"),
        (
            {"backbone": "mlp", "dim": 9},
            "wanted a head of 8 dimensions or fewer, half its hidden",
        ),
    ],
)
def test_starts_that_cannot_be_are_refused(changes, message, features):
    with pytest.raises(ValueError, match=message):
        Run(small(features, **changes), load(features), "cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [("head_power", 0.0), ("head_dropout", 1.0), ("average", 1.0), ("start_decay", -1.0)],
)
def test_fields_have_bounds(field, value):
    with pytest.raises(ValueError, match=field):
        Recipe(**{field: value})
