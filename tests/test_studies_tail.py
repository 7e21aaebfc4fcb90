"""The study of tails compares under one budget, and its shares stand beside no others."""

import pytest
from scipy.stats import spearmanr

from finished import cells, finished, rows_of, validated
from nearkin.studies.photographs import features_vs_fine_tuning as versus
from nearkin.studies.photographs import tail
from nearkin.studies.shared.methods import CLOSED, UNTRAINED
from nearkin.studies.study import Case

SCORES = {
    "cross-entropy": 0.5,
    "multi-similarity": 0.58,
    "proxy-anchor": 0.52,
    "ProxyGML": 0.55,
    "intra-batch dot-product": 0.51,
}
ELSEWHERE = dict(zip(SCORES, (0.3, 0.5, 0.2, 0.4, 0.1), strict=True))


def own(recipes):
    return {case: recipe for case, recipe in recipes.items() if "tail" in case}


def test_all_methods_share_maps_pictures_and_budget():
    found = own(tail.recipes())
    assert len({r.hash for r in found.values()}) == len(found) == 1 + 2 + 5 * 3
    assert {(r.data, r.size, r.tail, r.tail_crops, r.backbone) for r in found.values()} == {
        ("cub", 224, 1, 2, "lite0")
    }
    trained = [r for r in found.values() if r.epochs]
    assert len({(r.lr, r.backbone_lr, r.batch, r.epochs, r.head_first) for r in trained}) == 1
    assert found[Case(UNTRAINED, tail=1)].backbone_options["head"] == "none"
    assert {r.head_start for r in found.values() if not r.epochs} == {
        "orthogonal",
        *(change["head_start"] for change in CLOSED.values()),
    }
    asked = own(tail.recipes(tail=2, crops=4, size=160, seeds=1))
    assert {(r.size, r.tail, r.tail_crops) for r in asked.values()} == {(160, 2, 4)}


def test_what_stands_beside_is_the_study_of_heads_and_fine_tuning():
    found, wanted = tail.recipes(), versus.recipes(methods=tail.FIVE, start="orthogonal")
    assert {case: r for case, r in found.items() if "tail" not in case} == wanted
    tried = tail.search()
    assert tried.items() >= versus.search(methods=tail.FIVE, start="orthogonal").items()
    assert all(r.trial for r in tried.values())


def test_validation_chooses_epochs_and_shrinkage():
    tried = own(tail.search())
    assert len(tried) == 5 + 2 * 3
    rows = rows_of(tried, lambda recipe: finished(recipe, 0.5))
    case = Case("ProxyGML", tail=1)
    rows[case] = validated(rows[case], {2: 0.3, 4: 0.6, 6: 0.5})
    form = Case("within-class whitened", tail=1, shrinkage=3.0)
    rows[form] = validated(rows[form], {0: 0.7})
    found = own(tail.recipes(searched=rows))
    assert {r.epochs for c, r in found.items() if c.method == "ProxyGML"} == {4}
    assert {r.epochs for c, r in found.items() if c.method == "proxy-anchor"} == {6}
    settled = found[Case("within-class whitened", tail=1)]
    assert (settled.head_shrinkage, settled.epochs) == (3.0, 0)


def rows():
    def share(case, recipe):
        if "tail" in case:
            return SCORES.get(case.method, 0.45) + 0.01 * recipe.seed
        return ELSEWHERE.get(case.method, 0.1) + 0.01 * recipe.seed

    return {case: finished(r, share(case, r)) for case, r in tail.recipes().items()}


def test_the_page_names_the_enlarged_pictures_and_puts_other_shares_nowhere():
    answer = tail.answer(rows())
    standings, order = answer.tables  # rows without classes are not held against closed forms
    for table in (standings, *answer.figures):
        assert "Pictures of CUB birds, photographs (as drawn) were enlarged to 224 px" in table.note
        assert "are to be compared with each other alone" in table.note
    line = cells(standings, "multi-similarity")
    assert line["tail R@1"].mean == pytest.approx(0.59)
    assert cells(standings, UNTRAINED)["tail R@1"].mean == 0.45
    assert order.columns == ("method", "tail", *tail.OTHERS)
    assert cells(order, "ProxyGML")["tail"] == 2
    assert cells(order, "intra-batch dot-product")[tail.OTHERS[1]] == 5
    numbers = {cell for row in order.rows for cell in row[1:]}
    assert numbers <= set(range(1, 6))
    text = " ".join(map(str, answer.findings))
    r = spearmanr(list(SCORES.values()), list(ELSEWHERE.values()))[0]
    assert f"that of {tail.OTHERS[0]} have a rank correlation of {r:.2f}" in text


def test_pictures_that_are_made_smaller_are_not_called_enlarged():
    some = {case: finished(r, 0.5) for case, r in own(tail.recipes(size=96)).items()}
    assert "(as drawn) were brought to 96 px: " in tail.answer(some).tables[0].note


def test_a_page_of_half_the_runs():
    some = {case: row for case, row in rows().items() if "tail" in case and case.seed == 0}
    answer = tail.answer(some)
    assert [table.title for table in answer.tables] == ["R@1 after training the last stages"]
    assert "rank correlation" not in " ".join(map(str, answer.findings))
