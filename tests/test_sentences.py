"""What a page says by rule of who leads: on ties, two seeds, one method, and where all diverged."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from finished import diverged, finished
from nearkin.answers import FINDINGS, Answer, Finding, surest_first
from nearkin.measure.statistics import paired
from nearkin.runs.recipe import Recipe
from nearkin.studies.shared import comparison, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.reading import scores
from nearkin.studies.study import Case


def seeds(mean: float, n: int = 5, spread: float = 0.001) -> dict[int, float]:
    """Scores of n seeds around a mean."""
    return {seed: mean + spread * (seed - (n - 1) / 2) for seed in range(n)}


def level_with(values: dict[int, float]) -> dict[int, float]:
    """Scores of the same seeds, above and below these by turns, and a little lower in the mean."""
    return {seed: v - 0.0001 + 0.01 * (-1) ** seed for seed, v in values.items()}


TOP = seeds(0.9, n=6)
CLEAR = {"a": TOP, "b": seeds(0.8, n=6), "c": seeds(0.7, n=6)}
CLOSE = {"a": TOP, "b": level_with(TOP), "c": seeds(0.7, n=6)}
BARE = {"no training": {0: 0.6}}


def texts(*compared: Comparison) -> list[str]:
    return [str(finding) for one in compared for finding in sentences.findings(one)]


def test_a_clear_order_is_said_with_its_numbers_and_its_doubt():
    one = Comparison("R@1", CLEAR, BARE, "64-D", reference="c")
    assert one.ranks() == {"a": (1, 1), "b": (2, 2), "c": (3, 3)}
    assert texts(one) == [
        "At 64-D, a is best with 90.0 % R@1, surely above b and c. No training has 60.0 %, 30.0 "
        "points less (p < 0.001).",
        "At 64-D, c has 70.0 % R@1. Surely better are a, +20.0 points (p < 0.001); b, +10.0 points "
        "(p < 0.001). None is surely worse.",
    ]
    assert sentences.summary([one]) == (
        "At 64-D, a is best, with 90.0 % R@1, surely ahead of b and c.",
        "c has 70.0 %, which makes it number 3 of 3.",
        "No training has 60.0 %: a has 30.0 points more.",
    )


def test_who_cannot_be_told_from_the_leader_shares_its_rank():
    one = Comparison("R@1", CLOSE)
    assert one.ranks() == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert texts(one) == ["A leads with 90.0 % R@1, but b cannot be told from it."]
    assert sentences.summary([one]) == (
        "Nobody is surely best; a leads with 90.0 % R@1, and b may be as good.",
    )


def test_ties_are_no_order():
    one = Comparison("R@1", {name: dict(TOP) for name in "abcde"}, reference="e")
    assert set(one.ranks().values()) == {(1, 5)}
    assert sentences.summary([one])[0] == (
        "Nobody is surely best; a leads with 90.0 % R@1, but all 4 others may be as good."
    )
    assert texts(one)[1] == (
        "E has 90.0 % R@1. None is surely better. None is surely worse. All 4 others cannot be "
        "told from it."
    )


@pytest.mark.parametrize("n", [1, 2])
def test_few_seeds_tell_little(n):
    close = {"a": seeds(0.9, n, 0.01), "b": seeds(0.8, n, 0.02), "c": seeds(0.7, n, 0.03)}
    one = Comparison("R@1", close)
    assert set(one.ranks().values()) == {(1, 3)}
    (sentence,) = sentences.summary([one])
    wanted = {
        1: "A leads with 90.0 % R@1, but one seed cannot tell methods apart.",
        2: "Nobody is surely best; a leads with 90.0 % R@1, but b and c may be as good.",
    }
    assert sentence == wanted[n]
    table = comparison.standings([one], "t")
    assert [row[2] for row in table.rows] == ["1–3"] * 3


def test_one_method_has_nothing_to_be_compared_with():
    one = Comparison("R@1", {"a": TOP})
    assert one.ranks() == {"a": (1, 1)}
    assert texts(one) == ["A has 90.0 % R@1."]
    assert sentences.summary([one]) == (
        "A reaches 90.0 % R@1; there is nothing to compare it with.",
    )
    assert "reference" not in " ".join(texts(Comparison("R@1", {"a": TOP}, reference="a")))


def test_where_all_diverged_nothing_is_claimed():
    rows = {Case("a", seed): diverged(finished(Recipe(seed=seed), 0.5)) for seed in range(3)}
    one = Comparison("R@1", scores(rows, "recall@1"))
    assert sentences.findings(one) == []
    assert sentences.summary([one, one]) == ("No run that could be compared has finished.",)
    empty = Answer(
        "t",
        "q",
        tables=(comparison.standings([one], "t"),),
        figures=(comparison.picture([one], "t"),),
    )
    assert (empty.tables, empty.figures) == ((), ())


def test_differences_are_grouped_into_three_sentences_at_most():
    reference = seeds(0.7, n=6)
    better = {f"b{i}": paired(seeds(0.8 + i / 50, n=6, spread=0.0011), reference) for i in range(5)}
    worse = {"w": paired(seeds(0.5, n=6, spread=0.0011), reference)}
    level = {f"l{i}": paired(level_with(reference), reference) for i in range(4)}
    found = sentences.differences_found({**better, **worse, **level}, "x")
    assert [str(finding) for finding in found] == [
        "Surely better than x in R@1 are b4, +18.0 points (p < 0.001); b3, +16.0 points "
        "(p < 0.001); b2, +14.0 points (p < 0.001); and 2 more.",
        "Surely worse than x in R@1 is w, −20.0 points (p < 0.001).",
        "4 of the 10 others cannot be told from x: they lie +0.0 points from it, p ≥ 0.983.",
    ]
    (changed,) = sentences.changes_found({**worse, **level}, "with a change")
    assert str(changed) == (
        "With a change, R@1 surely changes for w, −20.0 points (p < 0.001). It changes for "
        "the 4 others by +0.0 points, which cannot be told from none (p ≥ 0.983)."
    )
    (unsure,) = sentences.changes_found(level, "with a change")
    assert str(unsure) == (
        "With a change, R@1 changes by +0.0 points, which cannot be told from none (p ≥ 0.983)."
    )
    assert sentences.changes_found({}, "with a change") == []
    one_seed = {"a": paired({0: 0.5}, {0: 0.4})}
    assert [str(f) for f in sentences.differences_found(one_seed, "x")] == [
        "One seed cannot tell any method from x."
    ]


def test_a_page_shows_the_surest_first_and_keeps_groups_together():
    found = [
        Finding("maybe", p=0.2, size=0.5),
        Finding("one, small", p=0.0001, size=0.1, group="one"),
        Finding("two", p=0.01, group="two"),
        Finding("large", p=0.0002, size=0.4),
        Finding("one, unsure", group="one"),
    ]
    texts = [str(finding) for finding in surest_first(found)]
    assert texts == ["large", "one, small", "one, unsure", "two", "maybe"]
    assert FINDINGS == 7


def test_an_answer_has_three_sentences():
    with pytest.raises(ValueError, match="3 sentences at most, got 4"):
        Answer("t", "q", summary=("a.",) * 4)


def test_the_picture_marks_who_is_surely_behind_and_no_training():
    drawn = comparison.picture([Comparison("R@1", CLOSE, BARE, "64-D")], "t")
    assert drawn.groups == ("a", "b", "c")
    assert drawn.open == {("c", "64-D")}
    assert drawn.marks == (("no training, 60.0 %", 0.6),)
    first = drawn.values[0][0]
    assert first is not None
    assert first.seeds == tuple(TOP.values())


def test_ranks_are_those_of_scipy_s_tests_corrected_by_hand():
    random = np.random.default_rng(0)
    means = (0.9, 0.89, 0.87, 0.87, 0.8)
    found = {
        name: dict(enumerate(mean + 0.01 * random.normal(size=5)))
        for name, mean in zip("abcde", means, strict=True)
    }
    values = {name: np.array(list(each.values())) for name, each in found.items()}
    for name, (first, last) in Comparison("R@1", found).ranks().items():
        tests = sorted((ttest_rel(values[o], values[name]) for o in found if o != name), key=p_of)
        better = worse = 0
        for i, test in enumerate(tests):
            if p_of(test) * (len(tests) - i) >= 0.05:
                break  # Holm: none beyond the first that is not sure
            better += test.statistic > 0
            worse += test.statistic < 0
        assert (first, last) == (1 + better, 5 - worse)


def p_of(test) -> float:
    """The p of a test of SciPy's."""
    return float(test.pvalue)
