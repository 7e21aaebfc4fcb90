"""Items on a Qdrant server, for an index that outgrows one machine: the same methods as LanceDB's.

Each item is a point, whose number is made of its path; thumbnails are text in base 64. A point of
its own, `head`, counts the changes.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlparse
from uuid import NAMESPACE_URL, uuid4, uuid5

import numpy as np
import pyarrow as pa

from nearkin.search.store import PLAIN, schema_of

KEY = "QDRANT_API_KEY"
HEAD = str(uuid5(NAMESPACE_URL, "nearkin head"))
VECTOR, UNIT = "vector", "unit"
"""Names of the vectors: as they are, and for the cosine also in unit length, as Qdrant makes it."""
PAGE = 1000  # points in one answer
TOGETHER = 256  # points in one request
EFFORT = 16  # candidates (hnsw_ef) of an approximate search with an effort of 1
MOST = 64


class QdrantStore:
    """Items in a collection of a Qdrant server.

    Args:
        client: `QdrantClient` of qdrant-client, or what has its methods.
        collection: its name; it is made where there is none, which wants `dim`.
        metric: of the Model, by which approximate searches look.

    Source: Qdrant, https://qdrant.tech. Differs: exact answers come from Nearkin's own search over
    the stored vectors; Qdrant's search serves approximate ones alone.
    """

    def __init__(
        self, client: Any, collection: str, dim: int | None = None, metric: str = "cosine"
    ):
        from qdrant_client import models

        self.client, self.collection, self.models = client, collection, models
        self.using = UNIT if metric == "cosine" else VECTOR
        if client.collection_exists(collection):
            return
        if dim is None:
            raise ValueError(f"the server has no collection {collection!r}")
        distance = models.Distance.DOT if metric == "inner" else models.Distance.EUCLID
        vectors = {VECTOR: models.VectorParams(size=dim, distance=distance)}
        if metric == "cosine":
            vectors[UNIT] = models.VectorParams(size=dim, distance=models.Distance.COSINE)
        client.create_collection(collection, vectors_config=vectors)

    def put(self, items: pa.Table) -> None:
        for start in range(0, items.num_rows, TOGETHER):
            rows = items.slice(start, TOGETHER).to_pylist()
            points = [self._point(row) for row in rows]
            self.client.upsert(self.collection, points=points, wait=True)
        self._count_change()

    def delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), TOGETHER):
            numbers = [number(path) for path in paths[start : start + TOGETHER]]
            self.client.delete(self.collection, points_selector=numbers, wait=True)
        if paths:
            self._count_change()

    def nearest(
        self, vectors: np.ndarray, k: int, metric: str, label: str | None, effort: int
    ) -> list[list[str]]:
        params = self.models.SearchParams(exact=not effort, hnsw_ef=EFFORT * effort or None)
        found = []
        for vector in vectors:
            answer = self.client.query_points(
                self.collection,
                query=np.asarray(vector, dtype=np.float32).tolist(),
                using=self.using,
                query_filter=self._filter(label),
                search_params=params,
                limit=k,
                with_payload=["path"],
            )
            found.append([point.payload["path"] for point in answer.points])
        return found

    def scan(
        self,
        columns: Sequence[str],
        label: str | None = None,
        paths: Sequence[str] | None = None,
    ) -> pa.Table:
        wanted = list(dict.fromkeys(["path", *columns]))
        vectors = VECTOR in wanted
        rows, found = [], []
        for point in self._points(label, paths, [c for c in wanted if c != VECTOR], vectors):
            row = {name: point.payload.get(name) for name in wanted if name != VECTOR}
            if row.get("thumbnail"):
                row["thumbnail"] = base64.b64decode(row["thumbnail"])
            rows.append(row)
            if vectors:
                found.append(point.vector[VECTOR])
        order = sorted(range(len(rows)), key=lambda i: rows[i]["path"])
        dim = len(found[0]) if found else 1
        schema = schema_of(dim)
        arrays: dict[str, Any] = {
            name: pa.array([rows[i][name] for i in order], schema.field(name).type)
            for name in wanted
            if name != VECTOR
        }
        if vectors:
            flat = np.array([found[i] for i in order], dtype=np.float32).ravel()
            arrays[VECTOR] = pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)
        return pa.table(arrays).select(list(columns))

    def count(self) -> int:
        wanted = self._filter(None)
        return self.client.count(self.collection, count_filter=wanted, exact=True).count

    def tidy(self, keep: timedelta = timedelta(0)) -> None:
        """Nothing: the server compacts by itself, and holds one version."""

    def versions(self) -> list[int]:
        found = self.client.retrieve(self.collection, ids=[HEAD], with_payload=True)
        return [found[0].payload["version"] if found else 0]

    def build(self, metric: str) -> None:
        """Nothing: the server keeps its approximate index up to date."""

    def parts(self) -> int:
        return MOST

    def _point(self, row: dict[str, Any]) -> Any:
        vector = np.asarray(row[VECTOR], dtype=np.float32).tolist()
        payload = {name: row[name] for name in PLAIN}
        if row.get("thumbnail"):
            payload["thumbnail"] = base64.b64encode(row["thumbnail"]).decode()
        named = {VECTOR: vector, **({UNIT: vector} if self.using == UNIT else {})}
        return self.models.PointStruct(id=number(row["path"]), vector=named, payload=payload)

    def _points(
        self, label: str | None, paths: Sequence[str] | None, columns: list[str], vectors: bool
    ) -> Iterator[Any]:
        """The points of these items, a page at a time."""
        if paths is not None:
            for start in range(0, len(paths), PAGE):
                numbers = [number(path) for path in paths[start : start + PAGE]]
                yield from self.client.retrieve(
                    self.collection, ids=numbers, with_payload=columns, with_vectors=vectors
                )
            return
        offset = None
        while True:
            points, offset = self.client.scroll(
                self.collection,
                scroll_filter=self._filter(label),
                limit=PAGE,
                offset=offset,
                with_payload=columns,
                with_vectors=vectors,
            )
            yield from points
            if offset is None:
                return

    def _filter(self, label: str | None) -> Any:
        """All items, or those with a label; the head is none."""
        m = self.models
        head = m.HasIdCondition(has_id=[HEAD])
        if label is None:
            return m.Filter(must_not=[head])
        same = m.FieldCondition(key="label", match=m.MatchValue(value=label))
        return m.Filter(must=[same], must_not=[head])

    def _count_change(self) -> None:
        payload = {"version": self.versions()[-1] + 1}
        head = self.models.PointStruct(id=HEAD, vector={}, payload=payload)
        self.client.upsert(self.collection, points=[head], wait=True)


def number(path: str) -> str:
    """The number of a path's point."""
    return str(uuid5(NAMESPACE_URL, path))


def new_address(url: str) -> str:
    """A server's address with the name of a collection that does not exist yet.

    >>> new_address("http://127.0.0.1:6333").startswith("http://127.0.0.1:6333#nearkin-")
    True
    """
    parts = urlparse(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError(f"store: wanted a Qdrant server, such as http://127.0.0.1:6333, got {url}")
    return f"{url.rstrip('/')}#nearkin-{uuid4().hex[:12]}"


def connected(address: str, dim: int | None = None, metric: str = "cosine") -> QdrantStore:
    """The store at an address of `new_address`; the key of the server is in QDRANT_API_KEY.

    Raises:
        ValueError: there is no such server, or it does not answer.
    """
    from qdrant_client import QdrantClient

    url, _, collection = address.partition("#")
    try:
        key = os.environ.get(KEY) or None
        client = QdrantClient(url=url, api_key=key, timeout=30, check_compatibility=False)
        return QdrantStore(client, collection, dim, metric)
    except ValueError:
        raise
    except Exception as error:  # the client's errors have no common class
        why = " ".join(str(error).split())[:120]
        raise ValueError(f"store {url}: no Qdrant server answers there ({why})") from None
