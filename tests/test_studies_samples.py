"""The study of samples takes equal steps, and reads shares, laws and bands from rows rightly."""

import numpy as np
import pytest

from finished import cells, figures, finished, validated
from nearkin.runs.engine import Place
from nearkin.runs.executors import complete
from nearkin.studies.photographs import samples
from nearkin.studies.photographs.samples import SHARES, UNTRAINED, enough, law, share_for


def test_every_share_is_asked_for_in_equal_steps():
    found = samples.recipes(seeds=2, methods="contrastive,ProxyGML", start="orthogonal")
    asked = {r.hash: r for r in found.values()}.values()
    assert len(found) == 2 * 2 * (5 + 5) + 1
    assert len(asked) == 2 * 2 * (5 + 4) + 1  # all data are of both ways
    trained = [r for r in asked if r.epochs]
    assert {r.steps for r in trained} == {600}
    assert not any(r.keep_images < 1 and r.keep_classes < 1 for r in trained)
    assert {r.keep_images for r in trained} == {r.keep_classes for r in trained} == set(SHARES)
    images = samples.recipes(seeds=2, methods="contrastive", ways="images", start="orthogonal")
    assert [r.keep_classes for r in images.values()] == [1.0] * (2 * 5 + 1)
    with pytest.raises(ValueError, match="unknown way 'class': did you mean 'classes'"):
        samples.recipes(ways="class")


def test_validation_chooses_how_many_parts_of_the_steps_are_taken():
    tried = samples.search(methods="contrastive", steps=60, start="orthogonal")
    assert {(r.steps, r.epochs, r.trial) for r in tried.values()} == {(60, 6, True)}
    rows = {}
    for case, recipe in tried.items():
        best = 0.9 if recipe.lr == 1e-3 else 0.5
        shares = {e: best - abs(e - 4) / 100 for e in (2, 4, 6)}
        rows[case] = validated(finished(recipe, 0), shares)
    given: dict = {"methods": "contrastive", "steps": 60, "start": "orthogonal"}
    asked = samples.recipes(seeds=1, searched=rows, **given).values()
    assert {(r.lr, r.steps, r.epochs) for r in asked if r.epochs} == {(1e-3, 40, 4)}


@pytest.mark.parametrize(("a", "b", "c"), [(0.8, 0.5, 0.4), (0.6, 2.0, 1.5), (1.0, 0.9, 0.1)])
def test_the_law_is_found_again(a, b, c):
    n = [3, 6, 15, 29, 59]
    assert law(n, [a - b * x**-c for x in n]) == pytest.approx((a, b, c), rel=1e-3)
    assert law(n[:3], [0.1, 0.2, 0.3]) is None


def test_the_share_that_is_enough_lies_between_the_points():
    points = {0.05: {0: 0.3}, 0.1: {0: 0.5}, 0.5: {0: 0.96}, 1.0: {0: 1.0}}
    # 0.95 lies 45/46 of the way from 0.5 to 0.96, so the share that far from 10 to 50 %
    assert share_for(points, 0) == pytest.approx(0.1 * 5 ** (45 / 46))
    assert share_for({0.05: {0: 0.99}, 1.0: {0: 1.0}}, 0) == 0.05
    assert share_for({0.05: {0: 0.1}, 1.0: {0: 1.0}}, 0) < 1


def test_only_seeds_with_every_share_count():
    points = {0.5: {0: 0.9, 1: 0.8}, 1.0: {0: 0.9}}
    assert enough(points) == {0: 0.5}
    assert enough({1.0: {0: 0.9}}) == enough({}) == {}


def rows_of(asked):
    """R@1 by a law of the number of images or classes; the seed adds a little."""
    rows = {}
    for case, recipe in asked.items():
        images = round(60 * recipe.keep_images)
        classes = round(100 * recipe.keep_classes)
        score = 0.6 - 0.5 * images**-0.5 - 0.3 * (classes**-0.8 - 100**-0.8) + 0.01 * recipe.seed
        score = score if recipe.epochs else 0.2
        rows[case] = finished(recipe, score, images * classes, classes)
    return rows


def test_the_answer_has_each_way_apart():
    rows = rows_of(samples.recipes(seeds=3, methods="contrastive,ProxyGML", start="orthogonal"))
    answer = samples.answer(rows)
    images, classes = (cells(table, "ProxyGML") for table in answer.tables[1:])
    assert images["5"].mean == pytest.approx(0.61 - 0.5 * 3**-0.5)
    assert classes["5"].mean == pytest.approx(0.61 - 0.5 * 60**-0.5 - 0.3 * (5**-0.8 - 100**-0.8))
    assert images["100"] == classes["100"]
    assert (images["a"], images["b"], images["c"]) == pytest.approx((0.61, 0.5, 0.5), rel=1e-3)
    assert cells(answer.tables[1], UNTRAINED)["25"] == 0.2
    lines = {line.name: line for line in figures(answer)[1].lines}
    assert lines["ProxyGML"].x == (5, 10, 25, 50, 100)
    assert lines["ProxyGML"].low[0] < lines["ProxyGML"].y[0] < lines["ProxyGML"].high[0]
    assert lines["ProxyGML, law"].dashed
    assert [name for name, line in lines.items() if line.listed] == [
        name for name in lines if not name.endswith(", law")
    ]
    assert lines[UNTRAINED].y == (0.2, 0.2)
    assert answer.summary[0] == (
        "Contrastive reaches 95 % of its R@1 on all data with 50 % of the images of each class; "
        "ProxyGML, which needs most, with 50 %."
    )
    assert (
        "For 95 % of its R@1 on all data, contrastive needs 50 % of the images of each class and "
        "ProxyGML 50 %; contrastive needs least, but ProxyGML cannot be told from it."
    ) in map(str, answer.findings)


def test_it_runs(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    y = np.arange(12).repeat(20)
    x = random.random((12, 5))[y] + 0.3 * random.random((240, 5))
    np.savez(tmp_path / "tiny.npz", x=x.astype("float32"), y=y)
    monkeypatch.setattr(samples, "SHARES", (0.5, 1.0))
    asked = samples.recipes(
        data="features:tiny.npz",
        seeds=1,
        steps=6,
        methods="contrastive",
        tune=False,
        start="orthogonal",
    )
    rows = complete(asked, tmp_path, place=Place(root=str(tmp_path)))
    for table in samples.answer(rows).tables[1:]:
        assert cells(table, "contrastive")["50"].n == 1
    kept = {
        (case["of"], case["share"]): (row.data.train_classes, row.data.train_images)
        for case, row in rows.items()
        if case.axes
    }
    assert kept == {
        ("images", 0.5): (6, 60),
        ("images", 1.0): (6, 120),
        ("classes", 0.5): (3, 60),
        ("classes", 1.0): (6, 120),
    }
