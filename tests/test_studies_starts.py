"""Every study on features starts its heads whitened, searched equally, beside closed forms."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from finished import cells, finished, rows_of
from nearkin.measure.statistics import holm
from nearkin.names import look_up
from nearkin.runs.place import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies import STUDIES
from nearkin.studies.ask import page_name
from nearkin.studies.graphlab import attention
from nearkin.studies.photographs import samples, transfer
from nearkin.studies.proxygml import ablation, curve, rivals
from nearkin.studies.shared import controls, over_forms, over_starts
from nearkin.studies.shared.over_classes import against_closed
from nearkin.studies.shared.sets import CUB
from nearkin.studies.study import Case

SEARCHED = ["rivals", "proxygml-ablation", "proxygml-proxies", "proxygml-ratio", "attention"]
SEARCHED += ["graph", "edges", "graph-gain", "samples", "transfer", "features-vs-fine-tuning"]
FORMS = ("PCA-whitened", "within-class whitened")


def study_of(name: str) -> Any:
    return look_up(name, STUDIES, "study")


def own(case: Case) -> tuple:
    """What a method is searched for: itself, at a dimension, on a data set, with its batches."""
    return case.method, *(case.get(axis) for axis in ("dim", "target", "sampler", "on"))


def on_features(recipe: Recipe) -> bool:
    return recipe.data.startswith("features:")


@pytest.mark.parametrize("name", SEARCHED)
def test_every_method_has_24_settings_on_both_halves_of_the_classes(name):
    found = {case: r for case, r in study_of(name).search().items() if on_features(r)}
    counts = Counter(map(own, found))
    assert set(counts.values()) == {48}
    assert {case.method for case in found}.issuperset(FORMS)
    assert {r.validate_every for r in found.values()} == {2}
    assert {r.seed for r in found.values()} == {0, 1}
    assert len({r.hash for r in found.values()}) >= 48
    trained = [r for r in found.values() if r.epochs]
    assert {(r.head_start, r.head_shrinkage) for r in trained} == {
        ("whitened", 0.3),
        ("whitened", 1.0),
        ("kissme", 1.0),
    }


@pytest.mark.parametrize("name", [*SEARCHED, "proxygml-curve"])
def test_what_is_reported_starts_whitened_beside_what_is_not_trained(name):
    study = study_of(name)
    if study.measure:
        found = {case: task.recipe for case, task in study.measure(seeds=1).items()}
    else:
        found = study.recipes(seeds=1)
        assert {case.method for case in found}.issuperset((*FORMS, "no training"))
    for case, recipe in found.items():
        if recipe.epochs and on_features(recipe):
            assert recipe.head_start == "whitened", case
            assert recipe.head_power == 0.5, case
            assert recipe.loss_start == ("random" if recipe.loss in RANDOM else "means"), case


RANDOM = {"graph-refinement", "group", "multi-similarity", "pml-contrastive", "semi-hard-triplet"}
RANDOM |= {"lifted-structure", "pml-n-pair", "margin", "supcon", "hdc", "hierarchical-triplet"}
RANDOM |= {"hdml", "triplet", "clustering"}
"""Losses without a part for each class that could start at its mean."""


@pytest.mark.parametrize("name", [n for n in SEARCHED if n not in ("transfer", "samples")][:8])
def test_pictures_are_trained_as_ever(name):
    study = study_of(name)
    given: dict = {"data": "omniglot"}
    for ask in (study.search, study.recipes):
        assert ask(**given) == ask(**given, start="orthogonal")
    with pytest.raises(ValueError, match="unknown start 'white': did you mean 'whitened'"):
        study.search(start="white")


def test_a_page_of_another_start_has_a_name_of_its_own(tmp_path):
    given = {"data": CUB, "start": "orthogonal"}
    name = page_name("rivals", given, False, tmp_path)
    assert name == "rivals-CUB_200_2011_efficientnet_lite0_224px-orthogonal"
    assert page_name("rivals", {"data": CUB}, False, tmp_path) + "-orthogonal" == name


def test_trials_of_rivals_that_share_a_start_follow_each_other():
    starts = [
        (r.head_start, r.head_power, r.head_shrinkage, r.seed)
        for r in rivals.search(dims="64").values()
    ]
    changes = sum(a != b for a, b in pairwise(starts))
    assert changes + 1 == len(set(starts))


def test_every_dimension_has_settings_of_its_own():
    methods = "ProxyGML,SupCon"
    found = rivals.search(dims="64,512", methods=methods)
    rows = rows_of(
        found, lambda r: finished(r, 0.7 if r.lr == {64: 1e-4}.get(r.dim, 3e-4) else 0.5)
    )
    asked = rivals.recipes(dims="64,512", methods=methods, seeds=1, searched=rows)
    for case, recipe in asked.items():
        if recipe.epochs:
            assert recipe.lr == {64: 1e-4, 512: 3e-4}[case["dim"]]


def with_classes(row: Row, recall: float, spread: float) -> Row:
    """The row with R@1 and MAP@R of 40 test classes of 10 queries each."""
    drawn = np.random.default_rng(round(1e4 * recall)).normal(size=40)
    level = np.linspace(-0.2, 0.2, 40) + spread * (drawn - drawn.mean())
    means = tuple(float(v) for v in recall + level)
    return replace(row, by_class={"queries": (10,) * 40, "recall@1": means, "map@r": means})


def rows_with(levels: dict[str, float], spread: float = 0.0, seeds: int = 3) -> dict[Case, Row]:
    found = {}
    for name, level in levels.items():
        for seed in range(1 if name in controls.BESIDE else seeds):
            row = finished(Recipe(epochs=0, seed=seed), level + 1e-4 * seed)
            found[Case(name, seed, dim=64)] = with_classes(row, level + 1e-4 * seed, spread)
    return found


LEVELS = {"no training": 0.4, "PCA-whitened": 0.5, "within-class whitened": 0.52}


def test_a_loss_is_surely_better_only_where_seeds_and_test_classes_say_so():
    sure = rows_with(LEVELS | {"better": 0.55, "worse": 0.5})
    one = over_forms.over_forms(sure, "recall@1")
    assert one
    assert (one.form, one.level[one.form], one.most) == ("within-class whitened", 0.52, "better")
    assert (one.surely(1), one.surely(-1)) == (["better"], ["worse"])
    assert one.size("better") == pytest.approx(0.0301, abs=1e-6)
    reference = sure[Case("within-class whitened", dim=64)]
    alone = [
        against_closed({s: sure[Case(n, s, dim=64)] for s in range(3)}, reference, "recall@1")
        for n in ("better", "worse")
    ]
    assert list(one.p.values()) == holm([each.p for each in alone if each])
    unsure = over_forms.over_forms(rows_with(LEVELS | {"better": 0.53}, spread=0.2), "recall@1")
    assert unsure
    assert unsure.gains["better"].seeds.p < 0.001
    assert unsure.surely(1) == []
    assert over_forms.over_forms(rows_with({"no training": 0.4, "a": 0.5}), "recall@1") is None


def test_a_lead_that_its_start_explains_is_told_from_training():
    """One method leads because it starts higher, and another because it learns."""
    at = {start: {"head_power": 0.5, **change} for start, change in controls.STARTED.items()}
    high, low, _ = at
    levels = {high: 0.55, low: 0.5, "given": 0.55, "learnt": 0.54, "spoilt": 0.48}
    start = {high: high, low: low, "given": high, "learnt": low, "spoilt": low}
    rows = {
        case: replace(row, recipe=replace(row.recipe, dim=64, **at[start[case.method]]))
        for case, row in rows_with(levels).items()
    }
    one = over_starts.over_starts(rows, "recall@1")
    assert one
    assert one.of == {"given": high, "learnt": low, "spoilt": low}
    assert (one.surely(1), one.surely(-1)) == (["learnt"], ["spoilt"])
    assert one.size("learnt") == pytest.approx(0.0401, abs=1e-6)
    assert one.level == {high: 0.55, low: 0.5}
    first = str(over_starts.findings(rows, "at 64-D")[0])
    assert first.startswith(
        "At 64-D, training surely raises R@1 above that of its own start, untrained, for learnt, "
        "and lowers it for spoilt; it adds most to learnt: +4.0 points to whitened start, 1 (p"
    ), first
    (table,) = over_starts.tables(rows, "64-D")
    assert cells(table, "given")["start"] == high
    elsewhere = {c: replace(r, recipe=replace(r.recipe, head_power=1.0)) for c, r in rows.items()}
    others = {c: rows[c] if c.method in controls.STARTED else r for c, r in elsewhere.items()}
    assert over_starts.over_starts(others, "recall@1") is None  # they started as something else
    assert over_starts.tables(others) == () == tuple(over_starts.findings(others))
    sliced = {
        c: replace(r, recipe=replace(r.recipe, backbone_options={"stages": 3}))
        if c.method == "spoilt"
        else r
        for c, r in rows.items()
    }
    one = over_starts.over_starts(sliced, "recall@1")
    assert one
    assert [*one.gains] == ["given", "learnt"]  # a head in slices starts as another


def test_the_table_of_rivals_has_the_closed_forms_of_its_own_dimension():
    found = rivals.recipes(dims="64", methods="no training,ProxyGML,SupCon,margin", seeds=3)
    level = {"ProxyGML": 0.55, "SupCon": 0.5, "margin": 0.5, **LEVELS}
    level |= {"whitened start, 0.3": 0.51, "whitened start, 1": 0.5, "half-KISSME start": 0.45}
    rows = {
        case: with_classes(finished(r, level[case.method] + 1e-4 * r.seed), level[case.method], 0)
        for case, r in found.items()
    }
    answer = rivals.answer(rows)
    standings, table, over, gained = answer.tables
    many = len(controls.BESIDE)
    assert [row[0] for row in standings.rows[-many:]] == [*controls.BESIDE]
    assert [row[0] for row in table.rows[:many]] == [*controls.BESIDE]
    assert rows[Case("PCA-whitened", dim=64)].recipe.dim == 64
    line = cells(over, "ProxyGML")
    assert line["R@1 to within-class whitened"].mean == pytest.approx(0.03, abs=1e-3)
    assert answer.summary[0].startswith(
        "At 64-D, these trained methods are surely better in R@1 than every"
    )
    line = cells(gained, "ProxyGML")
    assert (line["start"], line["R@1 of the start"].mean) == ("whitened start, 1", 0.5)
    assert line["R@1"].mean == pytest.approx(0.05, abs=1e-3)
    text = " ".join(map(str, answer.findings))
    assert "At 64-D, the best closed form (a head that no gradient trains) is within-class" in text
    assert "PCA-whitened has" not in text  # its p would be over seeds alone
    alone = {case: row for case, row in rows.items() if case.method not in controls.FORMS}
    assert over_forms.tables(alone) == ()


@pytest.mark.parametrize("study", [ablation, attention, samples])
def test_other_tables_have_them_too(study):
    found = study.STUDY.recipes(seeds=2)
    rows = {
        case: with_classes(finished(r, LEVELS.get(case.method, 0.55) + 1e-4 * r.seed), 0.5, 0)
        for case, r in found.items()
    }
    tables = study.STUDY.answer(rows).tables
    to_starts = [t for t in tables if t.title.startswith("What training adds to its start")]
    assert bool(to_starts) == (study is not samples)  # whose methods start anew at every share
    for table in tables[:2]:
        names = [row[0] for row in table.rows]
        beside = ("no training", *FORMS) if study is samples else controls.BESIDE
        assert set(names).issuperset(beside), table.title
        assert len(names) == len(set(names)), table.title


def test_zero_shot_is_the_source_s_network_with_its_own_head():
    found = transfer.recipes(seeds=1, methods="ProxyGML")
    shots = [r for c, r in found.items() if c["protocol"] == transfer.ZERO_SHOT]
    assert shots
    assert {(r.head_start, r.head_power, r.loss_start) for r in shots} == {
        ("orthogonal", 1.0, "random")
    }


def test_the_curve_has_what_is_not_trained_beside_it(tmp_path):
    y = np.arange(20).repeat(10)
    x = np.random.default_rng(0).random((20, 140))[y] + 0.3 * np.random.default_rng(1).random(
        (200, 140)
    )
    np.savez(tmp_path / "points.npz", x=x.astype("float32"), y=y)
    (task,) = curve.measure(data=f"features:{tmp_path / 'points.npz'}", seeds=1, epochs=1).values()
    assert task.recipe
    recipe = replace(task.recipe, dim=16, batch=40, loss_options={"ratio": 0.5})
    found = curve.followed(recipe, Place(device="cpu", threads=1))
    assert list(found["beside"]) == ["no training", *FORMS]
    assert all(0 <= level <= 1 for level in found["beside"].values())
    drawn = curve.curves([found["epochs"]], "R@1", "R@1", curve.CURVES, beside=found["beside"])
    assert [line.name for line in drawn.lines if line.dashed] == ["no training", *FORMS]


@pytest.mark.parametrize(
    ("none", "said"),
    [
        (0.5, "Without its three modules ProxyGML falls from 60.0 % R@1 to 50.0 %."),
        (0.62, "Without its three modules ProxyGML has 62.0 % R@1, with them 60.0 %."),
    ],
)
def test_the_ablation_says_of_a_fall_only_where_there_is_one(none, said):
    level = {ablation.NONE: none}
    rows = rows_of(ablation.recipes(seeds=1), lambda r: finished(r, 0.6))
    rows = {c: finished(r.recipe, level.get(c.method, 0.6)) for c, r in rows.items()}
    assert ablation.answer(rows).summary[0] == said
