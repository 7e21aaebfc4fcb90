"""What a study says claims no more than its tests do: who is best, who leads, who is level."""

import pytest

from nearkin.measure.statistics import paired
from nearkin.studies.shared.reading import against
from nearkin.studies.shared.words import (
    difference_words,
    leader_words,
    listed,
    surely,
    undecided,
)


def seeds(mean: float, spread: float = 0.001, n: int = 5) -> dict[int, float]:
    """Values of n seeds around a mean."""
    return {seed: mean + spread * (seed - (n - 1) / 2) for seed in range(n)}


def level_with(values: dict[int, float]) -> dict[int, float]:
    """Values of the same seeds, above and below these by turns, a little lower in the mean."""
    return {seed: v - 0.0001 + 0.01 * (-1) ** seed for seed, v in values.items()}


TOP = seeds(0.9, n=6)
LEVEL = level_with(TOP)


def test_best_is_said_where_every_paired_test_is_sure():
    found = {"a": TOP, "b": seeds(0.8, n=6), "c": seeds(0.7, n=6)}
    assert leader_words(found, "R@1") == "a is best with 90.0 % R@1, surely above b and c."


def test_the_tests_are_corrected_for_their_number():
    """Each p of 0.02 is sure alone, three together are not."""
    a = {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.9}
    b = {0: 0.895, 1: 0.885, 2: 0.88, 3: 0.87}
    assert 0.025 < paired(a, b).p < 0.05
    assert "is best" in leader_words({"a": a, "b": b}, "R@1")
    alike = {name: dict(b) for name in "bcd"}
    assert leader_words({"a": a, **alike}, "R@1") == (
        "a leads with 90.0 % R@1, but b, c and d cannot be told from it."
    )


@pytest.mark.parametrize(
    ("level", "behind", "words"),
    [
        (1, 0, "b0 cannot be told from it"),
        (2, 1, "b0 and b1 cannot be told from it"),
        (4, 1, "4 of the 5 others cannot be told from it"),
        (4, 0, "none of the 4 others can be told from it"),
    ],
)
def test_who_is_level_is_named_or_counted(level, behind, words):
    found = {"a": TOP} | {f"b{i}": LEVEL for i in range(level)}
    found |= {f"c{i}": seeds(0.5, n=6) for i in range(behind)}
    assert leader_words(found, "5-NN", 2) == f"a leads with 90.00 % 5-NN, but {words}."


def test_one_seed_and_one_method_tell_nothing():
    one = {"a": {0: 0.9}, "b": {0: 0.1}}
    assert leader_words(one, "R@1") == (
        "a leads with 90.0 % R@1, but one seed cannot tell methods apart."
    )
    assert leader_words({"a": TOP}, "R@1") == "a has 90.0 % R@1."


def test_never_one_of_the_one_others_nor_none_of_many():
    """Whatever is compared with whatever."""
    for level in range(6):
        for behind in range(6):
            found = {"a": TOP} | {f"b{i}": LEVEL for i in range(level)}
            found |= {f"c{i}": seeds(0.5, n=6) for i in range(behind)}
            text = leader_words(found, "R@1")
            assert " 0 of" not in text
            assert "1 of the 1" not in text
            assert "all 1 " not in text
            assert "of the 1 other" not in text


def test_those_surely_above_and_below():
    found = {"a": seeds(0.7, n=6), "b": TOP, "c": seeds(0.5, n=6), "d": level_with(seeds(0.7, n=6))}
    differ = against("a", found)
    assert surely(differ, 1) == ["b"]
    assert surely(differ, -1) == ["c"]
    assert undecided(differ) == "d cannot be told from it"
    assert undecided({"b": differ["b"]}) == ""


def test_lists_are_short():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"], 2) == "a and b"


def test_a_difference_has_its_p_where_there_are_seeds_to_tell():
    assert difference_words(paired({0: 0.5}, {0: 0.4})) == "+10.0 points"
    sure = difference_words(paired(seeds(0.5), seeds(0.6, 0.0011)))
    assert sure == "−10.0 points (p < 0.001)"
    level = paired(seeds(0.5, n=6), level_with(seeds(0.5, n=6)))
    assert difference_words(level) == "+0.0 points (p = 0.983)"
