"""An index on Qdrant answers as one on LanceDB, on the real engine (Qdrant Edge) and its client."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient

import nearkin as nk
from nearkin.app.main import main
from nearkin.search.approximate import Approximate
from nearkin.search.exact import Opened
from nearkin.search.qdrant import QdrantStore, new_address
from test_index import COLOURS, folder, model, photograph  # noqa: F401 - a fixture


class EdgeClient:
    """The methods of QdrantClient that the store calls, on Qdrant's own engine in this process."""

    def __init__(self, path):
        self.path, self.shard = str(path), None

    def collection_exists(self, name: str) -> bool:
        return self.shard is not None

    def create_collection(self, name: str, vectors_config: dict) -> None:
        known = {
            "Euclid": edge.Distance.Euclid,
            "Dot": edge.Distance.Dot,
            "Cosine": edge.Distance.Cosine,
        }
        vectors = {
            key: edge.EdgeVectorParams(size=each.size, distance=known[each.distance.value])
            for key, each in vectors_config.items()
        }
        self.shard = edge.EdgeShard.create(self.path, edge.EdgeConfig(vectors=vectors))

    def upsert(self, name: str, points: list, wait: bool) -> None:
        made = [edge.Point(p.id, p.vector, p.payload) for p in points]
        self.shard.update(edge.UpdateOperation.upsert_points(made))  # type: ignore[union-attr]

    def delete(self, name: str, points_selector: list, wait: bool) -> None:
        self.shard.update(edge.UpdateOperation.delete_points(points_selector))  # type: ignore[union-attr]

    def retrieve(self, name: str, ids: list, with_payload: Any = True, with_vectors: bool = False):
        return self.shard.retrieve(ids, True, with_vectors)  # type: ignore[union-attr]

    def count(self, name: str, count_filter: Any, exact: bool):
        request = edge.CountRequest(exact=exact, filter=translated(count_filter))
        return SimpleNamespace(count=self.shard.count(request))  # type: ignore[union-attr]

    def scroll(self, name: str, scroll_filter, limit, offset, with_payload, with_vectors):
        request = edge.ScrollRequest(offset, limit, translated(scroll_filter), True, with_vectors)
        return self.shard.scroll(request)  # type: ignore[union-attr]

    def query_points(
        self, name: str, query, using, query_filter, search_params, limit, with_payload
    ):
        request = edge.SearchRequest(
            edge.Query.Nearest(query, using=using),
            limit,
            filter=translated(query_filter),
            params=edge.SearchParams(hnsw_ef=search_params.hnsw_ef, exact=search_params.exact),
            with_payload=True,
        )
        return SimpleNamespace(points=self.shard.search(request))  # type: ignore[union-attr]


def translated(wanted: Any) -> Any:
    """A filter of the client as one of Edge."""
    must: list[Any] = [
        edge.FieldCondition(key=c.key, match=edge.MatchValue(c.match.value))
        for c in wanted.must or []
    ]
    without: list[Any] = [edge.HasIdCondition(set(c.has_id)) for c in wanted.must_not or []]
    return edge.Filter(must=must or None, must_not=without)


@pytest.fixture(params=["edge", "client"])
def client(request, tmp_path):
    return EdgeClient(tmp_path / "edge") if request.param == "edge" else QdrantClient(":memory:")


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner"])
def test_it_answers_as_lancedb_does(client, folder, tmp_path, metric):  # noqa: F811
    made = model(metric=metric)
    store = QdrantStore(client, "shop", made.dim, metric)
    ours = nk.Index.create(made, tmp_path / "ours", store)
    theirs = nk.Index.create(made, tmp_path / "theirs")
    for index in (ours, theirs):
        assert str(index.update(folder, labels="parent")) == "15 added"
    photograph(tmp_path / "new.png", COLOURS["green"], 99)
    for label in (None, "red"):
        a, b = (index.search([tmp_path / "new.png"], 5, label=label)[0] for index in (ours, theirs))
        assert a == b
    assert ours.labels() == theirs.labels()
    (folder / "green" / "1.png").rename(folder / "green" / "moved.png")
    (folder / "blue" / "2.png").unlink()
    photograph(folder / "red" / "0.png", COLOURS["blue"], 77)
    changes = [str(index.update()) for index in (ours, theirs)]
    assert changes[0] == changes[1]
    a, b = (index.search([tmp_path / "new.png"], 20)[0] for index in (ours, theirs))
    assert a == b
    thumbnails = [index.store.scan(["thumbnail"]).to_pylist() for index in (ours, theirs)]
    assert thumbnails[0] == thumbnails[1]
    assert (ours.vectors()[2] == theirs.vectors()[2]).all()


@pytest.mark.parametrize("client", ["edge"], indirect=True)  # the client's own mode is exact
def test_its_approximate_search_is_measured_too(client):
    store = QdrantStore(client, "many", 16)
    from nearkin.search.store import table_of

    x = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
    rows = [
        {"path": f"/{i:03d}", "sha256": "", "size": 1, "mtime": 1, "label": None, "thumbnail": None}
        for i in range(len(x))
    ]
    store.put(table_of(rows, x))
    opened = Opened(store.scan(["path", "label", "vector"]), "cosine")
    some = Approximate(store, opened, "cosine", 10, 0.9, None)
    assert some.low >= 0.9
    _, places = some.nearest(x[:3])
    assert [p[0] for p in places] == [0, 1, 2]


def test_every_change_is_a_version(client):
    store = QdrantStore(client, "few", 2)
    assert store.versions() == [0]
    store.delete([])
    assert store.versions() == [0]
    store.delete(["/a"])
    assert store.versions() == [1]
    assert store.count() == 0
    assert store.scan(["path", "vector"]).num_rows == 0


@pytest.mark.parametrize("address", ["", "127.0.0.1", "ftp://x", "http://", "http://x#y"])
def test_an_address_that_is_none(address):
    with pytest.raises(ValueError, match="wanted a Qdrant server"):
        new_address(address)


def test_no_server_is_one_line_and_leaves_nothing(folder, tmp_path, capsys):  # noqa: F811
    model().save(tmp_path / "model")
    words = [str(tmp_path / "model"), str(folder), "--output", str(tmp_path / "shop")]
    with pytest.raises(SystemExit) as left:
        main(["index", *words, "--store", "http://127.0.0.1:1"])
    assert left.value.code == 2
    error = capsys.readouterr().err.strip()
    assert "no Qdrant server answers there" in error.splitlines()[-1]
    assert not (tmp_path / "shop").exists()
