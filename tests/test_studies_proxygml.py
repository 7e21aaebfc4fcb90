"""The studies of ProxyGML and its rivals ask what they say, equally of all, and read rows right."""

from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from finished import cells, diverged, figures, finished, validated, watched, with_last
from nearkin import models
from nearkin.data import Split, Splits
from nearkin.losses import ProxyGML, make
from nearkin.names import look_up
from nearkin.report import write_markdown
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Measurement, Row
from nearkin.runs.run import Run
from nearkin.studies import STUDIES
from nearkin.studies.ask import ask
from nearkin.studies.photographs import samples
from nearkin.studies.proxygml import ablation, cost, curve, proxies, ratio, rivals
from nearkin.studies.shared.sets import CARS, CUB, classes, proxygml
from nearkin.studies.shared.tuning import common, settle, trials
from nearkin.studies.study import Case

NAMES = [name for name in STUDIES if name.startswith("proxygml") or name == "rivals"]
ASKED = [name for name in NAMES if look_up(name, STUDIES, "study").recipes]


def study_of(name: str) -> Any:
    """A study by its name, as one calls its functions."""
    return look_up(name, STUDIES, "study")


def done(recipe: Recipe, recall: float, monitor: dict | None = None, **metrics: float) -> Row:
    """The row of a finished run with this R@1."""
    values = {"nmi": recall / 2, "map@r": recall / 3, **metrics}
    row = watched(with_last(finished(recipe, recall), **values), monitor or {})
    data = Data("features:CUB_200_2011", "features, 1280-d")
    return replace(row, data=data)


@pytest.mark.parametrize("name", ASKED)
def test_every_recipe_is_asked_for_once_and_can_be_built(name):
    asked = study_of(name).recipes().values()
    assert len({r.hash for r in asked}) == len(set(map(str, asked)))
    assert {r.seed for r in asked} == set(range(5))
    assert not any(r.validate for r in asked)
    for loss, options in {(r.loss, tuple(r.loss_options.items())) for r in asked}:
        make(loss, dict(options), classes=100, dim=16, features=8)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("data", [CARS, "omniglot", "mnist-5k"])
def test_options_fit_the_classes_of_the_data_set(name, data):
    asked = study_of(name).recipes(data=data, seeds=1).values()
    assert {recipe.data for recipe in asked} == {data}
    for options in {tuple(r.loss_options.items()) for r in asked if r.loss == "proxy-gml"}:
        make("proxy-gml", dict(options), classes=classes(data), dim=4)


@pytest.mark.parametrize("name", ASKED)
def test_the_search_holds_classes_back_and_can_be_left_out(name):
    study = study_of(name)
    assert all(r.trial for r in study.search().values())
    assert study.search(tune=False) == {}
    assert {r.data for r in study.search(data="omniglot", epochs=2).values()} == {"omniglot"}


def test_every_method_has_twelve_trials():
    found = rivals.search(start="orthogonal")
    counts = Counter(case.method for case in found)
    every = set(rivals.METHODS) | set(rivals.OWN_BATCHES)
    assert counts == dict.fromkeys(every - {rivals.UNTRAINED, rivals.HDC_AT_ONE_LEVEL}, 12)
    tried = found.values()
    assert {r.dim for r in tried} == {512}
    assert len({r.hash for r in tried}) == len(tried)


def tried(name: str, recipe: Recipe, share: float = 0.5) -> dict[Case, Row]:
    """The rows of a method's trials, all of which have this share on validation classes."""
    return {case: done(trial, share) for case, trial in trials(name, recipe).items()}


def test_settings_are_those_of_the_best_validation_epoch():
    recipe = replace(common(CUB), loss="proxy-anchor")
    rows = tried("proxy-anchor", recipe, 0.3)
    third = list(rows)[4:6]  # both folds of the third setting
    for case in third:
        rows[case] = validated(rows[case], {2: 0.4, 4: 0.6, 6: 0.5})
    rows |= tried("proxy-NCA", replace(recipe, loss="proxy-nca"), 0.9)  # of another method
    best = settle(replace(recipe, dim=64, seed=3), rows, "proxy-anchor")
    assert (best.lr, best.loss_lr, best.epochs) == (third[0]["lr"], third[0]["loss_lr"], 4)
    assert (best.dim, best.seed, best.validate) == (64, 3, False)
    assert settle(recipe, {}, "proxy-anchor") == settle(recipe, None, "proxy-anchor") == recipe
    assert settle(recipe, rows, "another") == recipe
    together = settle(recipe, rows, ["proxy-anchor", "proxy-NCA"])  # of 1.2 on epoch 12
    assert together.epochs == 12


def test_two_folds_of_a_trial_are_averaged():
    recipe = replace(common(CUB), loss="supcon")
    rows = tried("SupCon", recipe)
    lucky, unlucky, *_ = rows  # one setting, of which one fold is lucky
    rows[lucky] = validated(rows[lucky], {12: 0.9})
    rows[unlucky] = validated(rows[unlucky], {12: 0.0})
    assert lucky["lr"] == unlucky["lr"]
    assert settle(recipe, rows, "SupCon").lr != lucky["lr"]


def test_a_setting_under_which_a_trial_diverged_is_not_chosen():
    recipe = replace(common(CUB), loss="supcon")
    rows = tried("SupCon", recipe)
    first, second, *_ = rows
    rows[first] = rows[second] = validated(rows[first], {12: 0.9})
    assert settle(recipe, rows, "SupCon").lr == first["lr"]
    rows[second] = diverged(rows[second])
    assert settle(recipe, rows, "SupCon").lr != first["lr"]


def test_the_final_runs_have_the_settings_of_the_search():
    trials = rivals.search(start="orthogonal").items()
    searched = {c: done(t, 0.7 if t.lr == 1e-4 else 0.5) for c, t in trials}
    asked = rivals.recipes(searched=searched, seeds=2, dims="64,512", start="orthogonal").values()
    trained = [r for r in asked if r.backbone != "identity"]
    assert {r.lr for r in trained} == {1e-4}
    assert len(trained) == (21 + 8) * 2 * 2
    assert {r.dim for r in trained} == {64, 512}


def test_an_option_is_tried_in_place_of_a_learning_rate_of_the_loss():
    search = rivals.search(start="orthogonal").items()
    tried = {c: trial for c, trial in search if c.method == "clustering"}
    settings = {(r.lr, r.loss_options["gamma"]) for r in tried.values()}
    assert settings == {(lr, gamma) for lr in (1e-4, 3e-4, 1e-3) for gamma in (1.0, 16.0)}
    rows = {c: done(r, 0.5 + 0.01 * (c["gamma"] == 16 and r.lr == 3e-4)) for c, r in tried.items()}
    base = replace(common(CUB), loss="clustering", loss_options={"rounds": 1})
    best = settle(base, rows, "clustering")
    assert (best.lr, best.loss_options) == (3e-4, {"rounds": 1, "gamma": 16.0})


def test_hdc_and_its_control_try_both_weights_of_others():
    for name in ("HDC", "contrastive in three slices"):
        found = rivals.search(start="orthogonal")
        tried = [trial for c, trial in found.items() if c.method == name]
        assert {r.loss_options["factor"] for r in tried} == {1.0, 10.0}
        assert len({r.lr for r in tried}) == 3


def test_all_differ_from_their_base_in_one_thing():
    """HDC cannot be at the last level of stored features; batches of their own want classes."""
    for data in (CUB, "omniglot"):
        found = rivals.candidates(data, 0, 64)
        for name, base in rivals.BASES.items():
            if name in found:
                one, other = (found[n].plain() for n in (name, base))
                changed = {field for field in one if one[field] != other[field]}
                assert len(changed) == 1, (name, changed)
        assert (rivals.HDC_AT_ONE_LEVEL in found) == (data == "omniglot")
    assert not rivals.candidates("mnist-5k", 0, 64).keys() & rivals.OWN_BATCHES.keys()
    with pytest.raises(ValueError, match="did you mean 'HDC'"):
        rivals.recipes(methods="HDCC")
    few = rivals.recipes(methods="HDC,ProxyGML", start="orthogonal")
    assert {c.method for c in few} == {"HDC", "ProxyGML"}


def test_the_table_of_rivals():
    points = {"ProxyGML": 0.585, "multi-similarity": 0.59, "SoftTriple": 0.52, "no training": 0.6}
    rows = {
        case: done(recipe, points.get(case.method, 0.5) + 0.0001 * (recipe.seed * 7 % 5))
        for case, recipe in rivals.recipes(dims="512", start="orthogonal").items()
    }
    rows = {c: replace(r, epochs=(replace(r.epochs[0], steps=3000),)) for c, r in rows.items()}
    found = rivals.answer(rows)
    standings, table = found.tables
    assert cells(standings, "multi-similarity")["rank, 512-D"] == "1"
    assert cells(standings, "ProxyGML")["rank, 512-D"] == "2"
    assert cells(standings, "SupCon")["rank, 512-D"] == "4–21"
    equal = [name for name in rivals.METHODS if name != rivals.HDC_AT_ONE_LEVEL]
    assert [row[0] for row in table.rows] == [*equal, *rivals.OWN_BATCHES]
    assert table.above == len(equal)
    assert table.note.endswith("the loss of that paper is not known to us.")
    ours = cells(table, "ProxyGML")
    assert ours["R@1"].mean == pytest.approx(0.5852)
    assert ours["best epoch on test"].mean == pytest.approx(0.9)
    assert ours["published R@1"] == "66.6 (BN-Inception, 512-D)"
    assert ours["p"] == ""
    assert cells(table, "SoftTriple")["p"] == "< 0.001"
    assert cells(table, "no training")["R@1"].n == 1
    assert cells(table, "HDC")["ms a step"] == pytest.approx(20)
    assert cells(table, "HDC")["published R@1"] == "53.6 (GoogLeNet, three depths, 384-D)"
    assert cells(table, "HDML on tuples")["p"] == ""
    assert "Settings were not searched here" in found.remarks[0]
    leader, reference, *others = map(str, found.findings)
    assert leader == (
        "At 512-D, multi-similarity is best with 59.0 % R@1, surely above all 20 others. No "
        "training has 60.0 %, 1.0 points more (p < 0.001)."
    )
    assert reference.startswith(
        "At 512-D, ProxyGML has 58.5 % R@1. Surely better is multi-similarity, +0.5 points "
        "(p < 0.001). Surely worse are "
    )
    assert reference.endswith("; and 16 more.")
    assert any("against the loss that each method is built on, R@1" in text for text in others)
    assert any("published R@1 and ours have a rank correlation of" in text for text in others)
    assert found.summary == (
        "At 512-D, multi-similarity is best, with 59.0 % R@1, surely ahead of all 20 others.",
        "ProxyGML has 58.5 %, which makes it number 2 of 21.",
        "No training has 60.0 %: multi-similarity has 1.0 points less.",
    )
    chosen = {c: replace(row, recipe=replace(row.recipe, loss_lr=0.01)) for c, row in rows.items()}
    assert rivals.answer(chosen).remarks == ()
    assert set(figures(found)[0].groups) == {*equal} - {"no training"}


def test_published_numbers_stand_beside_the_pictures_that_they_are_of_alone():
    for data, known in ((CUB, True), ("cars", True), ("features:x/oscars.npz", False)):
        rows = {case: done(r, 0.5) for case, r in rivals.recipes(data=data, dims="64").items()}
        assert bool(rivals.published_of(rows)) == known


def test_the_ablation_compares_under_shared_settings_and_under_own():
    searched = {}
    for case, trial in ablation.search(start="orthogonal").items():
        wanted = 1e-4 if case.method == ablation.NONE else 1e-3
        searched[case] = done(trial, 0.6 if trial.lr == wanted else 0.5)
    assert len(searched) == 12 * 8
    monitor = {"own_chosen": 0.3, "class_missing": 0.02, "proxies_idle": 0.6, "proxy_cosine": 0.2}
    rows = {}
    for case, recipe in ablation.recipes(searched=searched, start="orthogonal").items():
        recall = {ablation.NONE: 0.4, "1, all proxies chosen": 0.55}.get(case.method, 0.58)
        recall = 0.5 if case.method == ablation.NONE and recipe.lr == 1e-4 else recall
        rows[case] = done(recipe, recall + 0.001 * recipe.seed, monitor)
    found = ablation.answer(rows)
    _, shared, own, graph = found.tables
    assert [len(t.rows) for t in found.tables] == [8, 8, 8, 8 + len(ablation.CONTROLS)]
    assert cells(shared, ablation.NONE)["R@1"].mean == pytest.approx(0.402)
    assert cells(own, ablation.NONE)["R@1"].mean == pytest.approx(0.502)
    assert cells(own, "2: S^pos")["R@1"] == cells(shared, "2: S^pos")["R@1"]
    assert cells(graph, ablation.NONE)["own proxies chosen"].mean == pytest.approx(0.3)
    text = " ".join(map(str, found.findings))
    assert found.summary[0] == "Without its three modules ProxyGML falls from 58.2 % R@1 to 40.2 %."
    assert "change R@1 by +18.0 points" in text
    assert "1, all proxies chosen, +15.0 points (p < 0.001), 83 % of the gap" in text
    assert (
        "joined to 30 % [30, 30] of its own class's proxies, and 2 % [2, 2] of the samples to none"
        in text
    )
    assert {case["under"] for case in ablation.recipes()} == {ablation.SHARED}


def test_ratios_that_teach_nothing_are_skipped_and_named():
    asked = ratio.recipes(seeds=1, start="orthogonal")
    ratios: list[Any] = [r.loss_options["ratio"] for r in asked.values()]
    assert 0.01 not in ratios
    assert 0.02 in ratios
    for useless in set(ratio.RATIOS) - set(ratios):
        with pytest.raises(ValueError, match="the loss would be 0"):
            ProxyGML(100, 4, ratio=useless)
    rows = {c: done(r, 0.6 if c["ratio"] == 0.1 else 0.5) for c, r in asked.items()}
    found = ratio.answer(rows)
    said = "By R@1, r = 0.1 leads with 60.0 %, but one seed cannot tell methods apart."
    assert said in map(str, found.findings)
    assert found.summary == (said,)
    assert found.tables[0].columns == ("method", "R@1", "rank, R@1", "NMI", "rank, NMI")
    assert "r = 0.005, 0.01. With 100 classes" in found.remarks[0]
    assert figures(found)[0].lines[0].x == tuple(sorted(ratios))


def test_the_count_of_proxies_is_told_from_the_temperature():
    rows = {}
    for case, recipe in proxies.recipes(seeds=3, start="orthogonal").items():
        growing = "scale" not in recipe.loss_options
        few = recipe.loss_options["proxies"] == 1
        recall = 0.5 if growing and few else 0.58
        rows[case] = done(recipe, recall + 0.001 * recipe.seed, {"proxy_cosine": 0.99})
    found = proxies.answer(rows)
    recalls, cosines = figures(found)
    lines = {line.name: line for line in recalls.lines}
    assert list(lines) == ["r = 0.05", "r = 0.2", "r = 1", "r = 0.05, s = 12 / N"]
    assert all(line.x == (1, 2, 4, 8, 12, 16) for line in lines.values())
    assert lines["r = 0.05"].y[0] == pytest.approx(0.501)
    assert lines["r = 0.05, s = 12 / N"].y[0] == pytest.approx(0.581)
    assert 1 not in cosines.lines[0].x
    text = " ".join(map(str, found.findings))
    assert (
        "With 12 proxies a class instead of 1, R@1 surely changes for r = 0.05, +8.0 points" in text
    )
    level = "It changes for r = 0.05, s = 12 / N by +0.0 points, which cannot be told from none"
    assert level in text
    assert "cosine of 0.99" in text


def test_the_cost_is_measured_and_read():
    small = cost.Setting(classes=20, proxies=2, ratio=0.2, weight=0.3)
    seconds, megabytes = cost.step_cost(small)
    assert seconds > 0
    assert megabytes >= 0
    settings = cost.settings(0)
    assert len(settings) == len(set(settings))
    measured: dict[Case, Measurement] = {}
    for s in settings:
        values = {"seconds": s.proxies * s.ratio, "megabytes": 3.0}
        measured[Case("cost", **asdict(s))] = Measurement("a", values)
    measured[Case("as released")] = Measurement("a", {"cosines": [0.0, 0.8, 0.99]})
    found = cost.answer(measured)
    pivot, every = found.tables
    assert len(every.rows) == len(settings)
    assert cells(pivot, "12")["100 classes, r = 0.2"] == pytest.approx(2400)
    assert cells(pivot, "12")["11,318 classes, r = 0.2"] is None
    first, *_, last = map(str, found.findings)
    assert "With 100 classes a step with 24 proxies a class takes 24.0 times" in first
    assert "then takes 20.0 times as long" in first
    assert "cosine of 0.00 at the start and of 0.99 after 2 epochs" in last


def test_what_was_measured_makes_a_page(tmp_path, monkeypatch):
    few = [cost.Setting(classes=20, proxies=2, ratio=0.2, weight=0.3)]
    monkeypatch.setattr(cost, "settings", lambda classes: few)
    monkeypatch.setattr(cost, "cosines", lambda asked, place: {"cosines": [0.9]})
    y = np.arange(12).repeat(4)
    np.savez(tmp_path / "points.npz", x=np.eye(12, dtype="float32")[y], y=y)
    given = {"data": f"features:{tmp_path / 'points.npz'}"}
    found = ask("proxygml-cost", given, out=tmp_path)
    monkeypatch.setattr(cost, "cost", lambda *asked: pytest.fail("measured again"))
    assert ask("proxygml-cost", given, out=tmp_path).rows == found.rows
    page = write_markdown(found.answer, found.rows, tmp_path, tmp_path, name="cost")
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
    found = curve.answer({Case("a", s): Measurement("a", {"epochs": epochs}) for s in (0, 1)})
    assert [line.name for line in figures(found)[1].lines] == [
        "training images",
        "held-back images",
    ]
    assert figures(found)[1].lines[0].y == pytest.approx([e["loss"] for e in epochs])
    assert "From its highest, " in str(found.findings[0])
    assert "R@1 on new classes is highest after epoch" in found.summary[0]


@pytest.mark.parametrize("name", STUDIES)
def test_the_short_form_has_options_that_the_study_knows(name):
    study = study_of(name)
    assert study.demo is None or study.asks(**study.demo)


@pytest.mark.parametrize("study", [rivals, samples])
@pytest.mark.parametrize("data", [CUB, "omniglot"])
def test_the_untrained_inputs_can_be_built(study, data):
    bare = next(r for r in study.recipes(data=data).values() if not r.epochs)
    backbone = models.make(bare.backbone, bare.backbone_options, (1, 28, 28), bare.dim)
    assert backbone(torch.ones(3, 1, 28, 28)).shape == (3, 784)
