"""The studies of heads on features: each form is searched, on validation classes alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from finished import finished
from nearkin.data import load
from nearkin.measure import retrieval
from nearkin.measure.statistics import bootstrap, bootstrap_difference
from nearkin.runs.engine import Place
from nearkin.runs.executors import complete
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Measurement
from nearkin.runs.run import Run
from nearkin.studies.ask import ask
from nearkin.studies.heads import closed_forms, starts, trained
from nearkin.studies.shared import tuning
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.over_classes import (
    against_closed,
    by_query,
    difference_over_classes,
    over_classes,
)
from nearkin.studies.shared.tuning import HOLDS, STARTS, settings, settle, trials
from nearkin.studies.study import Case

CPU = Place(device="cpu", threads=1)


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> str:
    """30 classes of 12 points in 16 dimensions, most of them noise."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(30), 12)
    signal = random.gamma(1.0, size=(30, 16))[y] * (np.arange(16) < 6)
    x = signal + random.gamma(1.0, size=(360, 16)) * np.arange(1, 17) / 6
    path = tmp_path_factory.mktemp("features") / "points.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return f"features:{path}"


@pytest.fixture(scope="module")
def outcome(features, tmp_path_factory):
    """The study of closed forms, of few forms."""
    options = {"data": features, "dims": "4,8", "methods": "within-class whitened,LDA,PCA"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "POWERS", (0.5, 1.0))
        patch.setattr(tuning, "SHRINKAGES", (0.1, 1.0))
        return ask("closed-forms", options, out=tmp_path_factory.mktemp("out"), place=CPU)


def test_every_form_has_as_many_settings_on_2_folds_at_every_dimension(outcome):
    counts: dict[tuple, int] = {}
    for row in outcome.trials:
        r = row.recipe
        assert r.trial
        key = r.backbone, r.head_start, r.dim, r.seed
        counts[key] = counts.get(key, 0) + 1
    assert set(counts.values()) == {4}
    assert len(counts) == 2 * (3 * 2 + 1)  # 3 forms of 2 dimensions, and the power alone


def test_trials_learn_from_one_half_of_the_classes_and_are_judged_by_the_other(outcome):
    assert {row.recipe.validate_every for row in outcome.trials} == {2}
    assert {row.recipe.seed for row in outcome.trials} == {0, 1}
    assert {row.data.train_classes for row in outcome.trials} == {7, 8}
    assert {row.data.train_classes for row in outcome.rows.values()} == {15}


def test_the_settings_are_the_best_on_validation_classes(outcome):
    for case, row in outcome.rows.items():
        if case.method not in closed_forms.METHODS:
            continue
        shares: dict[tuple, float] = {}
        for trial in outcome.trials:
            r = trial.recipe
            if (r.head_start, r.dim) == (row.recipe.head_start, case["dim"]):
                key = r.head_power, r.head_shrinkage
                shares[key] = shares.get(key, 0) + trial.epochs[-1].validation["map@r"]
        chosen = row.recipe.head_power, row.recipe.head_shrinkage
        assert shares[chosen] == max(shares.values())
        assert not row.recipe.validate
        assert row.recipe.epochs == 0


def test_the_tables_tell_each_form_with_its_interval_over_classes(outcome):
    answer = outcome.answer
    assert [table.title.split()[0] for table in answer.tables] == ["4-D", "8-D", "All"]
    rows = {case: row for case, row in outcome.rows.items() if case["dim"] == 8}
    table = answer.tables[1]
    assert [row[0] for row in table.rows] == [
        "within-class whitened",
        "PCA",
        "LDA",
        "no training, all dimensions",
    ]
    assert [row[0] for row in answer.tables[2].rows] == ["no training", "power alone"]
    whitened = next(row for case, row in rows.items() if case.method == "within-class whitened")
    cell = table.rows[0][1]
    assert cell == over_classes(whitened, "recall@1")
    assert cell.mean == pytest.approx(whitened.metrics.last["recall@1"], abs=1e-5)
    assert cell.n == 15
    assert table.rows[1][4] is None  # PCA has no shrinkage
    assert "The features as they are" in str(answer.findings[0])


def test_trials_of_one_map_follow_each_other(features):
    cases = list(closed_forms.search(features, dims="4,8", methods="LDA"))
    for one, other in zip(cases[::2], cases[1::2], strict=True):
        if one.method == "LDA":
            assert (one["dim"], other["dim"]) == (4, 8)
            assert one["power"] == other["power"]
            assert one.seed == other.seed


def test_24_settings_for_every_head_that_starts_as_a_closed_form():
    for loss in ("proxy-anchor", "multi-similarity"):
        recipe = Recipe(loss=loss, backbone="linear", head_start="whitened")
        found = settings(recipe)
        assert len(found) == 24
        assert len({replace(recipe, **fields) for _, fields in found}) == 24
        assert {name["hold"] for name, _ in found} == set(HOLDS)
        assert {name["start"] for name, _ in found} == set(STARTS)
        assert len(settings(replace(recipe, head_start="orthogonal"))) == 6
        assert len(trials("any", recipe)) == 48


def test_what_is_settled_takes_everything_that_the_best_trial_had():
    recipe = Recipe(loss="proxy-anchor", backbone="linear", head_start="whitened", epochs=4)
    asked = trials("any", recipe, dim=64)
    rows = {}
    for case, tried in asked.items():
        good = (case.get("hold"), case["start"], case["lr"]) == ("decay", "half KISSME", 3e-4)
        row = finished(tried, 0.5)
        epochs = tuple(
            replace(
                row.epochs[0], epoch=epoch, validation={"recall@1": 0.5 + 0.1 * good * (e == 0)}
            )
            for e, epoch in enumerate((2, 4))
        )
        rows[case] = replace(row, epochs=epochs)
    best = settle(recipe, rows, "any", dim=64)
    chosen = {**STARTS["half KISSME"], **HOLDS["decay"], "lr": 3e-4, "epochs": 2}
    assert best == replace(recipe, **chosen)
    assert settle(recipe, rows, "any", dim=128) == recipe
    assert settle(recipe, rows, "any", by="map@r", dim=64) == recipe  # which no trial has


def test_intervals_over_classes_are_those_of_the_queries(features, tmp_path):
    """A row holds means of classes; the bootstrap of these is that of all queries."""
    base = Recipe(
        data=features, backbone="linear", dim=4, loss="contrastive", metric="cosine", epochs=0
    )
    whitened = replace(base, head_start="whitened")
    recipes = [whitened, replace(whitened, head_shrinkage=0.1), base, replace(base, seed=1)]
    a, b, *seeds = complete(recipes, tmp_path, place=CPU)
    ours, other = over_classes(a, "map@r"), by_query(b, "map@r")
    values, classes = by_query(a, "map@r") or ([], [])
    assert ours
    assert other
    assert len(values) == 180
    assert np.mean(values) == pytest.approx(a["metrics"]["last"]["map@r"], abs=1e-5)
    assert ours.mean == pytest.approx(a["metrics"]["last"]["map@r"], abs=1e-5)
    with np.load(tmp_path / a.files.folder / "embeddings.npz") as file:
        found = retrieval(file["x"], file["y"])
    right = bootstrap({"": found.values["map@r"].numpy()}, found.labels.numpy())[""]
    assert (ours.low, ours.high) == pytest.approx((right.low, right.high), abs=1e-5)
    wanted = bootstrap_difference({"": values}, {"": other[0]}, classes)[""]
    assert difference_over_classes(a, b, "map@r") == wanted
    sure = against_closed(dict(enumerate(seeds)), a, "recall@1")
    assert sure
    gaps = [r["metrics"]["last"]["recall@1"] - a["metrics"]["last"]["recall@1"] for r in seeds]
    assert sure.seeds.estimate.mean == pytest.approx(np.mean(gaps), abs=1e-5)
    assert sure.p == max(sure.seeds.p, sure.classes.p)
    assert over_classes(replace(a, by_class=None), "map@r") is None
    assert difference_over_classes(a, replace(b, by_class=None), "map@r") is None
    assert against_closed({0: replace(b, by_class=None)}, a, "map@r") is None


def test_an_unfinished_study_still_answers(outcome):
    few = {case: row for case, row in outcome.rows.items() if case.method == UNTRAINED}
    assert closed_forms.answer(few).findings == ()
    one = next(case for case in outcome.rows if case == Case("LDA", dim=4))
    assert closed_forms.answer({one: outcome.rows[one]}).tables


@pytest.fixture(scope="module")
def heads(features, tmp_path_factory):
    """The study of trained heads, of few settings."""
    options = {"data": features, "dims": "4", "epochs": 2, "seeds": 3}
    options |= {"methods": "proxy-anchor,multi-similarity"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "POWERS", (0.5,))
        patch.setattr(tuning, "SHRINKAGES", (0.3, 1.0))
        patch.setattr(tuning, "STARTED_RATES", (1e-3,))
        patch.setattr(trained, "common", small)
        return ask("heads", options, out=tmp_path_factory.mktemp("out"), place=CPU)


def small(data: str, epochs: int = 0, start: str = "orthogonal") -> Recipe:
    """The common recipe, with batches that fit these few points."""
    return replace(tuning.common(data, epochs, start), batch=32, dim=4)


def test_every_loss_has_as_many_trials_from_the_same_starts(heads):
    tried = [row.recipe for row in heads.trials if row.recipe.epochs]
    for loss, start in (("proxy-anchor", "means"), ("multi-similarity", "random")):
        own = [r for r in tried if r.loss == loss]
        assert len(own) == 3 * 1 * 4 * 2
        assert {r.loss_start for r in own} == {start}
        assert {r.head_power for r in own} == {0.5}
        assert {r.validate_every for r in own} == {2}
        starts = {(r.head_start, r.head_shrinkage) for r in own}
        assert starts == {("whitened", 0.3), ("whitened", 1.0), ("kissme", 1.0)}


def test_heads_are_held_against_the_closed_form_that_is_highest_on_test(heads):
    answer, rows = heads.answer, heads.rows
    (table,) = answer.tables
    names = [row[0] for row in table.rows]
    assert names == [
        "no training, all dimensions",
        *trained.FORMS,
        "multi-similarity",
        "proxy-anchor",
    ]
    shares = {
        case.method: row.metrics.last["recall@1"]
        for case, row in rows.items()
        if case.method in trained.FORMS
    }
    for name in ("multi-similarity", "proxy-anchor"):
        own = [row.metrics.last["recall@1"] for case, row in rows.items() if case.method == name]
        assert len(own) == 3
        (line,) = [row for row in table.rows if row[0] == name]
        gap = 100 * (np.mean(own) - max(shares.values()))
        assert line[3].mean == pytest.approx(gap, abs=1e-3)
        assert line[1].mean == pytest.approx(np.mean(own), abs=1e-6)
    assert len(answer.findings) == 2
    said = " ".join(map(str, answer.findings))
    assert f"{100 * max(shares.values()):.1f} %" in said
    assert answer.summary[0].startswith("At 4-D, ")


def test_heads_without_rows_still_answer(heads):
    few = {case: row for case, row in heads.rows.items() if case.method != "LDA"}
    bare = {case: row for case, row in few.items() if case.method in (UNTRAINED, "proxy-anchor")}
    assert trained.answer(few).tables
    assert trained.answer(bare).findings == ()
    assert trained.answer({}).tables == ()


def test_where_the_gradient_goes_is_told_from_every_start(features, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts, "common", small)
        patch.setattr(starts, "STEPS", 4)
        patch.setattr(starts, "LOOKS", 2)
        patch.setattr(starts, "GROUPS", (1, 2, 4, 6, 8))
        options = {"data": features, "dim": 4, "seeds": 2, "losses": "multi-similarity"}
        outcome = ask("starts", options, out=tmp_path, place=CPU)
        answer = outcome.answer
    assert len(outcome.rows) == 3 * 2
    for measured in outcome.rows.values():
        assert isinstance(measured, Measurement)
        assert [look["step"] for look in measured.values["looks"]] == [0, 2, 4]
        for look in measured.values["looks"]:
            assert sum(look["shares"]) == pytest.approx(1)
            assert len(look["shares"]) == 6
    (table,) = answer.tables
    assert [row[1] for row in table.rows] == list(starts.STARTS)
    assert [figure.title for figure in answer.figures] == [
        "R@1 over steps, multi-similarity",
        "Variance along the features' principal directions",
        "Share of the first 4 directions in what a step changes, multi-similarity",
    ]


def test_the_change_of_embeddings_is_that_of_a_step_along_the_gradient(features):
    """A step of plain gradient descent on the first batch moves all embeddings by -rate X G^T."""
    recipe = replace(small(features), loss="multi-similarity", head_start="whitened", epochs=1)
    run = Run(replace(recipe, optimizer="sgd", momentum=0.0, lr=1e-3), load(features), "cpu")
    before, moved = run.embed(run.splits.train), starts.change(run)
    next(train(run))
    change = (run.embed(run.splits.train) - before).double()
    torch.testing.assert_close(change - change.mean(0), -1e-3 * moved, atol=1e-5, rtol=1e-2)
    variances, scores = starts.principal(run.splits.train.tensor.double().numpy())
    torch.testing.assert_close(scores.T @ scores, torch.eye(16, dtype=torch.double))
    assert (np.diff(variances) <= 0).all()
    shares = (scores.T @ moved).square().sum(1) / moved.square().sum()
    assert shares.sum().item() == pytest.approx(1, abs=1e-6)
