"""Claim: training and test keep apart; validation and subsets are what the protocol says."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearkin.data import Split, Splits, hold_out, subset


def split(sizes, first=0):
    """Class c has sizes[c] items; each item's input tells its class and number."""
    items = torch.tensor([[c + first, i] for c, size in enumerate(sizes) for i in range(size)])
    classes = tuple(f"class {c + first:02}" for c in range(len(sizes)))
    names = tuple(f"{c}/{i}" for c, i in items.tolist())
    return Split(items.float(), items[:, 0] - first, classes, names)


def tensor(part):
    assert isinstance(part.inputs, torch.Tensor)
    return part.inputs


def items(part):
    return {tuple(row) for row in tensor(part).int().tolist()}


def test_a_class_on_both_sides_is_refused():
    with pytest.raises(ValueError, match="share 1, such as 'class 02'"):
        Splits("set", split([2, 2, 2]), split([2, 2], 2), split([2, 2], 3))
    Splits("set", split([2, 2]), split([2, 2]), split([2, 2]), shared_classes=True)


def test_every_fifth_training_class_validates():
    test = split([3] * 4, first=12)
    held = hold_out(Splits("set", split([3] * 12), test, test))
    assert held.query is held.gallery
    assert held.query.classes == ("class 04", "class 09")
    assert len(held.train.classes) == 10
    for part in (held.train, held.query):
        names = torch.tensor([int(part.classes[label][-2:]) for label in part.labels])
        assert torch.equal(names, tensor(part)[:, 0].long())
    assert items(held.train) | items(held.query) == items(split([3] * 12))
    with pytest.raises(ValueError, match="got 4 classes"):
        hold_out(Splits("set", split([3] * 4), test, test))


def test_the_five_folds_validate_each_class_once():
    train = split([3] * 13)
    both = Splits("set", train, split([3], 20), split([3], 20))
    folds = [hold_out(both, fold).query.classes for fold in range(5)]
    assert sorted(name for fold in folds for name in fold) == sorted(train.classes)


def test_every_second_class_validates_and_the_two_folds_exchange_roles():
    both = Splits("set", split([3] * 13), split([3], 20), split([3], 20))
    one, other = (hold_out(both, fold, every=2) for fold in range(2))
    assert (
        one.train.classes == other.query.classes == tuple(f"class {c:02}" for c in range(0, 13, 2))
    )
    assert other.train.classes == one.query.classes


@pytest.mark.parametrize("ordered", [False, True])
def test_the_last_sixth_of_each_class_validates_where_classes_are_shared(ordered):
    labels = torch.arange(39) % 3
    both = replace(
        split([39]), labels=labels.sort().values if ordered else labels, classes=("a",) * 3
    )
    held = hold_out(Splits("set", both, both, both, shared_classes=True))
    assert held.query is held.gallery
    assert torch.equal(held.query.labels.bincount(), torch.tensor([2, 2, 2]))  # of 13 each
    assert torch.equal(held.train.labels.bincount(), torch.tensor([11, 11, 11]))
    assert len({*held.train.names, *held.query.names}) == 39
    for c in range(3):
        last = [name for name, label in zip(both.names, both.labels, strict=True) if label == c][
            -2:
        ]
        of_class = (held.query.labels == c).nonzero()[:, 0]
        assert list(held.query.select(of_class).names) == last


def test_the_halves_of_each_class_validate_in_turn_where_classes_are_shared():
    labels = torch.arange(6).repeat_interleave(torch.tensor([1, 2, 3, 4, 6, 13]))
    both = replace(split([29]), labels=labels, classes=tuple("abcdef"))
    shared = Splits("set", both, both, both, shared_classes=True)
    one, other = (hold_out(shared, fold, every=2) for fold in range(2))
    assert one.query.labels.bincount().tolist() == [0, 1, 1, 2, 3, 6]
    assert other.query.labels.bincount().tolist() == [0, 1, 2, 2, 3, 7]
    assert items(one.query) == items(other.train) - items(both.select(torch.tensor([0])))
    assert items(one.train) | items(one.query) == items(both)
    assert not items(one.train) & items(one.query)
    of_last = one.query.select((one.query.labels == 5).nonzero()[:, 0])
    assert items(of_last) == items(both.select(torch.arange(23, 29)))  # those that lie together
    thirds = [hold_out(shared, fold, every=3) for fold in range(3)]
    assert [held.query.labels.bincount(minlength=6)[5] for held in thirds] == [4, 4, 5]
    assert set.union(*(items(held.query) for held in thirds)) == items(both) - items(
        both.select(torch.tensor([0]))
    )


def test_of_few_images_two_validate_but_no_more_than_half():
    labels = torch.arange(6).repeat_interleave(torch.tensor([1, 2, 3, 4, 6, 13]))
    both = replace(split([29]), labels=labels, classes=tuple("abcdef"))
    held = hold_out(Splits("set", both, both, both, shared_classes=True))
    assert held.query.labels.bincount().tolist() == [0, 1, 1, 2, 2, 2]
    assert held.train.labels.bincount().tolist() == [1, 1, 2, 2, 4, 11]


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=12),
    shares=st.lists(st.floats(0.01, 1), min_size=2, max_size=2),
    seed=st.integers(0, 20),
)
def test_subsets_are_nested(sizes, shares, seed):
    whole = split(sizes)
    small, large = sorted(shares)
    for less, more in (((small, 1.0), (large, 1.0)), ((1.0, small), (1.0, large))):
        inner, outer = (subset(whole, *share, seed) for share in (less, more))
        assert items(inner) <= items(outer) <= items(whole)
        assert set(inner.classes) <= set(outer.classes)
        assert [inner.classes[i] for i in inner.labels] == [
            f"class {c:02}" for c in tensor(inner)[:, 0].int().tolist()
        ]
        assert inner.labels.unique().tolist() == list(range(len(inner.classes)))


def test_subsets_keep_the_share_asked_for():
    whole = split([20] * 10)
    part = subset(whole, 0.25, 0.4, 0)
    assert part.labels.bincount().tolist() == [5] * 4
    assert items(subset(whole, 1.0, 1.0, 3)) == items(whole)
    assert items(subset(whole, 0.5, 1.0, 0)) != items(subset(whole, 0.5, 1.0, 1))
    assert subset(whole, 0.01, 0.01, 0).labels.bincount().tolist() == [2, 2]
    with pytest.raises(ValueError, match="keep_images must be in"):
        subset(whole, 0.0, 1.0, 0)


def test_subsets_keep_the_number_asked_for():
    whole = split([3, 20, 1, 20, 20])
    part = subset(whole, 4, 1.0, 0)
    assert part.labels.bincount().tolist() == [3, 4, 1, 4, 4]
    assert items(subset(whole, 2, 1.0, 0)) < items(part) < items(whole)
    assert len(subset(whole, 1.0, 3, 0).classes) == 3
    assert subset(whole, 1.0, 3, 0).classes == subset(whole, 1.0, 0.6, 0).classes
    assert items(subset(whole, 30, 30, 0)) == items(whole)
    for part in (1.5, 2.5, float("nan"), -2):
        with pytest.raises(ValueError, match=r"keep_classes must be in .* from 2 on, got"):
            subset(whole, 1.0, part, 0)
