"""An index: photographs embedded by one Model, with labels, and the search in them.

    shop/
      index.json      the Model's identity, metric and dimension, the sources, the threshold
      model/          the Model's folder, so that the index answers alone
      model.onnx      the Model's ONNX form, which answers without torch (light.py)
      decisions.json  what a person has decided of single photographs (decisions.py)
      images.lance/   the items (store.py)
      items.arrow     paths, labels and vectors of a small index once more (snapshot.py)

Dimensions: N items, B queries, D embedding.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from nearkin import notebook
from nearkin.search.decisions import carry_out
from nearkin.search.groups import Groups, groups
from nearkin.search.intake import keep_up, take_in
from nearkin.search.photos import composed, stored
from nearkin.search.rerank import candidates, reranked
from nearkin.search.snapshot import among, read_snapshot, state_of, write_snapshot
from nearkin.search.store import KEPT_DAYS, TABLE, LanceStore, Store, vectors_of
from nearkin.search.threshold import calibrated
from nearkin.search.values import FORMAT, Answer, Changes, Description, Hit, refuse_other, vote

CARD, MODEL, LIGHT = "index.json", "model", "model.onnx"
MANY = 100  # versions of a table, above which an update compacts it


def is_begun(path: Path) -> bool:
    """Whether a folder is empty, or holds no more than what a killed `create` left."""
    names = {each.name for each in path.iterdir()}
    return all(name in (MODEL, f"{TABLE}.lance") or name.startswith(f".{CARD}") for name in names)


class Index:
    """Photographs embedded by one Model, searchable.

        index = nk.Index.create(model, "shop")
        index.update("photos/", labels="parent")
        for hit in index.search(["new.jpg"])[0].hits: ...

    Args:
        path: of an index that `create` made.

    Raises:
        ValueError: the folder holds no index, or one that is cut or newer.
    """

    def __init__(self, path: str | Path, store: Store | None = None):
        self.path = Path(path).expanduser()
        if not (self.path / CARD).is_file():
            raise ValueError(f"{self.path} holds no index: `nearkin index MODEL PHOTOS` makes one")
        self.description = Description.read(self.path / CARD)
        self._items = None if store or self.description.store else read_snapshot(self.path)
        self._store: Any = store
        if self._items is None:
            self._store = self.store  # one that cannot be opened is an error now
        self._model: Any = None
        self._opened: tuple[Any, Any] | None = None

    @classmethod
    def create(cls, model: Any, path: str | Path, store: Store | str | None = None) -> Index:
        """An empty index of this Model's embeddings; the Model is saved into it.

        Args:
            store: address of a Qdrant server, or a store of one's own; by default the items lie
                in the folder, in a table of LanceDB.

        Raises:
            ValueError: there is something at the path already.
        """
        path = Path(path).expanduser()
        if path.exists() and (path.is_file() or not is_begun(path)):
            raise ValueError(f"{path} exists: give the index a folder of its own")
        shutil.rmtree(path / f"{TABLE}.lance", ignore_errors=True)  # which a kill may have cut off
        address = ""
        if isinstance(store, str):
            from nearkin.search.qdrant import connected, new_address

            address = new_address(store)
            store = connected(address, model.dim, model.metric)
        model.save(path / MODEL)
        if store is None:
            LanceStore(path, model.dim)
        about = Description(FORMAT, model.identity, model.metric, model.dim, store=address)
        about.write(path / CARD)
        made = cls(path, store)
        made._model = model
        return made

    @property
    def model(self) -> Any:
        """The Model of the index, loaded when it is first needed."""
        if self._model is None:
            from nearkin.models.model import Model

            self._model = Model.load(self.path / MODEL)
            refuse_other(self._model.identity, self.description, self.path)
        return self._model

    @property
    def store(self) -> Any:
        """Where the items are, opened when it is first needed."""
        if self._store is None:
            self._store = opened_store(self.description, self.path)
        return self._store

    @property
    def similarity_name(self) -> str:
        """What the similarities of answers are, in words."""
        from nearkin.search.exact import NAMES

        return NAMES[self.description.metric]

    def __len__(self) -> int:
        return self.store.count()

    def __repr__(self) -> str:
        about = self.description
        return (
            f"Index({self.path}, {len(self):,} photographs, {about.dim}-D, {self.similarity_name})"
        )

    def _repr_html_(self) -> str:
        labels, about = self.labels(), self.description
        limit = about.threshold.get("value") if about.threshold else None
        return notebook.facts(
            f"Index {self.path}",
            [
                ("photographs", f"{len(self):,}"),
                ("labels", f"{len([label for label in labels if label is not None]):,}"),
                ("embedding", f"{about.dim} numbers"),
                ("similarity", self.similarity_name),
                ("known from a similarity of", None if limit is None else f"{limit:.4f}"),
                ("Model", about.identity),
            ],
        )

    def labels(self) -> dict[str | None, int]:
        """How many photographs have each label."""
        return dict(Counter(self.store.scan(["label"])["label"].to_pylist()))

    def update(
        self,
        *sources: str | Path,
        labels: str = "none",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Changes:
        """Bring the index up to date with these folders and .csv files, or with those of before.

        New and changed photographs are embedded, moved ones keep their vectors, and those that are
        gone from a folder leave the index (what a .csv file no longer names stays: `remove` it).
        Each 128 photographs are one commit, so that a killed update goes on where it was.
        """
        remembered, changes = keep_up(self, sources, labels, progress)
        self._describe(sources=remembered)
        if len(self.store.versions()) > MANY:
            self.tidy()
        return changes

    def add(
        self,
        *sources: str | Path,
        label: str | None = None,
        labels: str = "none",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Changes:
        """Add photographs, all with one label or labelled by their folders; none is removed."""
        return take_in(self, sources, labels, label, progress)

    def remove(self, *, label: str | None = None, path: str | None = None) -> int:
        """Remove the photographs of a label, or one by its path; how many those were."""
        if (label is None) == (path is None):
            raise ValueError("remove wanted a label or a path")
        wanted = composed(label) if label is not None else None
        paths = self.store.scan(["path"], wanted)["path"].to_pylist()
        if path is not None:
            name = stored(Path(path).expanduser().absolute())
            paths = [p for p in paths if p == name]
        if not paths:
            what = f"label {label!r}" if label is not None else str(path)
            raise ValueError(f"{self.path} holds no photograph of {what}")
        self.store.delete(paths)
        return len(paths)

    def decide(self, path: str | Path) -> Changes:
        """Carry out what a file of decisions says (path, class, action), now and at every update
        from now on: `keep` and `relabel` set the class of a photograph, `drop` removes it.

        Raises:
            ValueError: the file is none of decisions, or names a photograph that is not here.
        """
        return carry_out(self, Path(path).expanduser())

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        label: str | None = None,
        names: Sequence[str] | None = None,
        recall: float | None = None,
        rerank: bool = False,
    ) -> list[Answer]:
        """The k nearest photographs of each query, exactly, ties by path.

        Args:
            queries: whatever `Model.embed` takes, or embeddings (B, D) of this index's Model.
            label: search among the photographs with this label alone.
            names: of the queries, for the answers.
            recall: search approximately, with as little effort as finds this share of what an exact
                search finds; the measured share stands in the answers. Similarities stay exact.
            rerank: put the 100 nearest in the order in which they are after all have listened to
                their own neighbours (rerank.py); wants an index by cosine.
        """
        if rerank and self.description.metric != "cosine":
            raise ValueError(f"re-ranking wants an index by cosine, got {self.description.metric}")
        embedded = isinstance(queries, np.ndarray) and queries.ndim == 2
        vectors = queries if embedded else self.embed(queries)
        if vectors.shape[1:] != (self.description.dim,):
            raise ValueError(
                f"{self.path} holds embeddings of {self.description.dim} numbers, got "
                f"{vectors.shape[1:]}"
            )
        if names is None:
            paths = isinstance(queries, list) and all(isinstance(q, str | Path) for q in queries)
            names = [str(q) for q in queries] if paths else [str(i) for i in range(len(vectors))]
        opened = self._open(composed(label) if label is not None else None)
        first = candidates(k) if rerank else k
        if recall is None:
            similarities, places = opened.nearest(vectors, first)
            note = None
        else:
            from nearkin.search.approximate import Approximate

            some = Approximate(self.store, opened, self.description.metric, first, recall, label)
            (similarities, places), note = some.nearest(vectors), str(some)
        answers = []
        for name, vector, row, at in zip(names, vectors, similarities, places, strict=True):
            order = reranked(vector, at, opened) if rerank else np.arange(len(at))
            hits = tuple(
                Hit(opened.paths[at[i]], opened.labels[at[i]], float(row[i])) for i in order
            )
            known = self._known(float(row[0]))
            answers.append(Answer(name, hits[:k], *vote(hits[:k]), known, note, rerank))
        return answers

    def embed(self, queries: Any) -> np.ndarray:
        """Embeddings (B, D) of what `Model.embed` takes; of files without torch, where there is
        an ONNX form and torch is not loaded yet, as its import takes longer than a search."""
        files = isinstance(queries, list) and all(isinstance(q, str | Path) for q in queries)
        if files and "torch" not in sys.modules:
            from nearkin.search.light import light_model

            light = light_model(self.path / LIGHT)
            if light is not None:
                refuse_other(light.identity, self.description, self.path / LIGHT)
                return light.embed([Path(query) for query in queries])
        return np.asarray(self.model.embed(queries))

    def write_light(self) -> bool:
        """Write the Model's ONNX form, checked on the golden pictures, where there is none yet and
        its makers are installed; whether there is one now."""
        if (self.path / LIGHT).is_file():
            return True
        if not all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
            return False
        from nearkin.search.export import export

        export(self.model, self.path / LIGHT)
        return True

    def _known(self, similarity: float) -> bool | None:
        """Whether a photograph whose nearest is so similar is of a label that is here."""
        threshold = (self.description.threshold or {}).get("value")
        return None if threshold is None else similarity >= threshold

    def groups(self, seed: int = 0) -> Groups:
        """Groups of the photographs that have no label, by whom they are near to."""
        if self.description.metric != "cosine":
            raise ValueError(f"groups want an index by cosine, got {self.description.metric}")
        return groups(self._open(None), seed)

    def vectors(self) -> tuple[list[str], list[str | None], np.ndarray]:
        """Paths, labels and embeddings (N, D) of all items, ordered by path."""
        items = self.store.scan(["path", "label", "vector"])
        return items["path"].to_pylist(), items["label"].to_pylist(), vectors_of(items)

    def duplicates(self) -> list[list[str]]:
        """Groups of paths whose files hold the same bytes."""
        items = self.store.scan(["path", "sha256"])
        groups = defaultdict(list)
        for path, sha in zip(items["path"].to_pylist(), items["sha256"].to_pylist(), strict=True):
            groups[sha].append(path)
        return [group for group in groups.values() if len(group) > 1]

    def tidy(self, days: float = KEPT_DAYS) -> int:
        """Compact the table, and forget its versions that are older; how many those were. An update
        does it by itself where there are more than 100 versions."""
        if not 0 <= days < inf:
            raise ValueError(f"wanted days of 0 or more, got {days}")
        before = len(self.store.versions())
        self.store.tidy(timedelta(days=days))
        return max(0, before - len(self.store.versions()))

    def calibrate(self, false_accept: float, confidence: float = 0.95, seed: int = 0) -> Any:
        """A threshold below which a photograph counts as unknown, made on the labelled items.

        It is stored with what it was made on, and used by every search from then on; where nothing
        can be promised, an earlier one is forgotten.
        """
        found, stored = calibrated(self, false_accept, confidence, seed)
        self._describe(threshold=stored)
        return found

    def _describe(self, **changes: Any) -> None:
        self.description = replace(self.description, **changes)
        self.description.write(self.path / CARD)

    def write_snapshot(self) -> bool:
        """Write paths, labels and vectors into a file that a search from the shell reads sooner
        than the table (snapshot.py), where there are few enough; whether it is there now."""
        return not self.description.store and write_snapshot(self.path, self.store)

    def _open(self, label: str | None) -> Any:
        """What is searched, prepared once for each version of the table."""
        from nearkin.search.exact import Opened

        metric, items = self.description.metric, None
        if self._store is None:
            version = state_of(self.path)
            if self._opened is None or self._opened[0] != version or label is not None:
                items = read_snapshot(self.path)
                if items is None:  # the table has changed since
                    self._store = self.store
                    return self._open(label)
                items = among(items, label)
        else:
            version = self.store.versions()[-1]
            if self._opened is None or self._opened[0] != version or label is not None:
                items = self.store.scan(["path", "label", "vector"], label)
        if label is not None:
            if items is None or not len(items):
                raise ValueError(f"the index holds no photograph of label {label!r}")
            return Opened(items, metric)
        if items is not None:
            self._opened = (version, Opened(items, metric))
        assert self._opened
        return self._opened[1]


def opened_store(description: Description, path: Path) -> Store:
    """Where the items of an index are."""
    if not description.store:
        return LanceStore(path)
    from nearkin.search.qdrant import connected

    return connected(description.store, metric=description.metric)
