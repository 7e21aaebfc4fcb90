"""Claim: where training knows the test classes, its images are searched, and that is the headline.

Known and new classes are told apart, and no image is its own answer.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch

from nearkin import measure
from nearkin.data import Split, Splits
from nearkin.data.splits import places_in
from nearkin.report import standard
from nearkin.runs.engine import one_line
from nearkin.runs.evaluate import examine, headline
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Metrics, Row
from nearkin.runs.run import Run

evaluate = partial(measure.evaluate, metric="euclidean")  # as contrastive loss makes it
RECIPE = Recipe(
    data="mnist-5k", backbone="linear", dim=6, loss="contrastive", epochs=1, batch=8, per_class=2
)


def vectors(classes, per_class, first=0, seed=0, names="train") -> Split:
    """Class c lies around a centre of its own, the same for every seed."""
    centres = 2 * torch.randn(20, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(seed))
    kinds = tuple(f"c{first + c:02d}" for c in range(classes))
    items = tuple(f"{names}/{i}" for i in range(len(labels)))
    return Split(centres[first + labels] + noise, labels, kinds, items)


def shared(train: Split, test: Split) -> Splits:
    return Splits("x", train, test, test, "", shared_classes=True)


def measured(splits: Splits, final: bool = True) -> dict[str, float]:
    return examine(Run(RECIPE, splits, "cpu", ""), splits, final)


def embedded(splits: Splits) -> list:
    run = Run(RECIPE, splits, "cpu", "")
    return [run.embed(splits.query), run.embed(splits.train)]


def test_training_images_are_searched_and_old_keys_keep_their_meaning():
    splits = shared(vectors(6, 8), vectors(6, 5, seed=1, names="test"))
    found = measured(splits)
    query, train = embedded(splits)
    labels, known = splits.query.labels, splits.train.labels
    wanted = evaluate(query, labels, train, known, ks=(1, 2, 4, 8, 10))
    assert {f"in_train.{k}": v for k, v in wanted.items()}.items() <= found.items()
    assert evaluate(query, labels, ks=(1, 2, 4, 8, 10)).items() <= found.items()
    assert found["knn_accuracy"] == measure.knn_accuracy(
        query, labels, train, known, metric="euclidean"
    )
    assert headline(splits) == "in_train.recall@1"
    quick = measured(splits, final=False)
    assert quick.items() <= found.items()
    assert {"in_train.recall@1", "in_train.recall@8", "recall@1", "knn_accuracy"} <= set(quick)


def test_disjoint_classes_have_their_own_headline_alone():
    test = vectors(6, 5, first=6, seed=1, names="test")
    splits = Splits("x", vectors(6, 8), test, test)
    assert headline(splits) == "recall@1"
    assert not any(key.startswith(("in_train", "new", "knn")) for key in measured(splits))


def test_one_test_image_of_each_class_is_searched_among_the_training_images():
    splits = shared(vectors(6, 8), vectors(6, 1, seed=1, names="test"))
    found = measured(splits)
    assert "recall@1" not in found  # no other test image is of its class
    assert 0 <= found["in_train.recall@1"] <= 1
    row = Row(RECIPE.hash, RECIPE, Metrics(found), Data("x", shared_classes=True))
    assert "R@1 in train" in one_line(row)
    assert standard.headline([row]).key == "in_train.recall@1"
    alone = vectors(6, 1, first=6, seed=1, names="test")
    apart = Splits("x", vectors(6, 8), alone, alone)
    with pytest.raises(ValueError, match="no query has kin"):
        measured(apart)


def test_known_and_new_classes_are_reported_apart():
    train, test = vectors(6, 8), vectors(6, 5, first=3, seed=1, names="test")  # 3 known, 3 new
    splits = Splits("x", train, test, test, mixed_classes=True)
    found = measured(splits)
    query, known = embedded(splits)
    labels = test.labels
    half = labels < 3
    in_train = evaluate(query[half], labels[half], known, train.labels - 3, ks=(1, 2, 4, 8, 10))
    assert found["in_train.recall@1"] == in_train["recall@1"]
    assert found["in_train.map@r"] == in_train["map@r"]
    assert found["in_train.queries_without_kin"] == 15
    new = (~half).nonzero()[:, 0]
    apart = evaluate(query[new], labels[new], query, labels, itself=new)
    assert found["new.recall@1"] == apart["recall@1"]
    assert found["recall@1"] == evaluate(query, labels)["recall@1"]
    assert "knn_accuracy" not in found
    with pytest.raises(ValueError, match=r"disjoint, but share 3, such as 'c03'"):
        replace(splits, mixed_classes=False)


def test_an_image_that_stands_on_both_sides_is_not_its_own_answer():
    train = vectors(6, 8)
    test = train.select(torch.arange(0, 48, 2))
    gallery = replace(train, names=train.names)
    places = places_in(test, gallery)
    assert places.tolist() == list(range(0, 48, 2))
    found = measured(Splits("x", train, test, gallery, "", shared_classes=True))
    query, known = embedded(shared(train, test))
    wanted = evaluate(query, test.labels, known, train.labels, itself=places)
    assert found["in_train.recall@1"] == found["recall@1"] == wanted["recall@1"] < 1
    other = replace(gallery, inputs=gallery.tensor + 1)  # the same names, but other items
    assert places_in(test, other).tolist() == [-1] * 24
    assert places_in(replace(test, names=()), gallery).tolist() == [-1] * 24


def test_names_that_several_items_have_are_told_apart_by_their_vectors():
    train = vectors(4, 4)
    named = replace(train, names=tuple(f"{i % 3}.jpg" for i in range(16)))  # without their folders
    rows = torch.arange(15, -1, -2)
    assert places_in(named.select(rows), replace(named)).tolist() == rows.tolist()
    twice = named.select(torch.tensor([0, 3, 0, 6]))  # one item stands twice
    assert places_in(twice.select(torch.tensor([0, 2, 3])), replace(twice)).tolist() == [0, 2, 3]
    assert places_in(replace(twice, inputs=twice.tensor + 1), named).tolist() == [-1] * 4
