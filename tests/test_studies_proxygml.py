"""The studies of ProxyGML and its rivals ask what they say, equally of all, and read rows right."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from finished import cells, diverged, figures, finished, validated, watched, with_last
from nearkin import models
from nearkin.data import Split, Splits
from nearkin.losses import ProxyGML, make
from nearkin.names import resolve
from nearkin.report import write_markdown
from nearkin.runs.engine import Place
from nearkin.runs.executors import measured
from nearkin.runs.log import Silent
from nearkin.runs.loop import Run
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Measurement, Row
from nearkin.studies import STUDIES
from nearkin.studies.photographs import samples
from nearkin.studies.proxygml import ablation, cost, curve, proxies, ratio, rivals
from nearkin.studies.shared.sets import CARS, CUB, classes, proxygml
from nearkin.studies.shared.tuning import common, settle, trials

NAMES = [name for name in STUDIES if name.startswith("proxygml") or name == "rivals"]
ASKED = [name for name in NAMES if hasattr(resolve(STUDIES[name]), "recipes")]


def done(recipe: Recipe, recall: float, monitor: dict | None = None, **metrics: float) -> Row:
    """The row of a finished run with this R@1."""
    values = {"nmi": recall / 2, "map@r": recall / 3, **metrics}
    row = watched(with_last(finished(recipe, recall), **values), monitor or {})
    data = Data("features:CUB_200_2011", "features, 1280-d")
    return replace(row, data=data)


@pytest.mark.parametrize("name", ASKED)
def test_every_recipe_is_asked_for_once_and_can_be_built(name):
    study = resolve(STUDIES[name])
    asked = study.recipes()
    assert len({r.hash for r in asked}) == len(set(map(str, asked)))
    assert {r.seed for r in asked} == set(range(5))
    assert not any(r.validate for r in asked)
    for loss, options in {(r.loss, tuple(r.loss_options.items())) for r in asked}:
        make(loss, dict(options), classes=100, dim=16)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("data", [CARS, "omniglot", "mnist-5k"])
def test_options_fit_the_classes_of_the_data_set(name, data):
    asked = resolve(STUDIES[name]).recipes(data=data, seeds=1)
    assert {recipe.data for recipe in asked} == {data}
    for options in {tuple(r.loss_options.items()) for r in asked if r.loss == "proxy-gml"}:
        make("proxy-gml", dict(options), classes=classes(data), dim=4)


@pytest.mark.parametrize("name", ASKED)
def test_the_search_holds_classes_back_and_can_be_left_out(name):
    study = resolve(STUDIES[name])
    assert all(r.validate for r in study.search())
    assert study.search(tune=False) == []
    assert {r.data for r in study.search(data="omniglot", epochs=2)} == {"omniglot"}


def test_every_method_has_twelve_trials():
    tried = rivals.search()
    for name, change in rivals.METHODS.items():
        count = sum(r.loss == change["loss"] for r in tried)
        assert count == (0 if name == rivals.UNTRAINED else 12), name
    assert {r.dim for r in tried} == {512}
    assert len({(r.loss, r.lr, r.loss_lr, r.seed) for r in tried}) == len(tried)


def test_settings_are_those_of_the_best_validation_epoch():
    recipe = replace(common(CUB), loss="proxy-anchor")
    rows = [done(trial, 0.3) for trial in trials(recipe)]
    for i in (4, 5):  # both folds of the third setting
        rows[i] = validated(rows[i], {2: 0.4, 4: 0.6, 6: 0.5})
    rows += [done(t, 0.9) for t in trials(replace(recipe, loss="proxy-nca"))]  # of another method
    rows.append(done(replace(recipe, lr=0.5), 0.99))  # not a trial: trained on all classes
    best = settle(replace(recipe, dim=64, seed=3), rows)
    tried = rows[4].recipe
    assert (best.lr, best.loss_lr, best.epochs) == (tried.lr, tried.loss_lr, 4)
    assert (best.dim, best.seed, best.validate) == (64, 3, False)
    assert settle(recipe, []) == recipe


def test_two_folds_of_a_trial_are_averaged():
    recipe = replace(common(CUB), loss="supcon")
    rows = [done(trial, 0.5) for trial in trials(recipe)]
    rows[0] = done(trials(recipe)[0], 0.9)  # lucky once
    rows[1] = done(trials(recipe)[1], 0.0)
    lucky = rows[0].recipe.lr
    assert settle(recipe, rows).lr != lucky


def test_a_setting_under_which_a_trial_diverged_is_not_chosen():
    recipe = replace(common(CUB), loss="supcon")
    rows = [done(trial, 0.9 if i < 2 else 0.5) for i, trial in enumerate(trials(recipe))]
    assert settle(recipe, rows).lr == rows[0].recipe.lr
    rows[1] = diverged(rows[1])
    assert settle(recipe, rows).lr != rows[0].recipe.lr


def test_the_final_runs_have_the_settings_of_the_search():
    tried = [done(t, 0.7 if t.lr == 1e-4 else 0.5) for t in rivals.search()]
    asked = rivals.recipes(searched=tried, seeds=2, dims="64,512")
    trained = [r for r in asked if r.backbone != "identity"]
    assert {r.lr for r in trained} == {1e-4}
    assert len(trained) == 14 * 2 * 2
    assert {r.dim for r in trained} == {64, 512}


def test_the_table_of_rivals():
    asked = rivals.recipes(dims="512")
    points = {"ProxyGML": 0.585, "multi-similarity": 0.59, "SoftTriple": 0.52}
    rows = []
    for recipe in asked:
        name = rivals.method(done(recipe, 0))
        rows.append(done(recipe, points.get(name, 0.5) + 0.0001 * (recipe.seed * 7 % 5)))
    found = rivals.answer(rows)
    (table,) = found.tables
    assert [row[0] for row in table.rows] == list(rivals.METHODS)
    ours = cells(table, "ProxyGML")
    assert ours["R@1"].mean == pytest.approx(0.5852)
    assert ours["best epoch on test"].mean == pytest.approx(0.9)
    assert ours["published R@1"] == "66.6 (BN-Inception, 512-D)"
    assert ours["p"] == ""
    assert cells(table, "SoftTriple")["p"] == "< 0.001"
    assert cells(table, "no training")["R@1"].n == 1
    unsearched, best, order = found.findings
    assert "Settings were not searched here" in unsearched
    assert "multi-similarity is best" in best
    assert "Surely better than ProxyGML: multi-similarity;" in best
    assert "published as number 2" in order
    chosen = [replace(row, recipe=replace(row.recipe, loss_lr=0.01)) for row in rows]
    assert "not searched" not in " ".join(rivals.answer(chosen).findings)
    assert figures(found)[0].groups == tuple(rivals.METHODS)


def test_the_rows_of_the_ablation_keep_their_names():
    for data in (CUB, "omniglot"):
        for name, options in (ablation.ROWS | ablation.CONTROLS).items():
            row = done(proxygml(data, 1, options), 0.5)
            assert ablation.row_name(row) == name
    assert len(ablation.search()) == 12 * 8


def test_the_ablation_compares_under_shared_settings_and_under_own():
    tried = []
    for t in ablation.search():
        name = ablation.row_name(done(t, 0))
        wanted = 1e-4 if name == ablation.NONE else 1e-3
        tried.append(done(t, 0.6 if t.lr == wanted else 0.5))
    asked = ablation.recipes(searched=tried)
    rows = []
    for recipe in {r.hash: r for r in asked}.values():
        name = ablation.row_name(done(recipe, 0))
        recall = {ablation.NONE: 0.4, "1, all proxies chosen": 0.55}.get(str(name), 0.58)
        recall = 0.5 if name == ablation.NONE and recipe.lr == 1e-4 else recall
        said = {"own_chosen": 0.3, "class_missing": 0.02, "proxies_idle": 0.6, "proxy_cosine": 0.2}
        rows.append(done(recipe, recall + 0.001 * recipe.seed, said))
    found = ablation.answer(rows)
    shared, own, graph = found.tables
    assert [len(t.rows) for t in found.tables] == [8, 8, 8 + len(ablation.CONTROLS)]
    assert cells(shared, ablation.NONE)["R@1"].mean == pytest.approx(0.402)
    assert cells(own, ablation.NONE)["R@1"].mean == pytest.approx(0.502)
    assert cells(own, "2: S^pos")["R@1"] == cells(shared, "2: S^pos")["R@1"]
    assert cells(graph, ablation.NONE)["own proxies chosen"].mean == pytest.approx(0.3)
    said = " ".join(found.findings)
    assert "Row 1 has 40.2 % R@1, the full method 58.2 %: 18.0 points apart" in said
    assert "all proxies chosen: 55.2 %" in said
    assert "joined to 30 % of its own class's proxies, and 2 % of the samples to none" in said


def test_ratios_that_teach_nothing_are_skipped_and_named():
    asked = ratio.recipes(seeds=1)
    ratios: list[Any] = [r.loss_options["ratio"] for r in asked]
    assert 0.01 not in ratios
    assert 0.02 in ratios
    for useless in set(ratio.RATIOS) - set(ratios):
        with pytest.raises(ValueError, match="the loss would be 0"):
            ProxyGML(100, 4, ratio=useless)
    rows = [done(r, 0.6 if r.loss_options["ratio"] == 0.1 else 0.5) for r in asked]
    found = ratio.answer(rows)
    assert "R@1 is best at r = 0.1: 60.0 %." in found.findings
    assert "r = 0.005, 0.01. With 100 classes" in found.findings[-1]
    assert figures(found)[0].lines[0].x == tuple(sorted(ratios))


def test_the_count_of_proxies_is_told_from_the_temperature():
    rows = []
    for recipe in proxies.recipes(seeds=3):
        growing = "scale" not in recipe.loss_options
        few = recipe.loss_options["proxies"] == 1
        recall = 0.5 if growing and few else 0.58
        rows.append(done(recipe, recall + 0.001 * recipe.seed, {"proxy_cosine": 0.99}))
    found = proxies.answer(rows)
    recalls, cosines = figures(found)
    lines = {line.name: line for line in recalls.lines}
    assert list(lines) == ["r = 0.05", "r = 0.2", "r = 1", "r = 0.05, s = 12 / N"]
    assert all(line.x == (1, 2, 4, 8, 12, 16) for line in lines.values())
    assert lines["r = 0.05"].y[0] == pytest.approx(0.501)
    assert lines["r = 0.05, s = 12 / N"].y[0] == pytest.approx(0.581)
    assert 1 not in cosines.lines[0].x
    assert (
        "r = 0.05: 12 proxies a class instead of 1 change R@1 by +8.0 points" in found.findings[0]
    )
    assert "by +0.0 points" in found.findings[3]
    assert "cosine of 0.99" in found.findings[-1]


def test_the_cost_is_measured_and_read():
    small = cost.Setting(classes=20, proxies=2, ratio=0.2, weight=0.3)
    seconds, megabytes = cost.step_cost(small)
    assert seconds > 0
    assert megabytes >= 0
    settings = cost.settings(0)
    assert len(settings) == len(set(settings))
    measured = [
        {"setting": asdict(s), "seconds": s.proxies * s.ratio, "megabytes": 3.0} for s in settings
    ]
    measured.append({"variant": "as released", "cosines": [0.0, 0.8, 0.99]})
    found = cost.answer([Measurement("a", values) for values in measured])
    assert len(found.tables[0].rows) == len(settings)
    assert "100 classes: 24 proxies a class instead of 1 take 24.0 times" in found.findings[0]
    assert "then takes 20.0 times as long" in found.findings[0]
    assert "cosine of 0.00 at the start and of 0.99 after 2 epochs" in found.findings[-1]


def test_what_was_measured_makes_a_page(tmp_path, monkeypatch):
    few = [cost.Setting(classes=20, proxies=2, ratio=0.2, weight=0.3)]
    monkeypatch.setattr(cost, "settings", lambda classes: few)
    monkeypatch.setattr(cost, "cosines", lambda asked, place: {**asked, "cosines": [0.9]})

    def measure() -> list[Measurement]:
        asked = cost.measure()
        return measured(asked, tmp_path, study="proxygml-cost", place=Place(), bar=Silent())

    rows = measure()
    monkeypatch.setattr(cost, "cost", lambda *asked: pytest.fail("measured again"))
    assert measure() == rows
    page = write_markdown(cost.answer(rows), rows, tmp_path, tmp_path, name="cost")
    assert "| 20 | 2 | 0.2 | yes |" in page.read_text()


def synthetic(count=30, dim=8):
    """Clusters as features: 6 classes to train on, 4 to test."""
    torch.manual_seed(0)
    centres = 3 * torch.randn(10, dim)
    labels = torch.arange(10).repeat_interleave(count)
    x = centres[labels] + torch.randn(10 * count, dim)
    names = tuple(str(i) for i in range(10))
    train = Split(x[labels < 6], labels[labels < 6], names[:6])
    test = Split(x[labels >= 6], labels[labels >= 6] - 6, names[6:])
    return Splits("clusters", train, test, test)


def test_the_curve_holds_back_every_fifth_image_of_each_class():
    splits = synthetic()
    kept, held = curve.hold_back(splits)
    assert held.labels.bincount().tolist() == [6] * 6
    assert len(kept.train) + len(held) == len(splits.train)
    both = torch.cat([torch.as_tensor(kept.train.inputs), torch.as_tensor(held.inputs)])
    assert len(both.unique(dim=0)) == len(splits.train)
    assert kept.query is splits.query


def test_the_curve_follows_both_losses():
    kept, held = curve.hold_back(synthetic())
    recipe = replace(proxygml("features:clusters", 3, {"ratio": 0.5}), lr=1e-3, dim=4, batch=24)
    epochs = curve.follow(Run(recipe, kept, "cpu"), held)
    assert [e["epoch"] for e in epochs] == [1, 2, 3]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert epochs[-1]["held_loss"] < epochs[0]["held_loss"]
    assert epochs[-1]["recall@1"] > 0.5
    found = curve.answer([Measurement("a", {"epochs": epochs})] * 2)
    assert [line.name for line in figures(found)[1].lines] == [
        "training images",
        "held-back images",
    ]
    assert figures(found)[1].lines[0].y == pytest.approx([e["loss"] for e in epochs])
    assert "is best after epoch" in found.findings[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_short_form_has_options_that_the_study_knows(name):
    study = resolve(STUDIES[name])
    asked = getattr(study, "recipes", None) or study.measure
    if name in ASKED:
        assert asked(**study.DEMO)
    else:
        asked(**study.DEMO)  # a generator: its arguments are checked, nothing is measured


@pytest.mark.parametrize("study", [rivals, samples])
@pytest.mark.parametrize("data", [CUB, "omniglot"])
def test_the_untrained_inputs_can_be_built(study, data):
    bare = next(r for r in study.recipes(data=data) if not r.epochs)
    backbone = models.make(bare.backbone, bare.backbone_options, (1, 28, 28), bare.dim)
    assert backbone(torch.ones(3, 1, 28, 28)).shape == (3, 784)
