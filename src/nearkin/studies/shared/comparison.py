"""Methods side by side: who leads, and who cannot be told from whom, as a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nearkin.answers import Dots, Table
from nearkin.measure.statistics import Difference, paired
from nearkin.studies.shared.controls import STARTED
from nearkin.studies.shared.reading import Scores, against, average, highest, mean
from nearkin.studies.shared.words import (
    percent,
    surely,
)


@dataclass(frozen=True)
class Comparison:
    """Methods by one share, such as R@1, over the same seeds.

    scores: method -> seed -> share, of those that are ranked.
    beside: the same of what is not ranked, such as no training.
    place: what sets this comparison apart from others of its study: "64-D", "cub".
    spoken: the place within a sentence; by default "at 64-D".
    reference: the method that the study is about, if there is one.
    digits: decimals of a share in per cent.
    """

    metric: str
    scores: Mapping[str, Scores]
    beside: Mapping[str, Scores] = field(default_factory=dict)
    place: str = ""
    spoken: str = ""
    reference: str = ""
    digits: int = 1

    @property
    def order(self) -> list[str]:
        """The methods, the highest mean first."""
        means = {name: average(found) for name, found in self.scores.items()}
        return sorted(means, key=lambda name: -(e.mean if (e := means[name]) else 0.0))

    @property
    def leader(self) -> str:
        """The method with the highest mean, which is not to say that it is best."""
        return highest(self.scores)

    @property
    def unit(self) -> str:
        """The metric, as it stands beside a number; nothing where the place says it already."""
        return "" if self.place == self.metric else self.metric

    @property
    def head(self) -> str:
        """The place and the metric, each once, at the head of a column."""
        return f"{self.place} {self.unit}".strip()

    def level(self, name: str) -> str:
        """A method's mean in words."""
        one = mean({**self.scores, **self.beside}[name])
        return percent(one.mean, self.digits) if one else "–"

    def score(self, name: str) -> str:
        """A method's mean in words, and of what it is."""
        return f"{self.level(name)} {self.unit}".rstrip()

    def ranks(self) -> dict[str, tuple[int, int]]:
        """The best and the worst rank that each method may have.

        1 + how many are surely better, and the number of methods less how many are surely worse, by
        paired t-tests against all others, Holm-corrected for each method.
        Source: Mogstad, Romano, Shaikh & Wilhelm, Inference for ranks, Review of Economic Studies
        2024 (marginal confidence sets by multiple testing).
        """
        found = {}
        for name in self.scores:
            differ = against(name, self.scores)
            better, worse = (len(surely(differ, sign)) for sign in (1, -1))
            found[name] = (1 + better, len(self.scores) - worse)
        return found

    def over(self, name: str, other: str) -> Difference:
        """A method minus what stands beside; where that has one seed, it is the same for all."""
        fixed = self.beside[other]
        if len(fixed) == 1:
            fixed = dict.fromkeys(self.scores[name], next(iter(fixed.values())))
        return paired(self.scores[name], fixed)


def standings(comparisons: Sequence[Comparison], title: str, note: str = "") -> Table:
    """Every method with its mean and its ranks in each comparison; last, what is ranked in none."""
    found = [one for one in comparisons if one.scores]
    names = list(dict.fromkeys(name for one in reversed(found) for name in one.order))
    apart = dict.fromkeys(name for one in found for name in one.beside)
    beside = [name for name in apart if name not in names]
    ranks = [one.ranks() for one in found]

    def cells(name: str) -> tuple:
        both = [
            (mean(one.scores.get(name) or one.beside.get(name)), rank_words(places.get(name)))
            for one, places in zip(found, ranks, strict=True)
        ]
        return tuple(cell for pair in both for cell in pair)

    heads = [one.head for one in found]
    rank = [f"rank, {one.place}" if one.place else "rank" for one in found]
    return Table(
        title=title,
        columns=("method", *(c for pair in zip(heads, rank, strict=True) for c in pair)),
        rows=tuple((name, *cells(name)) for name in [*names, *beside]),
        percent=tuple(heads),
        best=tuple(heads),
        above=len(names) if beside else None,
        note=" ".join(filter(None, (note, RANKS))),
    )


RANKS = (
    "Rank: the best and the worst that seeds leave possible, by paired t-tests against all others, "
    "Holm-corrected, at 5 %; whoever may be 1 cannot be told from the leader."
)


def rank_words(places: tuple[int, int] | None) -> str:
    """A rank, or the ranks between which it lies.

    >>> rank_words((2, 5)), rank_words((1, 1)), rank_words(None)
    ('2–5', '1', '')
    """
    if places is None:
        return ""
    first, last = places
    return str(first) if first == last else f"{first}–{last}"


def picture(comparisons: Sequence[Comparison], title: str, note: str = "") -> Dots:
    """Every method as a dot with its interval and its seeds; hollow, who is surely behind."""
    found = [one for one in comparisons if one.scores]
    names = list(dict.fromkeys(name for one in reversed(found) for name in one.order))
    series = [one.place or one.metric for one in found]
    marks: dict[str, dict[str, Scores]] = {}
    for one in found:
        for name, values in one.beside.items():
            if name in STARTED:  # in the table: lines of six strokes are not told apart
                continue
            marks.setdefault(name, {})[one.level(name)] = values
    behind = {
        (name, of)
        for one, of in zip(found, series, strict=True)
        for name, (first, _) in one.ranks().items()
        if first > 1
    }
    key = (
        "Dots are means, bars 95 % t-intervals, small dots seeds. Hollow: surely behind the first."
    )
    return Dots(
        title,
        found[-1].metric if found else "",
        tuple(names),
        tuple(series),
        tuple(tuple(mean(one.scores.get(name)) for one in found) for name in names),
        note=" ".join(filter(None, (note, key))),
        percent=True,
        marks=tuple(
            (f"{name}, {level}", e.mean)
            for name, levels in marks.items()
            for level, values in levels.items()
            if len(levels) == 1 and (e := mean(values))
        ),
        open=frozenset(behind),
    )
