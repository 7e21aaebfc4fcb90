"""Metrics are what their definitions say: a slow loop, pytorch-metric-learning, scikit-learn.

Where those leave ties to chance, the loop decides: larger similarity first, then lower index.
"""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from nearkin.measure import (
    check_embeddings,
    confusion,
    evaluate,
    knn_accuracy,
    label_propagation,
    metrics,
    neighbours,
    propagation_accuracy,
    recalls,
    retrieval,
    scattering,
)
from nearkin.measure.clusters import k_means
from nearkin.measure.nearest.exact import points, similarities

Sides = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
NONE: Any = None
TEXT: Any = "1 GB"


def sample(n: int, classes: int, seed: int = 0, dim: int = 8) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=random)
    centres = torch.randn(classes, dim, generator=random)
    return centres[labels] + torch.randn(n, dim, generator=random), labels


def cases() -> dict[str, Sides]:
    x, y = sample(300, 30)
    singles = torch.where(torch.arange(300) % 10 == 0, 1000 + torch.arange(300), y)
    gallery, kinds = sample(200, 20, seed=1)  # classes 20..29 have no match there
    one_large = torch.where(torch.arange(300) < 200, 77, y)
    return {
        "each other": (x, y, None, None),
        "singleton classes": (x, singles, None, None),
        "query and gallery, classes missing": (x, y, gallery, kinds),
        "two classes": (*sample(60, 2), None, None),
        "one large class": (x, one_large, None, None),
        "ties": (x.sign(), y, None, None),
        "collapsed": (torch.ones(300, 8), y, None, None),
        "labels far apart": (x, y * 10**12 - 5, None, None),
        "a gallery of three": (x, y, x[:3], y[:3]),
    }


def fitting(sides: Sides, *ks: int) -> tuple[int, ...]:
    """Those of the k that are not beyond what a query is searched in."""
    size = len(sides[0]) - 1 if sides[2] is None else len(sides[2])
    return tuple(k for k in ks if k <= size)


def by_the_book(query: Tensor, labels: Tensor, gallery: Tensor | None, kinds: Tensor | None):
    """Metric -> value of each query with kin, one query at a time, from its whole ranking."""
    alone = gallery is None
    recall_ks = fitting((query, labels, gallery, kinds), 1, 2, 5, 299)
    gallery, kinds = (query, labels) if gallery is None or kinds is None else (gallery, kinds)
    found: dict[str, list[float]] = {}
    table = similarities(points(query), points(gallery))
    for i, row in enumerate(table.tolist()):
        others = [j for j in range(len(row)) if not (alone and i == j)]
        others.sort(key=lambda j: (-row[j], j))
        hit = [bool(kinds[j] == labels[i]) for j in others]
        r = sum(hit)
        if not r:
            continue
        first = 1 + hit.index(True)
        precision = [sum(hit[:n]) / n for n in range(1, r + 1)]
        scores = {f"recall@{k}": float(first <= k) for k in recall_ks}
        scores |= {
            "mrr": 1 / first,
            "r_precision": precision[-1],
            "map@r": sum(p for p, h in zip(precision, hit, strict=False) if h) / r,
            "precision@3": sum(hit[:3]) / 3,
        }
        if len(others) >= 10:
            scores["precision@10"] = sum(hit[:10]) / 10
        for name, value in scores.items():
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("memory", [1e9, 3e4])
@pytest.mark.parametrize("name", cases())
def test_retrieval_metrics_are_those_of_the_definitions(name: str, memory: float):
    sides = cases()[name]
    wanted = by_the_book(*sides)
    ks, precision_ks = fitting(sides, 1, 2, 5, 299), fitting(sides, 3, 10)
    found = retrieval(*sides, ks=ks, precision_ks=precision_ks, memory=memory)
    assert set(found.values) == set(wanted)
    for metric, values in wanted.items():
        torch.testing.assert_close(found.values[metric].double(), torch.tensor(values).double())
    means = evaluate(*sides, ks=ks, precision_ks=precision_ks)
    left_out = means.pop("queries_without_kin", 0)
    assert means == pytest.approx({m: sum(v) / len(v) for m, v in wanted.items()})
    assert left_out == found.without_kin == len(sides[0]) - len(wanted["mrr"])


@pytest.mark.parametrize("name", cases())
def test_recalls_alone_are_those_of_the_whole_evaluation(name: str):
    sides = cases()[name]
    ks = fitting(sides, 1, 2, 5)
    whole = evaluate(*sides, ks=ks)
    assert recalls(*sides, ks=ks) == {k: whole[k] for k in whole if "recall" in k}


@pytest.mark.parametrize("name", ["each other", "singleton classes", "two classes", "ties"])
@pytest.mark.parametrize("apart", [False, True])
def test_metrics_are_those_of_pytorch_metric_learning(name: str, apart: bool):
    query, labels, _, _ = cases()[name]
    gallery, kinds = sample(200, 20, seed=1) if apart else (None, None)
    size = len(query if gallery is None else gallery)

    def in_our_order(query, k, reference, shared):
        return neighbours(query, k, None if shared else reference)

    calculator = AccuracyCalculator(
        exclude=("NMI", "AMI"), k=size - (not apart), knn_func=in_our_order
    )
    theirs = calculator.get_accuracy(query, labels, gallery, kinds)
    ours = evaluate(query, labels, gallery, kinds)
    assert ours["recall@1"] == pytest.approx(theirs["precision_at_1"])
    assert ours["r_precision"] == pytest.approx(theirs["r_precision"])
    assert ours["map@r"] == pytest.approx(theirs["mean_average_precision_at_r"])
    assert ours["mrr"] == pytest.approx(theirs["mean_reciprocal_rank"], rel=1e-5)


def test_means_per_class_are_those_of_pytorch_metric_learning():
    x, y = sample(200, 15)
    calculator = AccuracyCalculator(
        include=("mean_average_precision_at_r",), k=199, return_per_class=True
    )
    theirs = calculator.get_accuracy(torch.nn.functional.normalize(x), y)
    ours = retrieval(x, y).per_class()
    assert list(ours) == y.unique().tolist()
    wanted = theirs["mean_average_precision_at_r"]
    assert [row["map@r"] for row in ours.values()] == pytest.approx(wanted)


def test_a_collapsed_network_gets_what_it_deserves():
    """All similarities are equal, so item 0 is nearest to all, and item 1 to item 0."""
    labels = torch.arange(8) // 2  # 0 0 1 1 2 2 3 3
    for x in (torch.ones(8, 3), torch.zeros(8, 3)):
        found = retrieval(x, labels, ks=(1, 3), precision_ks=())
        rank = torch.tensor([1, 1, 3, 3, 5, 5, 7, 7])
        assert torch.equal(found.values["mrr"], 1 / rank.double())
        assert torch.equal(found.values["recall@1"], rank <= 1)
        assert torch.equal(found.values["recall@3"], rank <= 3)


def test_names_of_classes_and_order_of_items_do_not_matter():
    x, y = sample(250, 12)
    shuffled, renamed = torch.arange(250) * 7 % 250, torch.arange(12) * 5 % 12
    wanted = evaluate(x, y)
    assert evaluate(x[shuffled], renamed[y[shuffled]]) == pytest.approx(wanted)
    assert evaluate(3 * x, y) == pytest.approx(wanted)  # the cosine has no scale


def test_a_mixture_of_deep_and_shallow_queries_is_looked_into_as_deep_as_needed(monkeypatch):
    depths = []
    search = metrics.nearest_keys
    monkeypatch.setattr(
        metrics,
        "nearest_keys",
        lambda part, k: depths.append((len(part.query), k)) or search(part, k),
    )
    x, _ = sample(400, 5)
    labels = torch.where(torch.arange(400) < 100, 0, torch.arange(400) // 2)
    evaluate(x, labels, precision_ks=())
    assert depths == [(300, 1), (100, 99)]


def test_clusters_are_those_of_scikit_learn_and_pytorch_metric_learning():
    x, y = sample(300, 12)
    found = evaluate(x, y, clusters=True, metric="euclidean", seed=3)
    clusters = k_means(x, 12, seed=3)
    huge = k_means(x * 1e25, 12, seed=3)  # the squares of which float32 does not hold
    assert adjusted_mutual_info_score(clusters, huge) == pytest.approx(1)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(y, clusters))
    assert found["ami"] == pytest.approx(adjusted_mutual_info_score(y, clusters))
    theirs = AccuracyCalculator(
        include=("NMI", "AMI"), kmeans_func=lambda x, k: k_means(x, k, seed=3)
    ).get_accuracy(x, y)
    assert (found["nmi"], found["ami"]) == pytest.approx((theirs["NMI"], theirs["AMI"]))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn_accuracy_is_that_of_scikit_learn(metric: str):
    x, y = sample(300, 3)  # an odd number of votes for 3 classes can tie: k = 1 and 2 classes
    query, labels = sample(100, 3, seed=1)
    for k, kinds in ((1, 3), (5, 2)):
        reference = KNeighborsClassifier(k, metric=metric).fit(x, y % kinds)
        wanted = reference.score(query, labels % kinds)
        found = knn_accuracy(query, labels % kinds, x, y % kinds, k=k, metric=metric)
        assert found == pytest.approx(wanted)


def test_a_tied_vote_is_won_by_the_class_of_the_nearest():
    gallery = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    query = torch.tensor([[0.0]])
    for kinds, winner in (([5, 6, 6, 5], 5), ([6, 5, 5, 6], 6), ([6, 5, 5, 7], 5)):
        for guess in (5, 6, 7):
            accuracy = knn_accuracy(
                query, torch.tensor([guess]), gallery, torch.tensor(kinds), 4, metric="euclidean"
            )
            assert accuracy == (guess == winner)


def test_knn_accuracy_leaves_the_query_out_of_its_own_vote():
    x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    assert knn_accuracy(x, torch.tensor([0, 1, 0, 1]), k=1, metric="euclidean") == 0.0


def test_intervals_hold_the_mean_and_a_comparison_with_itself_is_nothing():
    x, y = sample(300, 25)
    found = retrieval(x, y)
    flat = evaluate(x, y, intervals=True)
    for name, mean in found.mean().items():
        assert flat[f"{name}/low"] < mean < flat[f"{name}/high"]
        assert found.intervals()[name].n == 25
    better = retrieval(x + 2 * torch.eye(25, 8)[y], y)
    assert all(d.p == 1 and d.estimate.mean == 0 for d in found.compare(found).values())
    difference = better.compare(found)["map@r"]
    wanted = better.mean()["map@r"] - found.mean()["map@r"]
    assert difference.estimate.mean == pytest.approx(wanted)
    with pytest.raises(ValueError, match="same queries"):
        found.compare(retrieval(x[:200], y[:200]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, y: evaluate(x, y[:-1]), "query labels must be 20 integers or texts, one a row"),
        (lambda x, y: evaluate(x, y.numpy()[:-1]), r"query labels must be 20 .*, got \(19,\)"),
        (lambda x, y: evaluate(x, y + 0.5), "query labels must be 20 .*, got .*5 of float64"),
        (lambda x, y: evaluate(x, *[[None, *y[1:]]]), "got None of NoneType in row 0"),
        (lambda x, y: evaluate(x, y, x[:9], ["a"] * 9), r"one kind: query .* integers.*\['a'\]"),
        (lambda x, y: evaluate(x, y, ks=[1, 20]), "k must be in 1..19, .* got 20"),
        (lambda x, y: evaluate(x, y, ks=[1.5]), "k must be a whole number, got 1.5"),  # type: ignore
        (lambda x, y: evaluate(x, y, ks=5), r"ks must be several numbers, such as \(1, 5\), got 5"),  # type: ignore
        (
            lambda x, y: evaluate(x, y, x[:5], y[:5], precision_ks=[6]),
            "k must be in 1..5, .* got 6",
        ),
        (lambda x, y: evaluate(x, y, itself=[0] * 20), "itself wants a gallery"),
        (lambda x, y: evaluate(x, y, x[:5], y[:5], itself=y + 3), "itself must be 20 .* -1..4"),
        (lambda x, y: evaluate(x, y, x[:9]), "gallery needs labels"),
        (lambda x, y: evaluate(x, torch.arange(20)), "no query has kin"),
        (lambda x, y: evaluate(x, y, x, y + 9), "no query has kin"),
        (lambda x, y: evaluate(x.log(), y), "query: row . holds NaN"),
        (lambda x, y: evaluate(np.ma.masked_greater(x.numpy(), 0), y), "got a masked array"),
        (lambda x, y: evaluate(x.to("meta"), y), "query must be .* got a tensor without values"),
        (lambda x, y: evaluate(x, y, clusters=True, seed=NONE), "seed must be a whole number"),
        (lambda x, y: evaluate(x, y, memory=TEXT), "memory must be a number .* got '1 GB'"),
        (lambda x, y: scattering(x * torch.nan, y), "embeddings: row 0 holds NaN"),
        (lambda x, y: knn_accuracy(x, y, k=20), "k must be in 1..19, got 20"),
        (lambda x, y: evaluate(*["x.npz", y]), "query must be a matrix of numbers.* got"),
        (lambda x, y: evaluate(x, y, *[[[1.0], [1, 2]], y]), "gallery must be .* got list"),
        (lambda x, y: evaluate(x + 1j, y), "query must be a matrix of numbers.*complex"),
        (lambda x, y: evaluate((x + 1j).numpy().astype("c16"), y), "of complex128: put real"),
        (lambda x, y: neighbours([[1j, 2], [3, 4]], 1), "of complex128"),
        (
            lambda x, y: evaluate(torch.nested.nested_tensor([*x], layout=torch.jagged), y),
            "got a nested tensor",
        ),
        (lambda x, y: evaluate([[10**400]] * 20, y), "query must be a matrix of numbers"),
        (lambda x, y: evaluate(*[None, y, None, y]), "query must be a matrix of numbers"),
        (lambda x, y: evaluate(x, y.to("meta")), "query labels must be .* without values"),
        (lambda x, y: evaluate(x, y.to_sparse()), "query labels must be .* a sparse tensor"),
        (lambda x, y: evaluate(x.double() * 1e200, y), "row 0 holds numbers .* too large for fl"),
        (lambda x, y: evaluate(x.double() * 1e-200, y), "row 0 holds numbers .* too small for"),
        (lambda x, y: neighbours(x.double() * 1e-39, 1, metric="inner"), "too small for float32"),
        (lambda x, y: neighbours(x, 1, memory=float("nan")), "memory must be a number .* got nan"),
        (lambda x, y: neighbours(x, 1, memory=TEXT), "memory must be a number .* got '1 GB'"),
        (lambda x, y: neighbours(np.arange(20), 1), "query must be a matrix of numbers"),
        (lambda x, y: neighbours([["a"]], 1), "query must be a matrix of numbers"),
        (lambda x, y: check_embeddings(x.numpy() * np.nan), "embeddings: row 0 holds NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call(*sample(20, 3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ks": [1, 0]}, "k must be in 1..19, .* got 0"),
        ({"memory": float("inf")}, "above 0"),
    ],
)
def test_sizes_that_are_none_are_refused(given, said):
    x, y = sample(20, 4)
    for measured in (evaluate, recalls):
        with pytest.raises(ValueError, match=said):
            measured(x, y, **given)
    for none in (0, -3):
        with pytest.raises(ValueError, match=f"k must be in 1..19, .* got {none}"):
            evaluate(x, y, precision_ks=[none])


def test_small_numbers_of_float32_are_what_they_are():
    x, y = sample(20, 4)
    assert evaluate(x * 1e-37, y) == evaluate((x * 1e-37).double(), y)
    x[3] = 0  # which is a point of the plane
    assert evaluate(x.double(), y, metric="euclidean") == evaluate(x, y, metric="euclidean")


def test_labels_may_be_integers_of_any_kind():
    x, y = sample(20, 4)
    found = evaluate(x, y, x, y, clusters=True)
    assert evaluate(x, y.int(), x, y.short(), clusters=True) == found
    assert evaluate(x, y.tolist(), x, y.numpy(), clusters=True) == found  # pyright: ignore
    two = y > 1
    assert evaluate(x, two, x, two, clusters=True) == evaluate(
        x, two.long(), x, two.long(), clusters=True
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "measured",
    [
        lambda x, y: evaluate(x, y, clusters=True, intervals=True),
        lambda x, y: evaluate(x, y, x[:9], y[:9]),
        lambda x, y: recalls(x, y, x[:9], y[:9]),
        lambda x, y: knn_accuracy(x, y),
        lambda x, y: retrieval(x, y).mean(),
        lambda x, y: scattering(x, y),
        lambda x, y: confusion(x, y).tolist(),
        lambda x, y: label_propagation(x, y, x[:, 0] > 0).tolist(),
        lambda x, y: propagation_accuracy(x, y),
        lambda x, y: [found.tolist() for found in neighbours(x, 3)],
        lambda x, y: [found.tolist() for found in neighbours(x, 3, x[:9])],
    ],
)
def test_arrays_of_numpy_are_measured_as_tensors_are(measured, dtype):
    x, y = sample(40, 4)
    x = x.numpy().astype(dtype)
    assert measured(x, y.numpy()) == measured(torch.from_numpy(x), y)


def test_numpy_arrays_may_step_back_and_be_of_foreign_bytes_or_read_only():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6)).astype(np.float32), np.arange(40) % 5
    kept = x.astype(">f4")
    kept.flags.writeable = False
    wanted = evaluate(x, y, clusters=False)
    assert evaluate(kept, y.astype(">i8"), clusters=False) == wanted
    assert evaluate(x[:, ::-1][:, ::-1], y[::-1][::-1], clusters=False) == wanted
    flipped = evaluate(x[::-1], y[::-1], clusters=False)
    assert flipped["recall@1"] == wanted["recall@1"]


class Table:
    """What pandas and its like are to NumPy."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __len__(self):
        return len(self.values)


def test_embeddings_and_labels_may_be_of_any_kind():
    x, y = sample(40, 4)
    x = (8 * x).round()
    names = np.array(["cat", "dog", "hen", "emu"])[y]
    wanted = evaluate(x, y, clusters=True, intervals=True)
    for kind in (x.half(), x.double(), x.int(), x.numpy().astype(np.int8), x.tolist()):
        assert evaluate(kind, y, clusters=True, intervals=True) == wanted
    for kind in (Table(x.numpy()), Table(x.numpy().astype(object)), x.numpy().astype(">f8")):
        assert evaluate(kind, y, clusters=True, intervals=True) == wanted  # type: ignore
    for labels in (y.double(), y.tolist(), names, names.tolist(), names.astype("S"), Table(names)):
        assert evaluate(x, labels) == {k: wanted[k] for k in evaluate(x, y)}  # type: ignore
    both = evaluate(x[:20], names[:20].astype(object), x[20:], names[20:].astype("S3"))
    assert both == evaluate(x[:20], y[:20], x[20:], y[20:])
    per_class = retrieval(x, names).per_class()
    assert set(per_class) == {"cat", "dog", "hen", "emu"}
    assert per_class["dog"] == retrieval(x, y).per_class()[1]  # type: ignore


def test_what_came_as_numpy_goes_as_numpy():
    x, y = sample(40, 4)
    known = torch.arange(40) < 20
    for given in (x.numpy(), x.tolist()):
        for found, wanted in (
            (neighbours(given, 3).indices, neighbours(x, 3).indices),
            (neighbours(given, 3, x).similarities, neighbours(x, 3, x.numpy()).similarities),
            (confusion(given, y), confusion(x, y)),
            (label_propagation(given, y, known), label_propagation(x, y, known)),
        ):
            assert isinstance(found, np.ndarray)
            assert isinstance(wanted, Tensor)
            assert np.array_equal(found, wanted.numpy())
    names = np.array(["ant", "bee", "cow", "dog"])[y]
    propagated = label_propagation(x, names, known)
    assert np.array_equal(propagated, names[[names.tolist().index(n) for n in propagated]])
    alone = label_propagation(torch.eye(3), ["a", "b", "c"], [True, True, False], k=1)  # type: ignore
    assert alone[2] == ""  # nobody reaches it


def test_a_query_that_stands_in_the_gallery_is_not_its_own_answer():
    x, y = sample(60, 6)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    places = order.argsort()
    wanted = evaluate(x, y)
    shuffled = evaluate(x, y, x[order], y[order], itself=places)
    assert shuffled == pytest.approx(wanted)
    assert evaluate(x, y, x, y) == wanted  # the same object is searched among the others
    assert recalls(x, y, x[order], y[order], itself=places) == recalls(x, y)
    assert knn_accuracy(x, y, x[order], y[order], itself=places) == knn_accuracy(x, y)
    found = neighbours(x, 5, x[order], itself=places)
    assert torch.equal(order[found.indices], neighbours(x, 5).indices)

    gallery, kinds = torch.cat([x[:30], sample(20, 6, seed=2)[0]]), torch.cat([y[:30], y[:20]])
    itself = torch.where(torch.arange(60) < 30, torch.arange(60), -1)
    some = retrieval(x, y, gallery, kinds, itself=itself, ks=[1], precision_ks=[])
    for i, row in enumerate(similarities(points(x), points(gallery)).tolist()):
        others = sorted((j for j in range(50) if j != itself[i]), key=lambda j: (-row[j], j))
        assert some.values["recall@1"][i] == (kinds[others[0]] == y[i])
    one_each = torch.arange(5)
    with pytest.raises(ValueError, match="no query has kin"):
        evaluate(x[:5], one_each, x[:5].clone(), one_each, itself=one_each)


def test_queries_without_kin_are_counted():
    x, y = sample(40, 4)
    y[:7] = 100 + torch.arange(7)
    found = retrieval(x, y)
    assert (found.total, found.without_kin) == (40, 7)
    assert evaluate(x, y)["queries_without_kin"] == 7
    assert "queries_without_kin" not in evaluate(x[7:], y[7:])


def test_the_usual_k_are_those_that_fit_into_the_gallery():
    x, y = sample(40, 4)
    few = evaluate(x, y, x[:5], y[:5])
    assert {k for k in few if "@" in k} == {"recall@1", "recall@2", "recall@4", "map@r"}
    assert set(recalls(x, y, x[:5], y[:5])) == {"recall@1", "recall@2", "recall@4"}


def test_rows_that_hold_gradients_are_embeddings():
    x, y = sample(20, 3)
    rows = [row.requires_grad_() for row in x.clone()]
    assert evaluate(rows, y) == evaluate(x, y)


def test_a_gallery_that_is_a_copy_of_the_queries_is_told():
    x, y = sample(20, 3)
    with pytest.warns(UserWarning, match="the gallery is a copy of the queries"):
        assert evaluate(x, y, x.clone(), y)["recall@1"] == 1
    assert evaluate(x, y, x.clone(), y, itself=range(20)) == evaluate(x, y)
