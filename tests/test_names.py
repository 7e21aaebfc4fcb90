"""A misspelt name or option is refused, and the error names the nearest valid one."""

import pytest

from nearkin.names import construct, fits, look_up, nearest


class Part:
    def __init__(self, dim: int, scale: float = 1.0, form: str = "right", count: int = 3):
        self.values = (dim, scale, form, count)


def test_nearest_is_always_one_of_the_valid_names():
    assert nearest("triplt", ["contrastive", "triplet"]) == "triplet"
    assert nearest("zzz", ["contrastive"]) == "contrastive"
    assert nearest("zzz", []) == ""


def test_look_up_names_the_nearest_and_lists_all():
    assert look_up("a", {"a": 1}, "loss") == 1
    with pytest.raises(
        ValueError, match=r"unknown loss 'tripelt'.*'triplet'.*contrastive, triplet"
    ):
        look_up("tripelt", {"triplet": 1, "contrastive": 2}, "loss")
    with pytest.raises(ValueError, match="none to choose from"):
        look_up("a", {}, "loss")


def test_offered_values_reach_only_constructors_that_want_them():
    assert construct(Part, {}, "option", dim=8, classes=10).values == (8, 1.0, "right", 3)
    assert construct(Part, {"dim": 4, "scale": 2}, "option", classes=8).values[:2] == (4, 2)


def test_an_option_may_repeat_but_not_contradict_what_is_offered():
    assert construct(Part, {"dim": 8}, "option of part", dim=8).values[0] == 8
    with pytest.raises(ValueError, match=r"option of part 'dim': wanted 8, .* got 4"):
        construct(Part, {"dim": 4}, "option of part", dim=8)


def test_a_build_that_takes_more_options_is_given_them():
    def build(a=1, **options):
        return a, options

    assert construct(build, {"b": 2, "a": 3}, "option") == (3, {"b": 2})
    with pytest.raises(ValueError, match="unknown option 'b'"):
        construct(lambda **kwargs: kwargs, {"b": 2}, "option")


def test_a_wrong_option_is_refused():
    with pytest.raises(ValueError, match="did you mean 'scale'"):
        construct(Part, {"scal": 1.0}, "option", dim=8)
    with pytest.raises(ValueError, match="dim must be given"):
        construct(Part, {}, "option")
    for option in (
        {"scale": "2"},
        {"scale": True},
        {"count": 1.5},
        {"form": True},
        {"count": True},
    ):
        with pytest.raises(ValueError, match=f"'{next(iter(option))}': wanted a value of type"):
            construct(Part, option, "option", dim=8)


def test_a_number_passes_for_a_text():
    assert construct(Part, {"form": 64}, "option", dim=8).values[2] == "64"


def test_types_are_kept_apart():
    assert fits(1, 2.0)
    assert fits("anything", None)
    assert not fits(1, True)
    assert not fits(None, 1.0)
