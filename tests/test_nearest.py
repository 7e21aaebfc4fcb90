"""Neighbours and ranks are those of brute force, to the last bit, whatever the data.

Brute force is exact.similarities and a sort; that is checked here against exact rational
arithmetic, and everything else against it.
"""

import gc
import math
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from nearkin.measure import check_embeddings, evaluate, neighbours
from nearkin.measure.inputs import matrix
from nearkin.measure.nearest import brute, cascade, copies, search
from nearkin.measure.nearest.brute import search_of
from nearkin.measure.nearest.exact import (
    METRICS,
    Spare,
    Waiting,
    from_keys,
    listed_similarities,
    points,
    similarities,
    to_keys,
)
from nearkin.measure.nearest.integers import IntegerScreen
from nearkin.measure.nearest.screen import Screen, plain_arithmetic
from nearkin.measure.nearest.search import ranks

N, D = 500, 24


def normal(n: int = N, d: int = D, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def spread_norms(x: Tensor) -> Tensor:
    return x * 10 ** torch.linspace(-20, 18, len(x))[torch.randperm(len(x)), None]


DATA: dict[str, Callable[[], Tensor]] = {
    "ordinary": normal,
    "one direction": lambda: 3 + 0.1 * normal(),
    "one cluster": lambda: 1 + 1e-4 * normal(),
    "one point, nearly": lambda: 1 + 1e-7 * normal(),
    "collapsed": lambda: torch.ones(N, D),
    "zeros": lambda: torch.zeros(N, D),
    "zeros among others": lambda: normal() * (torch.arange(N) % 9 > 0)[:, None],
    "duplicates": lambda: normal()[torch.arange(N) % 37],
    "near-ties": lambda: normal()[torch.arange(N) % 250] + 1e-7 * normal(seed=1),
    "ties within 8 bits": lambda: normal()[torch.arange(N) % 50] + 1e-2 * normal(seed=1),
    "many ties": lambda: normal().sign(),
    "small integers": lambda: (2 * normal()).round(),
    "huge norms": lambda: spread_norms(normal()),
    "all huge": lambda: 1e37 * normal(),
    "all tiny": lambda: 1e-30 * normal(),
    "subnormal": lambda: 1e-41 * normal(),
    "all negative": lambda: -normal().abs(),
    "a line": lambda: torch.arange(N)[:, None] * torch.ones(D),
    "one column": lambda: normal()[:, :1],
    "far from the origin": lambda: 1e4 + normal(),
    "half precision": lambda: normal().half(),
    "double precision": lambda: normal().double(),
}


def all_keys(x: Tensor, gallery: Tensor | None, metric: str) -> Tensor:
    """The definition: (B, M) keys of every pair, a query's own the smallest."""
    query = points(x, metric)
    searched = query if gallery is None else points(gallery, metric)
    keys = to_keys(similarities(query, searched), torch.arange(len(searched)))
    return keys.fill_diagonal_(brute.NOTHING) if gallery is None else keys


SCREENS = {
    "all": (torch.int8, torch.bfloat16, torch.float32),
    "int8": (torch.int8,),
    "float32": (torch.float32,),
}


@pytest.fixture(params=SCREENS)
def screens(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What any machine may use, whichever this is."""
    monkeypatch.setattr(cascade, "precisions", lambda _: SCREENS[request.param])


@pytest.mark.usefixtures("screens")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("data", DATA)
def test_neighbours_and_ranks_are_those_of_brute_force(data: str, metric: str):
    x = DATA[data]()
    for k, gallery in ((1, None), (9, None), (5, x.roll(3, 0)[: N - 60])):
        keys = all_keys(x, gallery, metric)
        found = neighbours(x, k, gallery, metric=metric)
        similarity, indices = from_keys(keys.topk(k).values)
        assert torch.equal(found.indices, indices)
        assert torch.equal(found.similarities, similarity)

        target = (7 * torch.arange(N) + 5) % keys.shape[1]
        target = keys[torch.arange(N), (target + (target == torch.arange(N))) % keys.shape[1]]
        with plain_arithmetic(x.device):
            found = ranks(search_of(x, gallery, metric, 1e9), target)
        assert torch.equal(found, 1 + (keys > target[:, None]).sum(1))


@pytest.mark.parametrize("metric", METRICS)
def test_a_similarity_is_the_exact_number_rounded_once(metric: str):
    x, y = points(7 * normal(6), metric), points(normal(5, seed=1), metric)
    rows = [[[Fraction(v) for v in row] for row in p.rows.tolist()] for p in (x, y)]
    scale = [[Fraction(s) for s in p.scale.tolist()] for p in (x, y)]
    found = similarities(x, y)
    for i, a in enumerate(rows[0]):
        for j, b in enumerate(rows[1]):
            if metric == "euclidean":
                pairs = zip(a, b, strict=True)
                square = sum((scale[0][i] * u - scale[1][j] * v) ** 2 for u, v in pairs)
                wanted = np.float32(-math.sqrt(square))
            else:
                dot = sum(u * v for u, v in zip(a, b, strict=True))
                wanted = np.float32(float(scale[0][i] * scale[1][j] * dot))
            assert found[i, j].item() == wanted


@pytest.mark.parametrize("metric", METRICS)
def test_a_similarity_is_near_that_of_the_embeddings_themselves(metric: str):
    x, y = 7 * normal(40), normal(30, seed=1)
    a, b = x.double(), y.double()
    wanted = {
        "cosine": torch.cosine_similarity(a[:, None], b[None], dim=2),
        "inner": a @ b.T,
        "euclidean": -torch.cdist(a, b),
    }[metric]
    found = similarities(points(x, metric), points(y, metric))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=5e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_a_similarity_has_the_same_bits_in_every_block_order_and_direction(metric: str):
    x, y = points(normal(300, 70), metric), points(normal(200, 70, seed=1), metric)
    whole = similarities(x, y)
    assert torch.equal(
        similarities(x[torch.tensor([7])], y[torch.tensor([3, 5])]), whole[7:8, [3, 5]]
    )
    assert torch.equal(similarities(y, x).T, whole)
    columns = torch.randint(200, (300, 9))
    spare = Spare.of(columns.numel() + 5, y)
    assert torch.equal(listed_similarities(x, y, columns, spare), whole.gather(1, columns))
    turned = torch.arange(69, -1, -1)
    assert torch.equal(
        similarities(
            points(normal(300, 70)[:, turned], "inner"), points(normal(300, 70)[:, turned], "inner")
        ),
        similarities(points(normal(300, 70), "inner"), points(normal(300, 70), "inner")),
    )


def test_neighbours_are_those_of_scikit_learn():
    x, y = normal(200, 8), normal(150, 8, seed=1)
    for metric, name in (("euclidean", "euclidean"), ("cosine", "cosine")):
        found = neighbours(x, 6, y, metric=metric)
        reference = NearestNeighbors(n_neighbors=6, metric=name).fit(y.double())
        distance, indices = reference.kneighbors(x.double())
        assert np.array_equal(found.indices, indices)
        wanted = -distance if metric == "euclidean" else 1 - distance
        np.testing.assert_allclose(found.similarities, wanted, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32])
@given(
    seed=st.integers(0, 99),
    dim=st.integers(1, 90),
    scales=st.tuples(*[st.sampled_from([1e-20, 1e-3, 1.0, 50.0, 1e15])] * 2),
    shift=st.sampled_from([0.0, 0.5, 100.0]),
)
@settings(deadline=None, max_examples=25)
def test_no_screened_score_is_further_off_than_its_bound(metric, dtype, seed, dim, scales, shift):
    x = points(scales[0] * (shift + normal(20, dim, seed)), metric)
    y = points(scales[1] * (shift + normal(150, dim, seed + 1)), metric)
    with plain_arithmetic(torch.device("cpu")):
        screen = IntegerScreen(y) if dtype == torch.int8 else Screen(x, y, dtype)
        scores = screen.scores(x, torch.empty(20, 192, dtype=screen.scored))
        exact = torch.stack([screen.score_of(x, s) for s in similarities(x, y).T], 1)  # (B, M)
        bounded = scores.error.isfinite()  # infinite: float32 would overflow
        values = scores.values[:, screen.places(torch.arange(150))]
        scores = replace(scores, error=scores.error[:, None], step=scores.step[:, None])
        low, high, surely = scores.lower(exact), scores.upper(exact), scores.surely(values)
    assert bounded.all() or max(scales) / min(scales) > 1e15
    assert (low <= values)[bounded].all()
    assert (values <= high)[bounded].all()
    assert (surely <= exact)[bounded].all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_ordinary_data_need_no_brute_force(metric, dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cascade, "precisions", lambda _: (dtype,))
    monkeypatch.setattr(cascade, "key_tiles", lambda _: pytest.fail("brute force"))
    x = 0.5 + normal(2000, 64)
    found = neighbours(x, 10, metric=metric)
    target = to_keys(found.similarities, found.indices)[:, -1]
    with plain_arithmetic(x.device):
        assert (ranks(search_of(x, None, metric, 1e9), target) == 10).all()


def test_ties_go_to_the_lower_index_and_nobody_is_its_own_neighbour():
    found = neighbours(torch.ones(5, 3), 4)
    assert found.indices.tolist() == [
        [1, 2, 3, 4],
        [0, 2, 3, 4],
        [0, 1, 3, 4],
        [0, 1, 2, 4],
        [0, 1, 2, 3],
    ]
    assert neighbours(torch.ones(1, 3), 2, torch.ones(4, 3)).indices.tolist() == [[0, 1]]
    assert (neighbours(torch.zeros(3, 2), 1).similarities == 0).all()  # cosine of a zero row


def test_memory_and_pieces_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch):
    x = torch.cat([normal(300), normal(300)[:100]])
    whole = neighbours(x, 7)
    little = neighbours(x, 7, memory=1e4)
    monkeypatch.setattr(brute, "piece_size", lambda *_: 90)
    pieces, tail = neighbours(x, 7), neighbours(x, 95)
    monkeypatch.setattr(brute, "TILE", 33)
    tiles = neighbours(x, 7)
    for other in (little, pieces, tiles):
        assert torch.equal(whole.indices, other.indices)
        assert torch.equal(whole.similarities, other.similarities)
    assert torch.equal(tail.indices, from_keys(all_keys(x, None, "cosine").topk(95).values)[1])


def test_settings_of_the_caller_neither_matter_nor_are_lost():
    x = normal(700, 64)
    wanted = neighbours(x, 5)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = neighbours(x.requires_grad_(), 5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found.indices, wanted.indices)
    assert torch.equal(found.similarities, wanted.similarities)
    assert not found.similarities.requires_grad


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(width=32, allow_nan=False), st.integers(0, 2**32 - 1)),
        unique_by=lambda pair: pair[1],
        min_size=1,
    )
)
def test_keys_sort_as_neighbours_do(pairs):
    similarity = torch.tensor([s for s, _ in pairs])
    indices = torch.tensor([i for _, i in pairs])
    keys = to_keys(similarity, indices)
    wanted = sorted(range(len(pairs)), key=lambda i: (-pairs[i][0], pairs[i][1]))
    assert keys.argsort(descending=True).tolist() == wanted
    back = from_keys(keys)
    assert torch.equal(back[0], similarity + 0.0)
    assert torch.equal(back[1], indices)
    assert (keys > brute.NOTHING).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: neighbours(normal(5), 5), "k must be in 1..4, got 5"),
        (lambda: neighbours(normal(5), 0), "k must be in 1..4, got 0"),
        (lambda: neighbours(normal(5), 2.0), "k must be a whole number, got 2.0"),  # type: ignore
        (lambda: neighbours(normal(5), "2"), "k must be a whole number, got '2'"),  # type: ignore
        (lambda: neighbours(normal(5), True), "k must be a whole number, got True"),
        (lambda: neighbours(normal(5).to_sparse(), 1), r"a sparse tensor: take x.to_dense\(\)"),
        (lambda: neighbours(normal(5), 6, normal(5)), "k must be in 1..5, got 6"),
        (lambda: neighbours(normal(5), 1, normal(5, 3)), "as many columns as query, 24, got 3"),
        (lambda: neighbours(normal(5), 1, metric="dot"), "metric must be one of cosine, inner"),
        (lambda: neighbours(normal(5)[0], 1), "query must be a matrix of numbers"),
        (lambda: neighbours(normal(5).log(), 1), "query: row 0 holds NaN or infinity"),
        (lambda: neighbours(normal(5), 1, 1 / torch.zeros(2, D)), "gallery: row 0 holds NaN"),
        (lambda: check_embeddings(torch.eye(3)[[0, 1, 1]] * torch.ones(3), "x"), None),
        (lambda: check_embeddings(torch.eye(3)[:, :2]), "embeddings: row 2 holds only zeros"),
    ],
)
def test_what_has_no_neighbours_is_refused_in_one_line(call, words):
    if words is None:
        call()
        return
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("screens")
@pytest.mark.parametrize("metric", METRICS)
def test_what_waits_for_the_grid_has_the_same_neighbours(metric: str, monkeypatch):
    x, gallery = normal(120), normal(160)[::2]
    monkeypatch.setattr(brute, "piece_size", lambda *_: 36)
    for searched in (None, gallery):
        wanted = neighbours(x, 7, searched, metric=metric)
        found = neighbours(x, 7, searched, metric=metric, memory=4e4)
        assert isinstance(search_of(x, searched, metric, 4e4).gallery, Waiting)
        assert torch.equal(wanted.indices, found.indices)
        assert torch.equal(wanted.similarities, found.similarities)
        labels = torch.arange(120) % 16
        whole = evaluate(x, labels, searched, labels[:80], metric=metric)
        assert evaluate(x, labels, searched, labels[:80], metric=metric, memory=4e4) == whole


def test_a_file_mapped_to_memory_is_read_and_not_copied(tmp_path):
    x = normal(600)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = matrix(mapped, "gallery")
        found = neighbours(x[:50], 5, mapped, memory=1e5)
    assert held.data_ptr() == mapped.ctypes.data
    gallery = search_of(x[:50], held, "cosine", 1e5).gallery
    assert isinstance(gallery, Waiting)
    assert gallery.x.data_ptr() == mapped.ctypes.data
    assert torch.equal(found.indices, neighbours(x[:50], 5, x).indices)


@pytest.mark.parametrize("metric", METRICS)
def test_copies_of_few_points_are_searched_for_once(metric: str, monkeypatch: pytest.MonkeyPatch):
    """The lowest places of one's own point come first."""
    x = torch.eye(3)[torch.arange(9000) % 3]
    monkeypatch.setattr(search, "cascade", None)  # nothing else is asked
    found = neighbours(x, 4, metric=metric)
    for i in (0, 1, 5, 4999, 8999):
        own = [j for j in range(i % 3, 30, 3) if j != i][:4]
        assert found.indices[i].tolist() == own
    found = neighbours(x[:300] * 2, 2, x, metric=metric)
    assert found.indices[:3].tolist() == [[0, 3], [1, 4], [2, 5]]
    near = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
    assert copies.copies(points(near, metric)) is None
    one = copies.copies(points(torch.ones(300, 5), metric))
    assert one is not None
    assert len(one.items) == 1


def test_one_part_of_the_gallery_is_in_memory_at_a_time(monkeypatch):
    """Of a gallery that is read part by part: rows of the one before are gone, its screens too."""
    x = torch.randn(700, 8, generator=torch.Generator().manual_seed(0))
    made: list[weakref.ref] = []
    screen_of, blocks = brute.screen_of, brute.blocks

    def kept(query, gallery, dtype):
        made.append(weakref.ref(gallery.rows))
        return screen_of(query, gallery, dtype)

    def parts(whole, size):
        for part in blocks(whole, size):
            assert not isinstance(whole, Waiting) or all(rows() is None for rows in made)
            yield part

    monkeypatch.setattr(brute, "screen_of", kept)
    monkeypatch.setattr(brute, "blocks", parts)
    monkeypatch.setattr(brute, "piece_size", lambda *_: 150)
    found = neighbours(x, 3, memory=5e4)
    assert len(made) >= 5
    evaluate(x, torch.arange(700) // 20, memory=5e4)
    monkeypatch.undo()
    assert torch.equal(found.indices, neighbours(x, 3).indices)


def test_no_block_leaves_anything_until_the_end():
    """A small tensor that each block keeps pins the allocator's memory of that block: of a million
    items gigabytes."""
    x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    counts = []
    with plain_arithmetic(x.device):
        for _ in search._nearest_in(search_of(x, None, "cosine", 1e6), 3):
            counts.append(sum(isinstance(each, Tensor) for each in gc.get_objects()))
    assert len(counts) > 10
    assert counts[-2] <= counts[2]
