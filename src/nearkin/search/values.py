"""What an index tells: its description, what an update changed, and what a search found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from nearkin import notebook
from nearkin.files import read_json, write_whole
from nearkin.names import unknown
from nearkin.registry import METRICS

FORMAT = 1
VOTERS = 5


class Newer(ValueError):
    """A file of a format that this version does not know."""


@dataclass(frozen=True)
class Description:
    """What index.json holds."""

    format: int
    identity: str
    metric: str
    dim: int
    sources: tuple[tuple[str, str], ...] = ()
    """(folder, how its labels are read) of what `update` looks at again"""
    threshold: dict[str, Any] | None = None
    store: str = ""
    """address of the server that holds the items; "": they lie beside this file"""

    def __post_init__(self):
        kinds = {"format": int, "identity": str, "metric": str, "dim": int, "store": str}
        for name, kind in kinds.items():
            if type(getattr(self, name)) is not kind:
                raise ValueError(f"{name}: wanted {kind.__name__}, got {getattr(self, name)!r:.40}")
        if self.metric not in METRICS:
            raise unknown(self.metric, METRICS, "metric")
        if self.dim < 1:
            raise ValueError(f"dim: wanted 1 or more, got {self.dim}")
        limit = 0.0 if self.threshold is None else self.threshold["value"]
        if type(limit) not in (int, float) or not isfinite(limit):
            raise ValueError(f"threshold: wanted a number as its value, got {limit!r:.40}")

    @classmethod
    def read(cls, path: Path) -> Description:
        """The description in a file, checked."""
        found = read_json(path)
        try:
            if found["format"] > FORMAT:
                raise Newer(f"{path}: written by a newer Nearkin (format {found['format']})")
            known = {f.name for f in fields(cls)}
            if set(found) - known:
                raise KeyError(min(set(found) - known))
            found["sources"] = tuple((str(a), str(b)) for a, b in found.get("sources", ()))
            return cls(**found)
        except Newer:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not the description of an index ({error})") from None

    def write(self, path: Path) -> None:
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))


@dataclass
class Changes:
    """What an update did, in numbers of photographs."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    relabelled: int = 0
    removed: int = 0
    unchanged: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Counts that are not zero, in a sentence."""
        counts = [
            f"{getattr(self, f.name):,} {f.name}"
            for f in fields(self)
            if f.name != "left_out" and getattr(self, f.name)
        ]
        counts += [f"{n:,} {kind} left out" for kind, n in sorted(self.left_out.items())]
        return ", ".join(counts) or "nothing to do"


@dataclass(frozen=True)
class Hit:
    """A photograph that was found: its path, label, and similarity (the higher the nearer)."""

    path: str
    label: str | None
    similarity: float


@dataclass(frozen=True)
class Answer:
    """What a search found for one query.

    label, share: what the nearest items with a label vote for, and by what share of the votes.
    known: whether the nearest item is similar enough by the index's threshold; None without one.
    recall: of an approximate search, measured on stored items; None of an exact one.
    reranked: whether the hits are in the order that rerank.py gives them.
    """

    query: str
    hits: tuple[Hit, ...]
    label: str | None
    share: float | None
    known: bool | None
    recall: str | None = None
    reranked: bool = False

    @property
    def verdict(self) -> str:
        """What the query is, in words."""
        words = self.label or "no label"
        if self.share is not None:
            words += f" ({100 * self.share:.0f} % of the nearest labelled)"
        return f"unknown; nearest would be {words}" if self.known is False else words

    def _repr_html_(self) -> str:
        rows = [(f"{hit.similarity:.4f}", hit.label or "-", hit.path) for hit in self.hits]
        heads = ("similarity", "label", "photograph")
        return notebook.table(f"{self.query}: {self.verdict}", heads, rows)


def vote(hits: Sequence[Hit]) -> tuple[str | None, float | None]:
    """The label of most of the five nearest labelled hits, and its share; ties to the nearest.

    >>> vote([Hit("a", "x", 0.9), Hit("b", "y", 0.8), Hit("c", "y", 0.7)])
    ('y', 0.6666666666666666)
    """
    labels = [hit.label for hit in hits if hit.label is not None][:VOTERS]
    if not labels:
        return None, None
    counts = Counter(labels)  # in the order of nearness
    label, count = max(counts.items(), key=lambda item: item[1])
    return label, count / len(labels)


def refuse_other(identity: str, description: Description, path: Path) -> None:
    """An index answers for the Model that made it, and for no other."""
    if identity != description.identity:
        raise ValueError(
            f"{path} is an index of Model {description.identity}, got one of identity {identity}"
        )
