"""An approximate search says what it misses, and its similarities are exact."""

import numpy as np
import pytest

import nearkin as nk
from nearkin.search.approximate import Approximate
from nearkin.search.exact import Opened
from nearkin.search.store import LanceStore, table_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """3,000 items in 16 dimensions, in two labels."""
    made = LanceStore(tmp_path_factory.mktemp("store"), 16)
    x = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    rows = [
        {
            "path": f"/{i:04d}",
            "sha256": str(i),
            "size": 1,
            "mtime": 1,
            "label": "ab"[i % 2],
            "thumbnail": None,
        }
        for i in range(len(x))
    ]
    made.put(table_of(rows, x))
    return made


def opened(store: LanceStore, label: str | None = None) -> Opened:
    return Opened(store.scan(["path", "label", "vector"], label), "cosine")


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.99])
def test_it_finds_the_share_that_was_wanted(store, recall):
    items = opened(store)
    some = Approximate(store, items, "cosine", 10, recall, None)
    assert some.low >= recall
    assert 0 < some.effort < store.parts()
    queries = np.random.default_rng(1).normal(size=(200, 16)).astype(np.float32)
    exact = nk.neighbours(queries, 10, items.vectors)
    similar, places = some.nearest(queries)
    shares = [
        len({*p.tolist()} & {*e.tolist()}) / 10 for p, e in zip(places, exact.indices, strict=True)
    ]
    assert np.mean(shares) > recall - 0.15  # of other queries than those that it was measured on
    for row, place, query in zip(similar[:5], places[:5], queries, strict=False):
        theirs = nk.neighbours(query[None], len(items.paths), items.vectors)
        known = dict(zip(theirs.indices[0].tolist(), theirs.similarities[0].tolist(), strict=True))
        assert [known[i] for i in place.tolist()] == row.tolist()


class Forgetful:
    """A store whose approximate search finds nothing, however hard it looks."""

    def __init__(self, store: LanceStore):
        self.store = store

    def __getattr__(self, name: str):
        return getattr(self.store, name)

    def nearest(self, vectors, k, metric, label, effort):
        if effort:
            return [[] for _ in vectors]
        return self.store.nearest(vectors, k, metric, label, effort)


def test_what_cannot_be_had_cheaply_is_exact(store):
    items = opened(store)
    some = Approximate(Forgetful(store), items, "cosine", 10, 0.5, None)
    assert (some.effort, some.recall) == (0, 1.0)
    queries = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
    _, places = some.nearest(queries)
    assert [p.tolist() for p in places] == nk.neighbours(
        queries, 10, items.vectors
    ).indices.tolist()
    assert str(some).endswith("looking at all, exactly")


def test_among_one_label(store):
    some = Approximate(store, opened(store, "a"), "cosine", 10, 0.9, "a")
    _, places = some.nearest(np.random.default_rng(2).normal(size=(5, 16)).astype(np.float32))
    assert all(len(place) == 10 for place in places)


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.5, float("nan")])
def test_a_recall_that_is_none_is_refused(store, recall):
    with pytest.raises(ValueError, match="recall must be in"):
        Approximate(store, opened(store), "cosine", 10, recall, None)
