"""Graphs are what their definitions say, node by node; they move with a permuted batch."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from nearkin import graphs
from nearkin.graphs.build import BUILDERS, SIMILARITIES, make_builder, sparsemax

DRAWN = {"random"}
HALF: Any = 1.5
OPTIONS = [
    ("full", {}),
    ("knn", {"k": 3}),
    ("knn", {"k": 3, "symmetry": "union"}),
    ("knn", {"k": 3, "symmetry": "intersection", "similarity": "correlation"}),
    ("mutual-knn", {"k": 4}),
    ("threshold", {"threshold": 0.1}),
    ("threshold", {"threshold": 0.1, "sign": "negative"}),
    ("threshold", {"threshold": 0.2, "sign": "both", "similarity": "correlation"}),
    ("top-ratio", {"ratio": 0.3}),
    ("label-guided", {"k": 3}),
    ("learned", {}),
    ("random", {"like": "knn", "k": 3}),
    ("knn", {"k": 3, "similarity": "learned"}),
    ("random", {"like": "knn", "k": 3, "similarity": "learned"}),
]


def batch(size: int = 14, dim: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, dim, generator=generator, dtype=torch.double)
    return x, torch.arange(size) // 3


def build(name: str, options: dict, x, labels):
    builder = make_builder(name, dim=x.shape[1], **options)
    return (builder.double() if isinstance(builder, nn.Module) else builder)(x, labels)


def test_every_builder_is_tested():
    assert {name for name, _ in OPTIONS} == set(BUILDERS)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
@pytest.mark.parametrize("size", [0, 1, 2, 14])
def test_self_loops_shape_and_type(name, options, size):
    x, labels = batch(size)
    adjacency = build(name, options, x, labels)
    assert adjacency.shape == (size, size)
    assert adjacency.dtype == torch.bool
    assert adjacency.diagonal().all()


@pytest.mark.parametrize(("name", "options"), [o for o in OPTIONS if o[0] not in DRAWN])
def test_a_permuted_batch_gives_the_permuted_graph(name, options):
    x, labels = batch(seed=1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    before = build(name, options, x, labels)
    after = build(name, options, x[order], labels[order])
    assert (after == before[order][:, order]).all()
    assert name == "full" or not before.all()


def slow_similarity(a, b, kind):
    if kind == "correlation":
        a, b = a - a.mean(), b - b.mean()
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def nearest(x, i, k, kind="cosine", bonus=lambda j: 0.0):
    others = [j for j in range(len(x)) if j != i]
    return set(sorted(others, key=lambda j: (-slow_similarity(x[i], x[j], kind) - bonus(j), j))[:k])


def listens(adjacency):
    return [set(row.nonzero()[:, 0].tolist()) - {i} for i, row in enumerate(adjacency)]


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_nearest_neighbours_one_by_one(kind):
    x, labels = batch()
    found = [nearest(x, i, 4, kind) for i in range(len(x))]
    assert listens(graphs.knn(x, k=4, similarity=kind)) == found
    finders = [{j for j in range(len(x)) if i in found[j]} for i in range(len(x))]
    union = graphs.knn(x, k=4, symmetry="union", similarity=kind)
    assert listens(union) == [a | b for a, b in zip(found, finders, strict=True)]
    mutual = [a & b for a, b in zip(found, finders, strict=True)]
    assert listens(graphs.mutual_knn(x, k=4, similarity=kind)) == mutual
    ratio = graphs.top_ratio(x, ratio=0.2, similarity=kind)  # ceil(0.2 * 14) = 3
    assert listens(ratio) == [nearest(x, i, 3, kind) for i in range(len(x))]
    guided = graphs.label_guided(x, labels, k=4, bonus=0.4, similarity=kind)
    assert listens(guided) == [
        nearest(x, i, 4, kind, lambda j, i=i: 0.4 * float(labels[i] == labels[j]))
        for i in range(len(x))
    ]


@pytest.mark.parametrize("kind", SIMILARITIES)
@pytest.mark.parametrize(
    ("sign", "passes"),
    [
        ("positive", lambda s: s > 0.3),
        ("negative", lambda s: s < -0.3),
        ("both", lambda s: abs(s) > 0.3),
    ],
)
def test_threshold_pair_by_pair(kind, sign, passes):
    x, _ = batch()
    expected = [
        {j for j in range(len(x)) if j != i and passes(slow_similarity(x[i], x[j], kind))}
        for i in range(len(x))
    ]
    assert listens(graphs.threshold(x, threshold=0.3, sign=sign, similarity=kind)) == expected


@pytest.mark.parametrize("percent", range(1, 90))
def test_top_ratio_takes_the_next_whole_number_and_not_the_one_after(percent):
    x = torch.randn(100, 3)
    assert (graphs.top_ratio(x, ratio=percent / 100).sum(1) == percent + 1).all()  # and itself


def test_ties_go_to_the_lower_index():
    x = torch.ones(6, 2)  # all alike
    assert listens(graphs.knn(x, k=2)) == [{1, 2}, {0, 2}, {0, 1}, {0, 1}, {0, 1}, {0, 1}]
    zero = torch.zeros(4, 2)
    assert listens(graphs.knn(zero, k=1)) == [{1}, {0}, {0}, {0}]


def test_a_large_bonus_puts_the_own_class_first():
    x, labels = batch()
    adjacency = graphs.label_guided(x, labels, k=2, bonus=3.0)
    full_classes = labels < 4  # the last class has 2 images
    same = labels[:, None] == labels
    assert (adjacency & ~same)[full_classes].sum() == 0


def test_labels_are_for_training_only():
    with pytest.raises(ValueError, match="training only"):
        graphs.label_guided(batch()[0])


@pytest.mark.parametrize(
    ("like", "options"),
    [
        ("knn", {"k": 5}),
        ("threshold", {"threshold": 0.2}),
        ("mutual-knn", {}),
        ("learned", {}),
        ("learned", {"temperature": 1.0}),
        ("top-ratio", {"ratio": 0.2, "similarity": "learned"}),
        ("label-guided", {"k": 3}),
    ],
)
def test_random_keeps_every_degree_and_draws_anew(like, options):
    x, labels = batch(40)
    x = x.float()
    wanted = make_builder(like, dim=x.shape[1], **options)(x, labels).sum(1)
    draws = [graphs.random(x, labels, like=like, **options) for _ in range(2)]
    for draw in draws:
        assert (draw.sum(1) == wanted).all()
    assert (draws[0] != draws[1]).any()


def test_random_is_uniform_over_the_others():
    x, _ = batch(6)
    counts = torch.stack([graphs.random(x, k=2).double() for _ in range(3000)]).mean(0)
    off = counts[~torch.eye(6, dtype=torch.bool)]
    assert (off - 2 / 5).abs().max() < 0.06  # 6 standard deviations


def test_random_wants_a_graph_with_a_degree():
    with pytest.raises(ValueError, match="degree to match"):
        graphs.random(batch()[0], like="random")


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    scores = torch.randn(5, 7, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    found = sparsemax(scores)
    torch.testing.assert_close(found.sum(1), torch.ones(5, dtype=torch.double))
    for row, p in zip(scores, found, strict=True):  # bisection on the shift that makes it sum to 1
        low, high = row.min() - 1, row.max()
        for _ in range(100):
            shift = (low + high) / 2
            low, high = (shift, high) if (row - shift).clamp_min(0).sum() > 1 else (low, shift)
        torch.testing.assert_close(p, (row - low).clamp_min(0))
    assert (found == 0).any()
    scores.requires_grad_()
    assert torch.autograd.gradcheck(sparsemax, scores)


def test_a_learned_graph_is_the_support_of_its_weights_and_learns():
    x, _ = batch()
    learned = graphs.Learned(6).double()
    weights = learned.weights(x)
    assert ((weights > 0) == learned(x)).all()
    others = weights - torch.eye(len(x), dtype=torch.double)
    torch.testing.assert_close(others.sum(1), torch.ones(len(x), dtype=torch.double))
    assert (others.diagonal() == 0).all()
    weights.square().sum().backward()
    assert learned.project.weight.grad is not None
    assert learned.project.weight.grad.abs().sum() > 0


BY_SIMILARITY = [
    ("knn", {"k": 3, "symmetry": "union"}),
    ("mutual-knn", {"k": 4}),
    ("threshold", {"threshold": 0.1, "sign": "both"}),
    ("top-ratio", {"ratio": 0.3}),
    ("label-guided", {"k": 3}),
]


@pytest.mark.parametrize(("name", "options"), BY_SIMILARITY)
def test_any_builder_by_similarity_can_learn_it(name, options):
    x, labels = batch()
    builder = make_builder(name, dim=6, similarity="learned", **options)
    assert isinstance(builder, graphs.LearnedSimilarity)
    by_cosine = make_builder(name, **options)
    assert (builder.double()(x, labels) == by_cosine(x, labels)).all()  # where it starts from
    weight = nn.init.normal_(builder.project.weight).detach()
    projected = x @ weight.T
    adjacency = builder(x, labels)
    assert (adjacency == by_cosine(projected, labels)).all()
    assert (adjacency != by_cosine(x, labels)).any()
    weights = builder.weights(x, labels)
    for i in range(len(x)):
        for j in range(len(x)):
            s = slow_similarity(projected[i], projected[j], "cosine")
            expected = math.exp(s - 1) if adjacency[i, j] else 0
            assert weights[i, j].item() == pytest.approx(expected)


def test_the_control_of_a_learned_similarity_learns_nothing():
    builder = make_builder("random", dim=6, like="knn", similarity="learned")
    assert not isinstance(builder, nn.Module)


def test_lists_say_what_the_matrix_says():
    x, _ = batch()
    adjacency = graphs.threshold(x, threshold=0.2)
    lists = graphs.neighbour_lists(adjacency)
    assert lists.connected.shape == (len(x), int(adjacency.sum(1).max()))
    assert lists.speakers is not None
    for row, listed, real in zip(adjacency, lists.speakers, lists.connected, strict=True):
        assert listed[real].tolist() == row.nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: graphs.knn(x, k=-1), "k must be a whole number of 0 or more, got -1"),
        (lambda x: graphs.knn(x, k=HALF), "k must be a whole number of 0 or more, got 1.5"),
        (lambda x: graphs.knn(x, symmetry="both"), "did you mean"),
        (lambda x: graphs.threshold(x, similarity="cosin"), "did you mean 'cosine'"),
        (lambda x: graphs.top_ratio(x, ratio=1.5), r"ratio must be in \[0, 1\]"),
        (lambda x: make_builder("mutal-knn"), "did you mean 'mutual-knn'"),
        (lambda x: make_builder("full", k=3), "unknown option of graph 'full' 'k'"),
        (lambda x: make_builder("learned", dim=4, temprature=2.0), "did you mean 'temperature'"),
        (lambda x: graphs.Learned(4, temperature=0.0), "temperature must be above 0"),
        (lambda x: make_builder("knn", similarity="learned"), "wants dim"),
        (lambda x: make_builder("knn", k=2.5), "'k': wanted a value of type int, got 2.5"),
        (lambda x: make_builder("threshold", threshold="x"), "wanted a value of type float"),
        (lambda x: make_builder("knn", embeddings=3), "unknown option of graph 'knn'"),
        (lambda x: make_builder("full", dim=6, similarity="learned"), "unknown option of graph"),
    ],
)
def test_errors_say_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call(batch()[0])
