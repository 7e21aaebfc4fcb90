"""Where an index's items are stored, whatever database is behind them.

An item is a row of

    path       of the photograph, absolute, in NFC: it names the item
    sha256     of the file's bytes         size, mtime   bytes, and nanoseconds since 1970
    label      the class's name, or null   thumbnail     a small JPEG
    vector     D float32

A store offers `put`, `delete`, `scan`, `count` and `versions`; `nearest`, `build` and `parts` serve
approximate searches. Every change is one commit: a killed process leaves the version before
or the version after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from nearkin.files import sync_below

TABLE = "images"
PLAIN = ("path", "sha256", "size", "mtime", "label")
"""The columns but those of the vector and the picture."""
KEPT_DAYS = 7.0  # for so long an older version can still be read
AT_ONCE = 500  # paths in one filter
ANN, LEAST = "vector_idx", 256
"""LanceDB's name of the approximate index, and the fewest items of which one is made."""
DISTANCES = {"cosine": "cosine", "inner": "dot", "euclidean": "l2"}
"""Metric -> LanceDB's name of it."""


def schema_of(dim: int) -> pa.Schema:
    """The columns of an item whose vector has D = `dim` numbers."""
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("mtime", pa.int64(), nullable=False),
            pa.field("label", pa.string()),
            pa.field("thumbnail", pa.binary()),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


class Store(Protocol):
    """What an Index needs of a database."""

    def put(self, items: pa.Table) -> None:
        """Add items; one whose path is there already is replaced."""

    def delete(self, paths: Sequence[str]) -> None:
        """Remove the items of these paths."""

    def nearest(
        self, vectors: np.ndarray, k: int, metric: str, label: str | None, effort: int
    ) -> list[list[str]]:
        """Paths of the k nearest items of each vector (B, D), by an approximate search.

        effort: 0 looks at every vector; more of it looks at more parts of the store.
        """
        ...

    def build(self, metric: str) -> None:
        """Make ready for approximate searches, where that takes something."""

    def parts(self) -> int:
        """The effort at which an approximate search looks at everything."""
        ...

    def scan(
        self,
        columns: Sequence[str],
        label: str | None = None,
        paths: Sequence[str] | None = None,
    ) -> pa.Table:
        """These columns of all items, of those with a label or of these paths, ordered by path."""
        ...

    def count(self) -> int:
        """How many items there are."""
        ...

    def versions(self) -> list[int]:
        """Numbers of the versions that can still be read, the present one last."""
        ...

    def tidy(self, keep: timedelta = ...) -> None:
        """Compact what is stored, and forget versions that are older than this."""


class LanceStore:
    """Items in an embedded LanceDB table: readers may read beside a writer.

    Source: LanceDB, https://lancedb.com. Filters are expressions, never text.
    """

    def __init__(self, folder: Path, dim: int | None = None):
        """dim: of a table that is made if there is none."""
        import lancedb

        self.folder = folder
        self.synced: set[Path] = set()
        self.database = lancedb.connect(str(folder))
        if TABLE in self.database.list_tables().tables:
            self.table = self.database.open_table(TABLE)
        elif dim is None:
            raise ValueError(f"{folder}: there is no table {TABLE!r}")
        else:
            self.table = self.database.create_table(TABLE, schema=schema_of(dim))
            self._sync()

    def _sync(self) -> None:
        """Return when the disk has what was written: LanceDB leaves that to the system, so that a
        power cut would leave a version without its files, and with it no table at all."""
        self.synced = sync_below(self.folder / f"{TABLE}.lance", self.synced)

    def put(self, items: pa.Table) -> None:
        merge = self.table.merge_insert("path")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(items)
        self._sync()

    def delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), AT_ONCE):
            self.table.delete(column("path").isin(list(paths[start : start + AT_ONCE])))
        self._sync()

    def nearest(
        self, vectors: np.ndarray, k: int, metric: str, label: str | None, effort: int
    ) -> list[list[str]]:
        found = []
        for vector in vectors:
            query: Any = self.table.search(vector, vector_column_name="vector")
            query = query.distance_type(DISTANCES[metric]).limit(k).select(["path", "_distance"])
            query = query.nprobes(effort) if effort else query.bypass_vector_index()
            if label is not None:
                query = query.where(column("label") == literal(label), prefilter=True)
            found.append(query.to_arrow()["path"].to_pylist())
        return found

    def scan(
        self,
        columns: Sequence[str],
        label: str | None = None,
        paths: Sequence[str] | None = None,
    ) -> pa.Table:
        self.table.checkout_latest()
        query = self.table.search().select(list(dict.fromkeys(["path", *columns])))
        if label is not None:
            query = query.where(column("label") == literal(label))
        if paths is not None:
            query = query.where(column("path").isin(list(paths)))
        return query.limit(max(1, self.count())).to_arrow().sort_by("path").select(list(columns))

    def count(self) -> int:
        return self.table.count_rows()

    def versions(self) -> list[int]:
        return [version["version"] for version in self.table.list_versions()]

    def tidy(self, keep: timedelta = timedelta(days=KEPT_DAYS)) -> None:
        """Compact the files, bring the approximate index up to date, forget old versions."""
        self.table.optimize(cleanup_older_than=keep)
        self._sync()

    def build(self, metric: str) -> None:
        """Make the approximate index: parts of similar vectors (IVF), stored in full; anew where
        there are items that it does not hold, and none of fewer than 256 items."""
        from lancedb.index import IvfFlat

        self.table.checkout_latest()
        stats = self.table.index_stats(ANN) if self._built() else None
        fresh = stats is not None and not stats.num_unindexed_rows
        if fresh or self.count() < LEAST:
            return
        kind: Any = DISTANCES[metric]
        parts = max(1, round(self.count() ** 0.5))
        self.table.create_index(
            "vector", config=IvfFlat(distance_type=kind, num_partitions=parts), replace=True
        )
        self.table.wait_for_index([ANN])
        self._sync()

    def parts(self) -> int:
        """How many parts the approximate index has; 1 without one."""
        return max(1, round(self.count() ** 0.5)) if self._built() else 1

    def _built(self) -> bool:
        return ANN in {index.name for index in self.table.list_indices()}


def column(name: str) -> Any:
    """A column in a filter."""
    from lancedb.expr import col

    return col(name)


def literal(value: Any) -> Any:
    """A value in a filter, which is compared and never read as text of a query."""
    from lancedb.expr import lit

    return lit(value)


def vectors_of(items: pa.Table) -> np.ndarray:
    """The vectors (N, D) of items, without a copy where they lie in one piece."""
    vectors = items["vector"].combine_chunks()
    if isinstance(vectors, pa.ChunkedArray):
        vectors = vectors.chunk(0) if vectors.num_chunks else pa.array([], vectors.type)
    dim = vectors.type.list_size
    flat = np.from_dlpack(vectors.flatten())  # to_numpy would import pandas, half a second
    return flat.reshape(-1, dim)


def table_of(rows: Iterable[dict], vectors: np.ndarray) -> pa.Table:
    """Items as a table: `rows` hold every column but the vector, `vectors` (N, D) those."""
    rows = list(rows)
    schema = schema_of(vectors.shape[1])
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    columns = {
        name: pa.array([row[name] for row in rows], schema.field(name).type)
        for name in schema.names
        if name != "vector"
    }
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table([columns[name] for name in schema.names], schema=schema)
