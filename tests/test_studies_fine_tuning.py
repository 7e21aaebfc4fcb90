"""Fine-tuning compares under one budget; the two rankings are compared as SciPy compares them."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from finished import cells, figures, finished, rows_of, validated
from nearkin.measure.statistics import rank_correlation
from nearkin.studies.photographs import features_vs_fine_tuning as versus
from nearkin.studies.photographs import fine_tuning
from nearkin.studies.photographs.fine_tuning import UNTRAINED
from nearkin.studies.shared.methods import METHODS, picked
from nearkin.studies.shared.sets import CUB
from nearkin.studies.study import Case

SCORES = {"cross-entropy": 0.5, "multi-similarity": 0.58, "proxy-anchor": 0.52, "ProxyGML": 0.55}
NAMES = ",".join(SCORES)


def test_the_short_table_and_the_full_one():
    short, full = fine_tuning.recipes().values(), fine_tuning.recipes(full=True).values()
    assert len({r.hash for r in short}) == len(short) == 1 + 6 * 2
    assert len({r.hash for r in full}) == len(full) == 2 * (1 + 10 * 5)
    assert {(r.data, r.size, r.precision) for r in short} == {("cub", 96, "float32")}
    assert {(r.data, r.size, r.precision) for r in full if r.epochs} == {
        ("cub", 128, "bf16"),
        ("cars", 128, "bf16"),
    }
    assert len({(r.lr, r.backbone_lr, r.batch) for r in full}) == 1


def test_what_is_given_goes_before_the_defaults():
    asked = fine_tuning.recipes(
        data="cars", seeds=3, epochs=2, methods="ProxyGML", size=64, backbone="timm:resnet50"
    ).values()
    assert len(asked) == 1 + 3
    assert {(r.data, r.size, r.backbone) for r in asked} == {("cars", 64, "timm:resnet50")}
    assert {r.epochs for r in asked} == {0, 2}


def test_validation_chooses_the_epochs():
    tried = fine_tuning.search(methods=NAMES)
    assert [r.trial for r in tried.values()] == [True] * 4
    rows = rows_of(tried, lambda recipe: finished(recipe, 0.5))
    case = Case("multi-similarity", data="cub")
    rows[case] = validated(rows[case], {1: 0.3, 5: 0.6, 8: 0.5})
    asked = fine_tuning.recipes(methods=NAMES, searched=rows).values()
    assert {r.epochs for r in asked if r.loss == "multi-similarity"} == {5}
    assert {r.epochs for r in asked if r.loss == "proxy-gml"} == {8}


def tuned_rows(seeds=3):
    return {
        case: finished(r, SCORES[case.method] + 0.01 * r.seed if r.epochs else 0.3)
        for case, r in fine_tuning.recipes(methods=NAMES, seeds=seeds).items()
    }


def test_the_table():
    answer = fine_tuning.answer(tuned_rows())
    standings, table = answer.tables
    assert cells(standings, "ProxyGML")["rank, cub"] == "2"
    assert cells(standings, UNTRAINED)["rank, cub"] == ""
    line = cells(table, "ProxyGML")
    assert (line["R@1"].mean, line["minutes"].mean) == pytest.approx((0.56, 1.0))
    assert (line["best epoch on test"].mean, line["epochs"].mean) == pytest.approx((0.9, 8))
    assert line["p"] == "< 0.001"
    assert cells(table, "multi-similarity")["p"] == ""  # the best
    assert cells(table, UNTRAINED)["R@1"].mean == 0.3
    assert cells(table, UNTRAINED)["minutes"] is None
    assert "As drawn, 96 px; lite0; 2 cores of abacus a run" in table.note
    assert set(figures(answer)[0].groups) == set(SCORES)
    assert figures(answer)[0].marks == ((f"{UNTRAINED}, 30.0 %", 0.3),)
    assert [str(finding) for finding in answer.findings] == [
        "On cub, multi-similarity is best with 59.0 % R@1, surely above cross-entropy, "
        "proxy-anchor and "
        "ProxyGML. No training has 30.0 %, 29.0 points less (p < 0.001)."
    ]
    assert answer.summary == (
        "On cub, multi-similarity is best, with 59.0 % R@1, surely ahead of cross-entropy, "
        "proxy-anchor and ProxyGML.",
        "That is 29.0 points more than no training, which has 30.0 %.",
    )


def test_both_rankings_are_read_and_correlated():
    asked = versus.recipes(methods=NAMES, seeds=3)
    heads = {c: r for c, r in asked.items() if c.get("on") == "features"}
    tuned = {c: r for c, r in asked.items() if c not in heads}
    assert tuned == fine_tuning.recipes(methods=NAMES, seeds=3, data="cub")
    assert {r.data for r in heads.values()} == {CUB}
    rows = tuned_rows() | {c: finished(r, 1 - SCORES.get(c.method, 0.5)) for c, r in heads.items()}
    answer = versus.answer(rows)
    text = " ".join(map(str, answer.findings))
    assert "after fine-tuning have a rank correlation of −1.00" in text
    line = cells(answer.tables[0], "ProxyGML")
    means = (line["features R@1"].mean, line["fine-tuned R@1"].mean)
    assert means == pytest.approx((0.45, 0.56))
    assert {r.trial for r in versus.search(methods=NAMES).values()} == {True}


def by_mean(values):
    """Method -> value."""
    return {f"m{i}": v for i, v in enumerate(values)}


def test_rank_correlation_is_scipys_and_lies_in_its_interval():
    random = np.random.default_rng(3)
    x = random.random(12)
    y = x + random.random(12)
    found = rank_correlation(by_mean(x), by_mean(y))
    assert found is not None
    assert found.mean == pytest.approx(spearmanr(x, y)[0])  # pyright: ignore[reportArgumentType]
    spread = np.arctanh([found.low, found.mean, found.high])
    assert np.diff(spread) == pytest.approx([1.96 * ((1 + found.mean**2 / 2) / 9) ** 0.5] * 2)


def test_the_interval_is_that_of_its_authors_program():
    """Bonett's R package statpsych, the example of ci.spear."""
    y = [21, 4, 9, 12, 35, 18, 10, 22, 24, 1, 6, 8, 13, 16, 19]
    x = [67, 28, 30, 28, 52, 40, 25, 37, 44, 10, 14, 20, 28, 40, 51]
    found = rank_correlation(by_mean(x), by_mean(y))
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx(
        (0.8699639, 0.5840951, 0.9638297), abs=1e-4
    )


def test_a_perfect_order_of_few_is_no_proof():
    for order in (1, -1):
        found = rank_correlation(by_mean(range(5)), by_mean([order * i for i in range(5)]))
        assert found is not None
        assert found.mean == pytest.approx(order)
        assert abs(found.low + found.high) < 1.9
    assert rank_correlation(by_mean([1, 2, 3]), by_mean([1, 2, 3])) is None


def test_every_method_of_the_full_table_is_known():
    assert set(picked(fine_tuning.FULL["methods"])) == set(METHODS) - {"contrastive"}
